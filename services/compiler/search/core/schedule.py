"""What a search does next: successive halving over how much of the model is built, under a time budget. Pure.

Building the whole of a 30-layer model takes minutes, its first few layers seconds. So every candidate is tried on a few
layers, the winners of each precision go on to the whole, and only what is built whole can be kept. The same trials and
times give the same answer, in whatever order they are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.compiler.search.core.facts import WHOLE, Candidate, Fate, Measured, Trial, Verdict
from services.compiler.search.core.front import pareto, rung_winners

# Layers of the first rung: two show the cost of a layer twice, and the compiler repeats what it does for more of them.
PROBE_LAYERS: Final = 2
# A model this shallow is built whole at once: a rung below would cost as much as it saves.
LEAST_LAYERS_TO_PROBE: Final = 6
# Probes that share one child process: its libraries cost six seconds of a core, and one step must not eat a search.
PROBES_TOGETHER: Final = 4
# A rung has this many times the layers of the one before.
GROWTH: Final = 8
# Wholes take longer than probes by less than their layers say: start of processes, embeddings and head are in both.
# Thirty layers took 7.5 and 7.7 times as long as two, the gate's text and the source's answers to it included.
WHOLE_COST_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """A search on one target.

    Attributes:
        candidates: best known first; of each precision one is probed before another of any.
        model_layers: of the whole model.
        budget_s: for this target.
        width: trials that may run side by side.
        measurable: whether there is a device to time candidates on.
        cuttable: whether the model can be built with fewer layers.
    """

    candidates: tuple[Candidate, ...]
    model_layers: int
    budget_s: float
    width: int
    measurable: bool
    cuttable: bool = True

    @property
    def rungs(self) -> tuple[int, ...]:
        """Layers of each rung; the last is WHOLE."""
        if not self.cuttable or self.model_layers < LEAST_LAYERS_TO_PROBE or len(self.candidates) < 2:
            return (WHOLE,)
        rungs, layers = [PROBE_LAYERS], PROBE_LAYERS * GROWTH
        while layers * 2 <= self.model_layers and self.measurable:
            rungs.append(layers)
            layers *= GROWTH
        return (*rungs, WHOLE)


@dataclass(frozen=True, slots=True)
class Next:
    """Trials to make now, side by side; none when the search is over."""

    layers: int
    recipes: tuple[str, ...]


def next_trials(plan: Plan, trials: Sequence[Trial], elapsed_s: float) -> Next:
    """What to try now.

    Args:
        plan: the search.
        trials: made so far, in any order.
        elapsed_s: spent so far.
    """
    standing = [c.recipe for c in plan.candidates]
    for layers in plan.rungs:
        made = _by_recipe(trials, layers)
        waiting = [recipe for recipe in standing if recipe not in made]
        if layers != WHOLE:
            waiting = _one_of_each(plan, waiting)
        enough = layers == WHOLE and _has_enough(plan, made)
        if not enough and (count := _count(plan, trials, layers, elapsed_s, len(waiting))):
            return Next(layers, tuple(waiting[:count]))
        standing = [*_survivors(plan, layers, made), *waiting]
    return Next(WHOLE, _second_choice(plan, trials))


def _one_of_each(plan: Plan, waiting: Sequence[str]) -> list[str]:
    """The first of each precision before the second of any: what time is left for says most, then."""
    precision = {c.recipe: c.precision for c in plan.candidates}
    seen = Counter[str]()
    turn: dict[str, int] = {}
    for recipe in waiting:
        turn[recipe] = seen[precision[recipe]]
        seen[precision[recipe]] += 1
    return sorted(waiting, key=turn.__getitem__)


def _second_choice(plan: Plan, trials: Sequence[Trial]) -> tuple[str, ...]:
    """When everything that was built whole failed: the first that ran on some layers and was beaten by those."""
    wholes = _by_recipe(trials, WHOLE)
    if not plan.measurable or any(trial.fate is None for trial in wholes.values()):
        return ()
    ran = {trial.recipe for trial in trials if trial.measured is not None}
    failed = {trial.recipe for trial in trials if trial.fate is not None}
    return tuple(c.recipe for c in plan.candidates if c.recipe in ran - failed)[:1]


def verdicts(plan: Plan, trials: Sequence[Trial]) -> tuple[Verdict, ...]:
    """What became of every candidate, in the plan's order."""
    found: dict[str, Verdict] = {}
    standing = [c.recipe for c in plan.candidates]
    for layers in plan.rungs:
        made = _by_recipe(trials, layers)
        _tell_failures(found, made)
        if layers != WHOLE:
            _tell_slower(found, plan, made)
            waiting = [recipe for recipe in standing if recipe not in made]
            standing = [*_survivors(plan, layers, made), *waiting]
    _tell_whole(found, plan, _by_recipe(trials, WHOLE))
    for recipe in standing:
        if recipe not in found:
            found[recipe] = _left_out(plan, recipe)
    for candidate in plan.candidates:
        found.setdefault(candidate.recipe, _left_out(plan, candidate.recipe))
    return tuple(found[c.recipe] for c in plan.candidates)


