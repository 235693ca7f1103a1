"""Candidates of a search and what became of trying them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Layers of a trial of the whole model; other numbers are the first layers of it, with embeddings and head.
WHOLE = 0


class Fate(StrEnum):
    """What became of a candidate; the names of `tradewind.v1.CandidateFate` without their prefix."""

    KEPT = "KEPT"
    COMPILE_ERROR = "COMPILE_ERROR"
    CRASH = "CRASH"
    HANG = "HANG"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    UNSUPPORTED = "UNSUPPORTED"
    WRONG_ANSWERS = "WRONG_ANSWERS"
    BELOW_FLOOR = "BELOW_FLOOR"
    SLOWER = "SLOWER"
    DOMINATED = "DOMINATED"
    UNMEASURED = "UNMEASURED"
    OVER_BUDGET = "OVER_BUDGET"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe that may be tried on the search's target."""

    recipe: str
    precision: str


@dataclass(frozen=True, slots=True)
class Cost:
    """One call of one function of a module.

    Attributes:
        function: its name; all candidates of a search have the same functions.
        time_ms: median.
        energy_mj: of a call, where it was measured or attributed; else 0.
        cpu_ms: processor time of a call, the stand-in for energy where there is no figure of it.
    """

    function: str
    time_ms: float
    cpu_ms: float = 0.0
    energy_mj: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a trial showed.

    Attributes:
        costs: of each function; empty when it was compiled only.
        memory_bytes: resident in the process that ran it; 0 when not known.
        kl_nats: mean divergence from the source framework on the text for choosing; None when not compared.
        where: what it was measured on, in a person's words.
        relative_error: largest of a tensor model's answers; None of a model that generates, or when not compared.
    """

    costs: tuple[Cost, ...] = ()
    memory_bytes: int = 0
    kl_nats: float | None = None
    where: str = ""
    relative_error: float | None = None

    def time_ms(self, function: str) -> float:
        """Of a function.

        Raises:
            KeyError: it was not measured.
        """
        for cost in self.costs:
            if cost.function == function:
                return cost.time_ms
        raise KeyError(function)


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate tried at one depth.

    Attributes:
        recipe: of the candidate.
        layers: how much of the model: its first layers, or WHOLE.
        spent_s: wall time of export, compile and measurement.
        measured: what it showed; None when it failed.
        fate: why it failed; None when it did not.
        words: why, with figures.
        variant_id: of the variant that a trial of the whole made; "" when there is none.
    """

    recipe: str
    layers: int
    spent_s: float
    measured: Measured | None = None
    fate: Fate | None = None
    words: str = ""
    variant_id: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a candidate, and why."""

    recipe: str
    fate: Fate
    words: str
