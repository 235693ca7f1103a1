"""The evaluation: workloads × policies on one cluster. Says which traces, how they are scaled, and which SLO holds.

Loads are scaled by copies of requests or by stretching time, never by thinning. What comes before `from_s` is for
tuning; figures count from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final, TypeAlias

from services.simulator.catalogue import menu_of
from services.simulator.cluster import Cluster, parse_cluster
from services.simulator.devices.menu import Menu
from services.simulator.kept import Kept
from services.simulator.outcome import Outcome
from services.simulator.policies import run_policy
from services.simulator.run import Case, Limits
from services.simulator.stored.menu import StoredMenu
from services.simulator.trace import Trace, read_rates, read_trace, with_rates

Tell: TypeAlias = Callable[[str, str, str, Outcome | None], None]
# Number of the workload, and the policy.
Key: TypeAlias = tuple[int, str]
# Copies of a request are this far apart at most: users of one rhythm do not press the same second.
COPY_SPREAD_S: Final = 5.0
TUNE_UNTIL_S: Final = 1800.0
# The mixed cluster of the evaluation, large enough that no policy runs out of it.
MIXED: Final = {
    "name": "mixed",
    "model": "llama-3-8b",
    "devices": [
        {"type": "h100-sxm", "count": 12, "per_node": 4, "rack": "r1"},
        {"type": "a100-sxm", "count": 12, "per_node": 4, "rack": "r2"},
        {"type": "xeon-8592-2s", "count": 4, "per_node": 1, "rack": "r3"},
    ],
}


@dataclass(frozen=True, slots=True)
class Workload:
    """A popular task: a trace, its scale, and the SLO of its requests.

    Attributes:
        rates: file, column, length in seconds and windows that give arrivals to a file of lengths.
    """

    name: str
    file: str
    limits: Limits
    copies: int = 1
    stretch: float = 1.0
    rates: tuple[str, str, float, int] | None = None
    from_s: float = TUNE_UNTIL_S
    look_s: float = 1.0


WORKLOADS: Final = (
    Workload("chat", "azure2023_conv.csv.gz", Limits(1.0, 0.05), copies=8, look_s=2.0),
    Workload("code", "azure2023_code.csv.gz", Limits(2.0, 0.05), copies=4, look_s=2.0),
    Workload(
        "summarisation", "arxiv_summarization_lengths.csv.gz", Limits(2.0, 0.05),
        rates=("servegen_language_rates_10min.csv.gz", "m_mid_req_per_s", 21_600.0, 144), copies=8, look_s=2.0,
    ),
    Workload("long-context", "mooncake_synthetic.csv.gz", Limits(30.0, 0.1), stretch=4.0, copies=6, look_s=2.0),
    Workload("day", "servegen_mlarge_24h.csv.gz", Limits(1.0, 0.05), stretch=0.25, copies=16, look_s=2.0),
)  # fmt: skip


def load(workload: Workload, traces: Path, seed: int) -> Trace:
    """A workload's trace as it is run."""
    trace = read_trace(traces / workload.file, rate_per_s=1.0, seed=seed)
    if workload.rates:
        file, column, length_s, windows = workload.rates
        trace = with_rates(trace, read_rates(traces / file, column)[:windows], length_s, seed)
    trace = trace.stretched(workload.stretch).copied(workload.copies, COPY_SPREAD_S, seed)
    return Trace(
        workload.name,
        trace.arrival_s,
        trace.prompt_tokens,
        trace.output_tokens,
        f"{workload.file}: {trace.arrivals_from}",
    )


def case_of(workload: Workload, traces: Path, cluster: Cluster, menu: Menu | StoredMenu, seed: int) -> Case:
    """A workload on a cluster."""
    trace = load(workload, traces, seed)
    return Case(cluster, menu, trace, workload.limits, from_s=workload.from_s, look_s=workload.look_s, seed=seed)


def evaluate(
    workloads: Iterable[Workload],
    policies: Sequence[str],
    traces: Path,
    tables: Path,
    seed: int,
    tell: Tell,
    cluster: Cluster | None = None,
    *,
    kept: Kept | None = None,
    jobs: int = 1,
    run_missing: bool = True,
) -> tuple[Menu | StoredMenu, list[tuple[Case, list[Outcome]]]]:
    """Runs everything that is not kept already.

    Args:
        tell: is told workload, policy, step and the step's outcome; with several jobs only what ended.
        kept: where outcomes are looked for and kept as they come.
        jobs: processes at work together; figures do not depend on it.
        run_missing: without it only what is kept is returned.
    """
    cluster = cluster or parse_cluster(MIXED, "mixed")
    menu = menu_of(cluster, tables)
    cases = [case_of(workload, traces, cluster, menu, seed) for workload in workloads]
    wanted = [(number, policy) for number in range(len(cases)) for policy in policies]
    found = {key: kept.find(cases[key[0]], key[1]) if kept else None for key in wanted}
    left = [key for key, outcome in found.items() if outcome is None and run_missing]
    for (number, policy), outcome in found.items():
        if outcome is not None:
            tell(cases[number].trace.name, policy, "kept", outcome)
    for (number, policy), outcome in _ran(cases, left, tell, jobs):
        found[number, policy] = outcome
        if kept:
            kept.put(cases[number], policy, outcome)
    outcomes = [[o for p in policies if (o := found[number, p]) is not None] for number in range(len(cases))]
    return menu, list(zip(cases, outcomes, strict=True))


def _ran(cases: Sequence[Case], left: Sequence[Key], tell: Tell, jobs: int) -> Iterator[tuple[Key, Outcome]]:
    if jobs <= 1:
        for number, policy in left:
            tell(cases[number].trace.name, policy, "", None)

            def told(step: str, outcome: Outcome, name: str = cases[number].trace.name, policy: str = policy) -> None:
                tell(name, policy, step, outcome)

            yield (number, policy), run_policy(cases[number], policy, told)
        return
    # Started anew rather than forked: the solver has threads of its own.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        works = {pool.submit(_alone, cases[number], policy): (number, policy) for number, policy in left}
        for work in as_completed(works):
            number, policy = works[work]
            tell(cases[number].trace.name, policy, "", None)
            tell(cases[number].trace.name, policy, "", work.result())
            yield (number, policy), work.result()


def _alone(case: Case, policy: str) -> Outcome:
    return run_policy(case, policy, lambda *_: None)
