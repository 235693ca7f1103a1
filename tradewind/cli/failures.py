"""What an error means for the person at the command line: one message, what to do next, an exit code.

0    done
1    failed: a service is away, work failed, no plan meets the SLO …
2    misuse: an argument, a file or a name that cannot be
130  interrupted with Ctrl-C
"""

from __future__ import annotations

from typing import Final

from rich.markup import escape

from tradewind.cli.output import Output
from tradewind.domain.errors import STATUS, RemoteError, TradewindError, reason_of

EXIT_FAILED: Final = 1
EXIT_MISUSE: Final = 2
EXIT_INTERRUPTED: Final = 130

# Statuses that the caller's own input brings about; sending the same again can not help.
_MISUSE: Final = ("INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE")

_NEXT: Final = {
    "SERVICE_UNAVAILABLE": "start everything with `tradewind up`; `tradewind status` shows what answers where",
    "SLO_INFEASIBLE": "loosen the limit named, or see every option with `tradewind explain` or `tradewind plan`; "
    "--allow-infeasible (in a file: deployment.allow_infeasible) keeps the wish until it can be met",
    "PROFILE_MISSING": "measure first: `tradewind profile run MODEL`",
    "VARIANT_REJECTED": "`tradewind variant list MODEL` shows every variant with its figures",
    "WRONG_ANSWER": "build the variant for that device, or take another recipe: `tradewind variant build --recipe`",
    "GENERATION_CONFLICT": "somebody else changed it meanwhile; look again and repeat",
    "OVERLOADED": "wait a little and repeat",
    "DATABASE_UNAVAILABLE": "`tradewind status` shows what answers; `tradewind logs` says why PostgreSQL does not",
    "LIVE_STATE_UNAVAILABLE": "`tradewind status` shows what answers; `tradewind logs` says why Redis does not",
    "NO_READY_REPLICA": "`tradewind deployment list` shows where the deployment stands; `tradewind explain` says why",
    "NOT_IMPLEMENTED": "this version does not do that yet; CHANGELOG.md says what does",
    "INTERNAL": "`tradewind logs` has the details",
    "NO_SPACE": "free space on that disk, or give the service another state folder",
    "UNSUPPORTED_MODEL": "convert the model, or import one of a supported architecture",
    "BAD_MODEL_SOURCE": "give a complete Hugging Face folder or a .gguf file",
}
_LISTS: Final = {
    "model": "`tradewind model list` shows the models there are",
    "variant": "`tradewind variant list` shows the variants there are",
    "deployment": "`tradewind deployment list` shows the deployments there are",
    "node": "`tradewind nodes` shows the nodes there are",
    "active node": "`tradewind nodes` shows the nodes there are",
    "operation": "check the id; finished operations are kept",
}


def exit_code(error: TradewindError) -> int:
    """1 for failures, 2 for the caller's mistakes."""
    status = error.status if isinstance(error, RemoteError) else STATUS[error.reason]
    return EXIT_MISUSE if status in _MISUSE else EXIT_FAILED


def next_step(error: TradewindError) -> str:
    """What to do about an error; "" when its own message says it all."""
    if hint := error.metadata.get("hint"):
        return f"run `{hint}`"
    reason = reason_of(error)
    if reason == "NOT_FOUND":
        return _LISTS.get(error.metadata.get("kind", ""), "")
    if reason == "SERVICE_UNAVAILABLE" and error.metadata.get("service") == "node-agent":
        return "`tradewind nodes` shows which nodes are there"
    return _NEXT.get(reason, "")


def report(out: Output, error: TradewindError) -> None:
    """Says it: on stderr for a person; with --json also as {"error": …} on stdout."""
    step = next_step(error)
    out.note(f"[bold red]error:[/] {escape(error.message)}")
    if step:
        out.note(f"[dim]next:[/]  {escape(step)}")
    out.document(
        {
            "error": {
                "reason": reason_of(error),
                "message": error.message,
                "next": step,
                "metadata": dict(sorted(error.metadata.items())),
            }
        }
    )
