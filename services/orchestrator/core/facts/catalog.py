"""What can be chosen from: variants and profiles of all models, as last known. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.facts.fleet import PowerSetting
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.variant import Variant


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A variant on a device class that failed to start, or made things worse, for a deployment.

    Attributes:
        until_s: it is not chosen again before.
        partition_kind: only on partitions of this kind; "" on any.
        power: only at this setting; None at any.
    """

    deployment_id: str
    variant_id: str
    device_class: str
    reason: str
    until_s: float
    partition_kind: str = ""
    power: PowerSetting | None = None

    @property
    def key(self) -> tuple[str, str, str, str, tuple[int, int, int] | None]:
        """What it speaks of."""
        power = self.power.order if self.power is not None else None
        return (self.deployment_id, self.variant_id, self.device_class, self.partition_kind, power)

    def covers(self, variant_id: str, device_class: str, partition_kind: str, power: PowerSetting) -> bool:
        """Whether it keeps an operating point from being chosen."""
        return (
            (variant_id, device_class) == (self.variant_id, self.device_class)
            and self.partition_kind in ("", partition_kind)
            and self.power in (None, power)
        )


@dataclass(frozen=True, slots=True)
class Catalog:
    """Variants and profiles. Of several profiles of one operating point only the newest is here."""

    variants: tuple[Variant, ...] = ()
    profiles: tuple[Profile, ...] = ()

    def variants_of(self, model_id: str) -> tuple[Variant, ...]:
        """Variants of a model."""
        return tuple(v for v in self.variants if v.model_id == model_id)

    def profiles_of(self, variant_id: str) -> tuple[Profile, ...]:
        """Profiles of a variant."""
        return tuple(p for p in self.profiles if p.variant_id == variant_id)

    def variant(self, variant_id: str) -> Variant | None:
        """A variant by id."""
        return next((v for v in self.variants if v.variant_id == variant_id), None)


EMPTY_CATALOG: Final = Catalog()
