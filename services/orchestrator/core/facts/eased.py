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


def with_eased(profiles: Iterable[Profile], *, each_clock: bool = False) -> tuple[Profile, ...]:
    """The profiles and, for each whole board with one at its default and one at a lower clock, those of easing.

    Slices are left out: a clock acts on all of them.

    Args:
        profiles: one of each operating point.
        each_clock: make one for each lower clock, since people measure clocks that no node offers, and which one a
            board eases to is its node's to offer; else for the lowest only.
    """
    known = tuple(profiles)
    lower: dict[tuple[str, str, int], list[Profile]] = {}
    whole = [p for p in known if p.partition_kind == WHOLE_KIND]
    for profile in sorted(whole, key=lambda p: p.power.order):
        if profile.power.sm_clock_mhz and profile.power == PowerSetting(profile.power.sm_clock_mhz):
            lower.setdefault(_point(profile), []).append(profile)
    pairs = ((full, lower.get(_point(full), ())) for full in whole if full.power == DEFAULT_POWER)
    return (*known, *(_eased(full, low) for full, lows in pairs for low in (lows if each_clock else lows[:1])))


def _point(profile: Profile) -> tuple[str, str, int]:
    return (profile.variant_id, profile.device_class, profile.batch_limit)


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
