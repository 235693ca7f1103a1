"""Why a deployment is placed as it is: every option weighed, with its numbers. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.orchestrator.core.facts.fleet import DEFAULT_POWER, PowerSetting
from services.orchestrator.core.facts.wish import Slo
from tradewind.domain.figures import FigureSource


class Refusal(StrEnum):
    """Why an option is not possible. The closed list."""

    NOT_PINNED = "NOT_PINNED"
    VARIANT_REJECTED = "VARIANT_REJECTED"
    QUALITY_FLOOR = "QUALITY_FLOOR"
    CONTEXT = "CONTEXT"
    NO_PROFILE = "NO_PROFILE"
    NO_DEVICE = "NO_DEVICE"
    EARLIER_LINK = "EARLIER_LINK"
    QUARANTINED = "QUARANTINED"
    MEMORY = "MEMORY"
    TTFT_LIMIT = "TTFT_LIMIT"
    TPOT_LIMIT = "TPOT_LIMIT"
    E2E_LIMIT = "E2E_LIMIT"
    ENERGY_LIMIT = "ENERGY_LIMIT"
    POWER_LIMIT = "POWER_LIMIT"
    POWER_BUDGET = "POWER_BUDGET"
    CAPACITY = "CAPACITY"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One option with its figures at the planned load; latencies at the SLO's percentile, all of them modelled.

    Attributes:
        power: setting of the device.
        alike: options that this line stands for, when many are told together.
    """

    variant_id: str
    variant_name: str
    device_class: str = ""
    partition_kind: str = ""
    batch_limit: int = 0
    chosen: bool = False
    refusal: str = ""
    reason: str = ""
    ttft_ms: float = 0.0
    tpot_ms: float = 0.0
    e2e_ms: float = 0.0
    energy_per_token_mj: float = 0.0
    energy_source: FigureSource = FigureSource.UNAVAILABLE
    energy_method: str = ""
    memory_bytes: int = 0
    replicas: int = 0
    capacity_requests_per_s: float = 0.0
    power_mw: float = 0.0
    power: PowerSetting = DEFAULT_POWER
    price_per_hour: float = 0.0
    alike: int = 1

    @property
    def key(self) -> tuple[str, str, str, int, tuple[int, int, int]]:
        """Variant, device class, partition kind, batch limit, power setting."""
        return (self.variant_id, self.device_class, self.partition_kind, self.batch_limit, self.power.order)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The report on one deployment. `binding_limit` is empty when a plan was found.

    Attributes:
        nearest_hardware: what to add so that the wish as it is would be met, for instance "+2 gpu:h100-80".
        gap: how far the whole plan may be from the best, as a share of its cost.
    """

    deployment_id: str
    summary: str
    blueprint_id: str = ""
    candidates: tuple[Candidate, ...] = ()
    binding_limit: str = ""
    nearest_slo: Slo | None = None
    nearest_demand_requests_per_s: float | None = None
    nearest_hardware: tuple[str, ...] = ()
    gap: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether a plan was found."""
        return not self.binding_limit

    @property
    def chosen(self) -> Candidate | None:
        """The option chosen, if one was."""
        return next((c for c in self.candidates if c.chosen), None)
