"""Variants and profiles of a menu, as the orchestrator's catalog.

Of public tables every figure is labelled modelled; figures of our own store keep the labels they have.
"""

from __future__ import annotations

from pathlib import Path

from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.eased import with_eased
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, PowerSetting
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.variant import Admission, Artifact, Variant
from services.simulator.cluster import Cluster
from services.simulator.devices.menu import MOST_SEQUENCES, Menu, Point, build_menu
from services.simulator.devices.profiling import loads_of
from services.simulator.devices.tables import Tables
from services.simulator.engine.cost import StepCost
from services.simulator.stored.menu import StoredMenu
from tradewind.domain.errors import InvalidField

_BYTES_PER_WEIGHT = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0}
# Code, activations and the smallest useful cache beside the weights.
_OVERHEAD_SHARE = 1.1


def menu_of(cluster: Cluster, tables: Path | None) -> Menu | StoredMenu:
    """The operating points of a cluster's model.

    Raises:
        InvalidField: they come from public tables and nobody said where those are.
    """
    if isinstance(cluster.model, StoredMenu):
        return cluster.model
    if tables is None:
        raise InvalidField(
            "--device-tables", "needed for device types of the public tables (docs/simulator.md names them)"
        )
    return build_menu(Tables(tables), cluster.model, cluster.boards)


def catalog_of(menu: Menu | StoredMenu, output_tokens: int) -> Catalog:
    """What could be chosen, profiled with answers of this mean length; of the store, as it was profiled."""
    if isinstance(menu, StoredMenu):
        return menu.catalog
    precisions = sorted({p.precision for p in menu.points})
    variants = tuple(_variant(menu, precision) for precision in precisions)
    profiles = tuple(_profile(menu, point, output_tokens) for point in menu.points)
    return Catalog(variants, with_eased(p for p in profiles if p.loads))


def variant_id(model: str, precision: str) -> str:
    """Id of a variant in simulated catalogs."""
    return f"{model}-{precision}"


def cost_of(menu: Menu | StoredMenu, variant: str, board: str, kind: str, clock_mhz: int) -> StepCost:
    """What the engine pays at an operating point that the catalog names."""
    if isinstance(menu, StoredMenu):
        return menu.cost(variant, board, kind, clock_mhz)
    return menu.cost(variant.removeprefix(f"{menu.model.name}-"), board, kind, clock_mhz)


def _variant(menu: Menu, precision: str) -> Variant:
    name = variant_id(menu.model.name, precision)
    return Variant(
        variant_id=name,
        name=name,
        model_id=menu.model.name,
        target="simulated",
        admission=Admission.ADMITTED,
        manifest=Artifact("manifest.json", f"sha256:{name}", 1),
        admission_reason="of public tables; its quality was not checked here",
        context_tokens=menu.model.context_tokens,
        slots=MOST_SEQUENCES,
        memory_bytes=_memory(menu, precision),
    )


def _memory(menu: Menu, precision: str) -> int:
    return int(menu.model.parameters * _BYTES_PER_WEIGHT[precision] * _OVERHEAD_SHARE)


def _profile(menu: Menu, point: Point, output_tokens: int) -> Profile:
    clock = f"@{point.clock_mhz}" if point.clock_mhz else ""
    return Profile(
        profile_id=f"{point.precision}:{point.board.name}:{point.kind}{clock}",
        variant_id=variant_id(menu.model.name, point.precision),
        device_class=point.board.name,
        partition_kind=point.kind,
        batch_limit=MOST_SEQUENCES,
        loads=loads_of(point, output_tokens),
        memory_bytes=_memory(menu, point.precision),
        load_s=point.cost.load_s,
        idle_power_mw=(point.board.loaded_idle_w - point.cost.rest_saved_w) * 1000.0,
        power=PowerSetting(sm_clock_mhz=point.clock_mhz) if point.clock_mhz else DEFAULT_POWER,
    )
