"""The command `tradewind`: puts the groups together. `main` is what the installed script calls."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import typer

from tradewind.cli import up
from tradewind.cli.commands import (
    apply,
    chat,
    decisions,
    deployments,
    evaluate,
    explain,
    models,
    nodes,
    operations,
    pareto,
    profiles,
    replay,
    simulate,
    status,
    targets,
    top,
    variants,
    version,
)
from tradewind.cli.failures import EXIT_FAILED
from tradewind.domain.errors import TradewindError

_PERCENTILE: Final = re.compile(r"--(ttft|tpot|e2e)-(p[0-9.]+)(?:=(.*))?")
_HELP: Final = """Tradewind: language models at the least energy that meets your SLO.

\b
    tradewind up                                        start everything on this machine
    tradewind model import FOLDER_OR_GGUF --name NAME   bring a model
    tradewind variant build NAME                        compile it in many ways, check the answers
    tradewind profile run NAME                          measure what each way costs
    tradewind deploy NAME --ttft-p95 300ms              serve it
    tradewind chat NAME "Hello"                         talk to it

Every command takes --json. Exit codes: 0 done, 1 failed, 2 misuse. docs/cli.md has all of it.
"""
# What `tradewind --help` lists, in this order.
_PANELS: Final = {
    "The main job": (models, variants, profiles, pareto, deployments, chat),
    "From one file": (apply,),
    "Without devices": (simulate, evaluate),
    "How things stand": (status, explain, top, nodes, decisions, replay, targets, operations, version),
}


def build() -> typer.Typer:
    """The whole application."""
    app = typer.Typer(
        name="tradewind",
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    for name, run in (("up", up.up), ("down", up.down), ("logs", up.logs)):
        app.command(name, rich_help_panel="This machine")(run)
    for panel, nouns in _PANELS.items():
        for noun in nouns:
            noun.register(app, panel)
    return app


def with_latency_options(arguments: Sequence[str]) -> list[str]:
    """Arguments with `--ttft-p95 300ms` written as `--latency ttft-p95=300ms`, whatever the percentile."""
    written: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        match = _PERCENTILE.fullmatch(argument)
        if match is None:
            written.append(argument)
            if argument == "--":
                return written + rest
            continue
        value = match[3] if match[3] is not None else (rest.pop(0) if rest else "")
        written += ["--latency", f"{match[1]}-{match[2]}={value}"]
    return written


def main() -> None:
    """Runs the command line and exits with its code."""
    arguments = sys.argv[1:]
    try:
        build()(args=with_latency_options(arguments), prog_name="tradewind")
    except TradewindError:
        # Only with --debug; without it the command reported it.
        traceback.print_exc()
        sys.exit(EXIT_FAILED)
    # The last frame: a fault of ours is said to the person instead of a traceback.
    except Exception as error:
        if "--debug" in arguments:
            raise
        print(f"error: a fault of ours in the command line: {type(error).__name__}: {error}", file=sys.stderr)
        print("next:  run it again with --debug and report what it shows", file=sys.stderr)
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
