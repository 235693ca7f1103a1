"""`tradewind evaluate`: adaptive policies against the best fixed placement, simulated on clusters or live here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tradewind.cli.commands.evaluate_live import live
from tradewind.cli.commands.simulate import TablesOption, require_simulator, show_outcomes
from tradewind.cli.progress import bar
from tradewind.cli.session import Session, command
from tradewind.domain.errors import InvalidField

if TYPE_CHECKING:
    from services.simulator.outcome import Outcome


def register(app: typer.Typer, panel: str) -> None:
    """Adds the group."""
    group = typer.Typer(help="Adaptive policies against the best fixed placement.", no_args_is_help=True)
    command(group, "simulated")(simulated)
    command(group, "live")(live)
    app.add_typer(group, name="evaluate", rich_help_panel=panel)


def simulated(
    session: Session,
    traces: Annotated[Path, typer.Option("--traces", help="Folder of the traces (docs/evaluation.md says which).")],
    device_tables: TablesOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.json and journal.jsonl.")],
    workload: Annotated[
        list[str] | None, typer.Option("--workload", help="Repeatable; all when none is given.")
    ] = None,
    policy: Annotated[list[str] | None, typer.Option("--policy", help="Repeatable; all when none is given.")] = None,
    cluster: Annotated[Path | None, typer.Option("--cluster", help="YAML; the mixed cluster when not given.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal bytes.")] = 1,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at work together, each in its own process.")] = 1,
    so_far: Annotated[bool, typer.Option("--so-far", help="Report what is kept in OUT/runs; run nothing.")] = False,
) -> None:
    """Every workload under every policy on a mixed cluster, all of it simulated.

    Each run is kept in OUT/runs; given again, the command goes on where it was ended.
    """
    require_simulator()
    from services.simulator.cluster import read_cluster
    from services.simulator.kept import Kept
    from services.simulator.matrix import WORKLOADS, evaluate
    from services.simulator.policies import ORDER, check_policy
    from services.simulator.report.document import case_document, origin
    from services.simulator.report.folder import write_report

    known = {w.name: w for w in WORKLOADS}
    for name in workload or ():
        if name not in known:
            raise InvalidField("--workload", f"no workload {name!r}; there are {', '.join(known)}")
    names = [check_policy(name) for name in policy or ORDER]
    chosen = [known[name] for name in workload or known]
    total, done = len(chosen) * len(names), 0
    with bar(session.out, "evaluation") as shown:

        def tell(trace: str, name: str, step: str, outcome: Outcome | None) -> None:
            nonlocal done
            done += outcome is None or step == "kept"
            words = f" {step} {outcome.energy.total_j / 1e6:.3f} MJ, {outcome.attainment:.2%}" if outcome else ""
            shown.tell(f"{trace}: {name}{words}", (done - 1) / total)

        found = read_cluster(cluster) if cluster else None
        menu, results = evaluate(
            chosen, names, traces, device_tables, seed, tell, found,
            kept=Kept(out / "runs"), jobs=jobs, run_missing=not so_far,
        )  # fmt: skip
    cases = [(case_document(case, outcomes), outcomes) for case, outcomes in results]
    source = origin(menu.errors, " ".join(["tradewind", *sys.argv[1:]]))
    document = write_report(out, "Adaptive policies against fixed placements", cases, source)
    session.out.document(document)
    for case, outcomes in results:
        session.out.show(f"\n{case.trace.name}")
        show_outcomes(session.out, outcomes)
