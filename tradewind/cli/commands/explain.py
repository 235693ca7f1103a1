"""`tradewind explain`: why a deployment is placed as it is."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.text import Text

from tradewind.cli import words
from tradewind.cli.end_to_end import judged_by
from tradewind.cli.output import Output, lined, to_json
from tradewind.cli.session import Session, command
from tradewind.cli.show_slo import slo_words
from tradewind.domain.units import show_bytes, show_ms
from tradewind.v1 import common_pb2, orchestrator_pb2

COLUMNS: Final = ("", "variant", "where", "^TTFT", "^TPOT")
MORE_COLUMNS: Final = ("^energy/token", "^memory", "^takes")


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "explain", rich_help_panel=panel)(explain)


def explain(
    session: Session, deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name or id.")]
) -> None:
    """Say why a deployment is placed as it is: what was chosen, what was refused and by which number."""
    orchestrator = session.client.orchestrator
    found = orchestrator.explain(deployment)
    session.out.document({"explanation": to_json(found)})
    show_explanation(session.out, found, orchestrator.deployment(deployment).spec.slo)


def show_explanation(out: Output, explanation: orchestrator_pb2.Explanation, slo: common_pb2.Slo) -> None:
    """The summary, then every option with its numbers; those end to end where an SLO limits them."""
    if explanation.summary:
        out.show(Text(explanation.summary))
    if explanation.candidates:
        classes = sorted({c.point.device_class for c in explanation.candidates} - {""})
        e2e = ("^E2E",) if judged_by(slo) else ()
        rows = [_row(c, name_class=len(classes) > 1, e2e=bool(e2e)) for c in explanation.candidates]
        out.show("", *lined((*COLUMNS, *e2e, *MORE_COLUMNS), rows, _verdicts(explanation)))
        if len(classes) == 1:
            out.show(Text(f"on {classes[0]}; b: most sequences together; ×: replicas", style="dim"))
        sources = {(words.source(c.energy_per_token.source), c.energy_per_token.method) for c in explanation.candidates}
        known = sorted(f"{s} ({m})" if m else s for s, m in sources if s != "unavailable")
        if known:
            out.show(Text(f"energy: {', '.join(known)}", style="dim"))
    if explanation.binding_limit:
        out.show(Text.assemble(("binding limit: ", "bold"), explanation.binding_limit))
    if explanation.HasField("nearest_slo"):
        out.show(Text.assemble(("nearest SLO that would be met: ", "bold"), slo_words(explanation.nearest_slo)))
    if explanation.nearest_hardware:
        out.show(Text.assemble(("more devices that would do: ", "bold"), " or ".join(explanation.nearest_hardware)))


def _row(candidate: orchestrator_pb2.Candidate, *, name_class: bool, e2e: bool) -> list[Text]:
    style = "bold green" if candidate.chosen else "" if not candidate.refusal else "dim"
    point = candidate.point
    parts = [point.device_class if name_class else "", point.partition_kind]
    parts += [
        f"b{point.batch_limit}" if point.batch_limit else "",
        f"×{candidate.replicas}" if candidate.replicas else "",
    ]
    where = " ".join(part for part in parts if part)
    known = candidate.ttft_ms > 0
    cells = [
        "●" if candidate.chosen else "○" if not candidate.refusal else "✗",
        candidate.variant_name or words.short(candidate.point.variant_id),
        where,
        show_ms(candidate.ttft_ms) if known else "–",
        show_ms(candidate.tpot_ms) if known else "–",
        *([show_ms(candidate.e2e_ms) if candidate.e2e_ms > 0 else "–"] if e2e else []),
        words.energy(candidate.energy_per_token),
        show_bytes(candidate.memory_bytes) if candidate.memory_bytes else "–",
        f"{candidate.capacity_requests_per_s:.2g}/s" if candidate.capacity_requests_per_s else "–",
    ]
    return [Text(cell, style=style) for cell in cells]


def _verdicts(explanation: orchestrator_pb2.Explanation) -> list[str | Text]:
    return [Text(verdict(c), style="green" if c.chosen else "dim") for c in explanation.candidates]


def verdict(candidate: orchestrator_pb2.Candidate) -> str:
    """Chosen, or the code of the refusal with its reason."""
    head = "chosen" if candidate.chosen else candidate.refusal
    return ": ".join(part for part in (head, candidate.reason) if part) or "dearer"
