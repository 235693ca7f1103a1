"""Profiles of boards whose clock eases: what they can do is of the full clock, what they take of the eased one. Pure.

A node runs such a board at its eased clock for as long as nothing on it would be late (`node_agent/core/governor.py`).
So capacity and limits are those of the full clock, and energy, which is weighed at the mean load, that of the eased.
That two profiles may be put together is our reckoning, so the energy is modelled even where both were measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from services.orchestrator.core.facts.fleet import DEFAULT_POWER, WHOLE_KIND, PowerSetting
from services.orchestrator.core.facts.profile import Load, Profile
from tradewind.domain.figures import FigureSource, weakest

METHOD: Final = "eased-clock@1"


def with_eased(profiles: Iterable[Profile]) -> tuple[Profile, ...]:
    """The profiles and, for each whole board with one at its default and one at a lower clock, those of easing.

    The lowest clock is eased to. Slices are left out: a clock acts on all of them.
    """
    known = tuple(profiles)
    lowest: dict[tuple[str, str, int], Profile] = {}
    for profile in known:
        if profile.partition_kind != WHOLE_KIND or profile.power != PowerSetting(profile.power.sm_clock_mhz):
            continue
        key = (profile.variant_id, profile.device_class, profile.batch_limit)
        clock = profile.power.sm_clock_mhz
        if clock is not None and (key not in lowest or clock < (lowest[key].power.sm_clock_mhz or 0)):
            lowest[key] = profile
    whole = (p for p in known if p.power == DEFAULT_POWER and p.partition_kind == WHOLE_KIND)
    pairs = ((p, lowest.get((p.variant_id, p.device_class, p.batch_limit))) for p in whole)
    return (*known, *(_eased(full, low) for full, low in pairs if low is not None))


def _eased(full: Profile, low: Profile) -> Profile:
    clock = low.power.sm_clock_mhz
    saving = {_shape(load): load for load in low.loads}
    loads = tuple(_load(load, saving[_shape(load)]) for load in full.loads if _shape(load) in saving)
    power = PowerSetting(eased_sm_clock_mhz=clock)
    return replace(full, profile_id=f"{full.profile_id}+{low.profile_id}", loads=loads, power=power)


def _shape(load: Load) -> tuple[int, int, int]:
    return (load.prompt_tokens, load.output_tokens, load.concurrency)


def _load(full: Load, low: Load) -> Load:
    return replace(
        full,
        energy_per_token_mj=low.energy_per_token_mj,
        energy_per_prefill_mj=low.energy_per_prefill_mj,
        energy_source=weakest((low.energy_source, FigureSource.MODELLED)),
        energy_method=METHOD,
    )