def _left_out(plan: Plan, recipe: str) -> Verdict:
    if not plan.measurable:
        return Verdict(
            recipe, Fate.UNMEASURED, "no device of this kind to compare on; what stands before it in the book is built"
        )
    return Verdict(
        recipe, Fate.OVER_BUDGET, f"the {plan.budget_s:.0f} s for this target were over; give more with --budget"
    )


def _by_recipe(trials: Sequence[Trial], layers: int) -> dict[str, Trial]:
    return {trial.recipe: trial for trial in trials if trial.layers == layers}


def _measured(made: Mapping[str, Trial]) -> dict[str, Measured]:
    return {recipe: trial.measured for recipe, trial in made.items() if trial.measured is not None}


def _has_enough(plan: Plan, made: Mapping[str, Trial]) -> bool:
    """Without a device to compare on one whole module is enough: more of them would only wait for one."""
    return not plan.measurable and any(trial.fate is None for trial in made.values())


def _survivors(plan: Plan, layers: int, made: Mapping[str, Trial]) -> list[str]:
    """Who goes on from a rung, best first, as far as it was climbed."""
    seen = _measured(made)
    if not plan.measurable:
        return [c.recipe for c in plan.candidates if c.recipe in seen]
    kept = [recipe for recipe, beaten in rung_winners(plan.candidates, seen).items() if beaten is None]
    whole_ms = {recipe: sum(cost.time_ms for cost in seen[recipe].costs) for recipe in kept}
    return sorted(kept, key=lambda recipe: whole_ms[recipe]) if layers != WHOLE else kept


def _count(plan: Plan, trials: Sequence[Trial], layers: int, elapsed_s: float, waiting: int) -> int:
    """How many to try in one step: as many as fit into the budget, at most so many as share a child or the places."""
    if not waiting:
        return 0
    if layers == WHOLE:
        return (plan.width if plan.measurable else 1) if _affordable(plan, trials, layers, elapsed_s, 1) else 0
    for count in range(min(waiting, max(PROBES_TOGETHER, plan.width)), 0, -1):
        if _affordable(plan, trials, layers, elapsed_s, -(-count // plan.width)):
            return count
    return 0


def _affordable(plan: Plan, trials: Sequence[Trial], layers: int, elapsed_s: float, rounds: int) -> bool:
    """Whether so many more rounds of trials side by side fit into the budget; the first whole always does.

    A probe must leave time for a whole: a search that knows much and has built nothing is of no use.
    """
    need_s = rounds * _expected_s(plan, trials, layers)
    if layers != WHOLE:
        return elapsed_s + need_s + _expected_s(plan, trials, WHOLE) <= plan.budget_s or not trials
    built = any(trial.layers == WHOLE and trial.fate is None for trial in trials)
    return not built or elapsed_s + need_s <= plan.budget_s


def _expected_s(plan: Plan, trials: Sequence[Trial], layers: int) -> float:
    """What a trial may take: as long as the longest at its depth, else scaled from those at another; 0 at first."""
    same = [trial.spent_s for trial in trials if trial.layers == layers]
    if same:
        return max(same)
    wanted = layers or plan.model_layers
    scaled = [
        trial.spent_s * max(1.0, WHOLE_COST_SHARE * wanted / (trial.layers or plan.model_layers)) for trial in trials
    ]
    return max(scaled, default=0.0)


def _tell_failures(found: dict[str, Verdict], made: Mapping[str, Trial]) -> None:
    for recipe, trial in made.items():
        if trial.fate is not None:
            found.setdefault(recipe, Verdict(recipe, trial.fate, trial.words))


def _tell_slower(found: dict[str, Verdict], plan: Plan, made: Mapping[str, Trial]) -> None:
    if not plan.measurable:
        return
    for recipe, beaten in rung_winners(plan.candidates, _measured(made)).items():
        if beaten is not None:
            found.setdefault(recipe, Verdict(recipe, Fate.SLOWER, beaten.words))


def _tell_whole(found: dict[str, Verdict], plan: Plan, made: Mapping[str, Trial]) -> None:
    seen = _measured(made)
    for recipe, beaten in pareto(plan.candidates, seen).items():
        if not plan.measurable:
            found[recipe] = Verdict(recipe, Fate.KEPT, "compiled only: no device of this kind is here")
        elif beaten is None:
            found[recipe] = Verdict(recipe, Fate.KEPT, "in the Pareto set")
        else:
            found[recipe] = Verdict(recipe, Fate.DOMINATED, beaten.words)
