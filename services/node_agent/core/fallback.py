"""How far down its fallback chain a replica is, and which failures move it on. Pure.

A link is left when the device, its driver or the code's own answers there refuse it: trying it again would fail again.
A failure that says nothing of the device (the compiler is away, the disk is full, a file is damaged) moves nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from tradewind.domain.errors import DeviceFault, Internal, ReplicaLost, UnsupportedModel, VariantRejected, WrongAnswer
from tradewind.domain.manifest import FileRef

# Reasons that speak of a variant on this device: no such driver, another target, a crash while loading, a module that
# the runtime does not take, the canary's answer not given.
_REFUSALS: Final = frozenset(
    kind.reason for kind in (DeviceFault, UnsupportedModel, VariantRejected, WrongAnswer, ReplicaLost, Internal)
)
# Hexadecimal digits of an id that tell variants apart in a person's words.
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Link:
    """A variant of a chain, by its manifest."""

    variant_id: str
    manifest: FileRef


@dataclass(frozen=True, slots=True)
class Descent:
    """Links of a chain, first choice first, and why those before the present one were refused."""

    links: tuple[Link, ...]
    refused: tuple[str, ...] = ()

    @property
    def link(self) -> Link:
        """The one to run."""
        return self.links[len(self.refused)]

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return len(self.refused) + 1 == len(self.links)

    @property
    def words(self) -> str:
        """Why it is not the first choice that runs; "" when it is."""
        if not self.refused:
            return ""
        return f"runs link {len(self.refused) + 1} of {len(self.links)} of its chain: {'; '.join(self.refused)}"

    def after(self, reason: str, message: str) -> Descent | None:
        """One link further; None when the failure says nothing of the device, or there is no other link."""
        if reason not in _REFUSALS or self.is_last:
            return None
        return replace(self, refused=(*self.refused, self._told(reason, message)))

    def exhausted(self, reason: str, message: str) -> str:
        """Words for a failure of the last link, with those of all others; "" when it is no refusal of a chain."""
        if reason not in _REFUSALS or not self.refused:
            return ""
        return "no link of its chain can be loaded here: " + "; ".join((*self.refused, self._told(reason, message)))

    def _told(self, reason: str, message: str) -> str:
        variant = self.link.variant_id.removeprefix("sha256:")[:_SHOWN]
        return f"{variant} refused ({reason}: {message})"


def check_target(target: str, compiled_target: str, offered: Collection[str]) -> None:
    """Refuses a link for another kind of device before its weights are fetched.

    Raises:
        UnsupportedModel: the device runs neither the target asked for nor the one compiled for.
    """
    if target not in offered and compiled_target not in offered:
        raise UnsupportedModel(f"it is for {target}, this device runs {', '.join(offered) or 'nothing'}")
