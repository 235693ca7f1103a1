"""What can be chosen from: variants and profiles of all models, as last known. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.variant import Variant


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A variant on a device class that failed to start for a deployment; not chosen again until `until_s`."""

    deployment_id: str
    variant_id: str
    device_class: str
    reason: str
    until_s: float


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
