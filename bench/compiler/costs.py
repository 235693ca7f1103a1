"""What building costs: time of a whole search and of the same again, peak memory, and bytes of weights stored.

    python -m bench.compiler.costs WORK_DIR MODEL                     # imports it: once
    python -m bench.compiler.costs WORK_DIR MODEL --search cpu:host   # the search, and the same again

A whole compiler with a PostgreSQL of its own in WORK_DIR, asked through its client as the command line asks it. Prints
the table of candidates and writes WORK_DIR/costs-TARGETS.json. What is measured needs the machine to itself: the
import comes apart, so that it needs not wait for that. --recipes builds these in place of searching.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from bench.compiler.peak_watch import PeakWatch
from bench.compiler.side_by_side import machine
from services.compiler.app import start
from services.compiler.settings import CompilerSettings
from tradewind.cli.commands.variant_candidates import show_search
from tradewind.cli.output import Output
from tradewind.client.compiler import CompilerClient
from tradewind.client.wire import Wire
from tradewind.domain.errors import RemoteError
from tradewind.embedded.layout import Layout
from tradewind.embedded.stores import Postgres
from tradewind.rpc.service import Lifecycle
from tradewind.v1 import compiler_pb2, operation_pb2


def ask(client: CompilerClient, operation: operation_pb2.Operation) -> operation_pb2.Operation:
    """Waits for an operation.

    Raises:
        RuntimeError: it failed.
    """
    *_, last = client.operations.watch(operation.operation_id)
    if last.state != operation_pb2.OPERATION_STATE_DONE:
        raise RuntimeError(f"{last.kind} failed: {last.error}")
    return last


@contextmanager
def clock(result: dict[str, Any], name: str, watch: PeakWatch) -> Iterator[None]:
    """Keeps wall time and peak memory of what is inside."""
    watch.take_bytes()
    began = time.monotonic()
    yield
    result[f"{name}_s"] = round(time.monotonic() - began, 2)
    result[f"{name}_peak_bytes"] = watch.take_bytes()


def stored_weights(variants: Sequence[compiler_pb2.Variant]) -> dict[str, Any]:
    """Archives by name: bytes, and how many variants read it."""
    archives: dict[str, dict[str, Any]] = {}
    for variant in variants:
        for file in variant.files:
            if file.name.endswith(".irpa"):
                known = archives.setdefault(file.digest, {"name": file.name, "bytes": file.size_bytes, "variants": []})
                known["variants"].append(variant.name)
    return archives


def measure(client: CompilerClient, arguments: argparse.Namespace, watch: PeakWatch) -> dict[str, Any]:
    """The search and the same again, or the recipes named."""
    result: dict[str, Any] = {"machine": machine(), "targets": arguments.search, "budget_s": arguments.budget_s or 300}
    wanted = {
        "targets": arguments.search.split(","),
        "recipes": [name for name in arguments.recipes.split(",") if name],
        "search": not arguments.recipes,
        "budget_s": arguments.budget_s,
    }
    with clock(result, "build", watch):
        operation = ask(client, client.build_variants(arguments.name, **wanted))
    with clock(result, "again", watch):
        ask(client, client.build_variants(arguments.name, **wanted))
    built = [client.variant(variant_id) for variant_id in operation.result_ids]
    result["variants"] = [MessageToDict(one, preserving_proto_field_name=True) for one in built]
    result["weights"] = stored_weights(client.variants(arguments.name))
    if not arguments.recipes:
        search = client.search(arguments.name)
        result["search"] = MessageToDict(search, preserving_proto_field_name=True)
        show_search(Output(json=False), search)
    return result


def run(address: str, arguments: argparse.Namespace) -> None:
    """Everything that is asked of the running compiler."""
    client, watch, result = CompilerClient(Wire("compiler", address)), PeakWatch(), {"machine": machine()}
    try:
        client.model(arguments.name)
    except RemoteError:
        with clock(result, "import", watch):
            ask(client, client.import_model(arguments.model, arguments.name))
        (arguments.work_dir / "costs-import.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        print(f"import {result['import_s']} s, peak {result['import_peak_bytes'] / 2**30:.2f} GiB", flush=True)
    if arguments.search:
        result = measure(client, arguments, watch)
        name = "-".join((arguments.search + "," + arguments.recipes).replace(":", "-").strip(",").split(","))
        (arguments.work_dir / f"costs-{name}.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        for variant in result["variants"]:
            print(variant["name"], variant["state"], variant["state_reason"], flush=True)
        print({key: value for key, value in result.items() if key.endswith(("_s", "_bytes"))})


async def serve(arguments: argparse.Namespace) -> None:
    """Starts PostgreSQL and the compiler, and stops both at the end."""
    root = arguments.work_dir.resolve()
    root.mkdir(parents=True, exist_ok=True)
    life, postgres = Lifecycle(), Postgres(Layout(root))
    url = await postgres.start()
    life.on_stop(postgres.stop)
    try:
        settings = CompilerSettings(
            listen="127.0.0.1:0", metrics_listen="", state_dir=root / "compiler", database_url=url
        )
        server = await start(life, settings)
        await asyncio.to_thread(run, server.address, arguments)
    finally:
        await life.close()


def main() -> None:
    """Imports and, where it is asked, builds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--name", default="smollm2")
    parser.add_argument("--search", default="", metavar="TARGETS")
    parser.add_argument("--recipes", default="")
    parser.add_argument("--budget-s", type=int, default=0)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
