"""`tradewind profile run|list|export`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from tradewind.cli import words
from tradewind.cli.commands.models import CancelOnInterrupt, NoWait, show_started
from tradewind.cli.commands.pareto import show_front
from tradewind.cli.lookup import chain_of
from tradewind.cli.output import Cell, Output, lined, to_json, to_json_list
from tradewind.cli.progress import follow
from tradewind.cli.session import Session, command
from tradewind.client.profile_file import StoredProfiles, gathered
from tradewind.client.tradewind import Tradewind
from tradewind.domain.errors import InvalidField
from tradewind.domain.units import show_bytes, show_ms, show_mw
from tradewind.v1 import common_pb2, profiler_pb2

AUTO: Final = "auto"
DEFAULT: Final = "default"
# Twice what any board runs at: more is a mistake in the unit.
MOST_MHZ: Final = 5_000


def register(app: typer.Typer, panel: str) -> None:
    """Adds the group."""
    group = typer.Typer(help="Profiles: what each way of running a model costs.", no_args_is_help=True)
    app.add_typer(group, name="profile", rich_help_panel=panel)
    command(group, "run")(run)
    command(group, "list")(list_profiles)
    command(group, "export")(export)


def run(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name or id.")],
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Name or id; repeatable. Default: all admitted.")
    ] = None,
    partition: Annotated[
        list[str] | None, typer.Option("--partition", help="Such as cpu/2; repeatable. Default: the useful ones.")
    ] = None,
    prompt: Annotated[
        list[int] | None, typer.Option("--prompt", min=1, help="Prompt length in tokens; repeatable.")
    ] = None,
    concurrency: Annotated[
        list[int] | None, typer.Option("--concurrency", min=1, help="Sequences together; repeatable.")
    ] = None,
    node: Annotated[
        list[str] | None, typer.Option("--node", help="Repeatable. Default: one of each device class.")
    ] = None,
    sm_clock: Annotated[
        list[str] | None,
        typer.Option(
            "--sm-clock",
            "--clocks",
            metavar="MHZ",
            help="Lock boards at 1200,1500 MHz; repeatable. `auto`: the default and what plans can use. "
            "Default: `default`.",
        ),
    ] = None,
    chain: Annotated[
        bool, typer.Option("--chain", help="The links of the model's fallback chain, unchecked ones too.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Measure again what is known already.")] = False,
    no_wait: NoWait = False,
    cancel_on_interrupt: CancelOnInterrupt = False,
) -> None:
    """Measure variants on the nodes that can run them, then show the Pareto front."""
    profiler = session.client.profiler
    clocks = clocks_of(sm_clock or ())
    links = chain_of(session.client.compiler, model) if chain else []
    operation = profiler.run(
        model,
        variants=[*(variant or ()), *links],
        partition_kinds=partition or (),
        prompt_tokens=prompt or (),
        concurrencies=concurrency or (),
        nodes=node or (),
        power_settings=clocks or (),
        planned_clocks=clocks is None,
        force=force,
    )
    if no_wait:
        return show_started(session, operation.operation_id, {"operation": to_json(operation)})
    title = f"Measuring {model}"
    operation = follow(session.out, profiler.operations, operation, title, cancel_on_interrupt=cancel_on_interrupt)
    ids = set(operation.result_ids)
    profiles = [p for p in profiler.profiles(model) if p.profile_id in ids]
    points = profiler.pareto_front(model, include_dominated=True)
    session.out.document(
        {"operation": to_json(operation), "profiles": to_json_list(profiles), "points": to_json_list(points)}
    )
    show_front(session.out, model, points)
    session.out.show(Text(f"next: tradewind deploy {model} --ttft-p95 … --tpot-p95 …", style="dim"))
    return None


def clocks_of(said: Sequence[str]) -> list[common_pb2.PowerSetting] | None:
    """Settings out of what a person says: clocks in MHz, `default`; None for `auto`.

    Raises:
        InvalidField: something else, or `auto` beside clocks.
    """
    parts = [part.strip() for one in said for part in one.split(",")]
    if AUTO in parts:
        if set(parts) != {AUTO}:
            raise InvalidField("--sm-clock", "`auto` stands alone: it holds the default and every clock plans can use")
        return None
    return [common_pb2.PowerSetting(sm_clock_mhz=None if part == DEFAULT else _mhz(part)) for part in parts]


def _mhz(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= MOST_MHZ:
        raise InvalidField(
            "--sm-clock", f"{text!r} is no clock; give MHz such as 1200,1500, `default`, or `auto` alone"
        )
    return int(text)


def list_profiles(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name or id; all models when left out.")] = "",
) -> None:
    """List what was measured, newest first."""
    profiles = session.client.profiler.profiles(model)
    session.out.document({"profiles": to_json_list(profiles)})
    names = {} if session.out.json else {v.variant_id: v.name for v in session.client.compiler.variants(model)}
    show_profiles(session.out, profiles, names)


def export(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name or id.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, such as profiles.json.")],
) -> None:
    """Write what was measured of a model to a file that cluster files of `tradewind simulate` take."""
    stored = stored_profiles(session.client, model)
    try:
        out.write_text(json.dumps(stored.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidField("--out", f"{out} cannot be written: {error}") from error
    classes = [device.device_class for device in stored.devices]
    session.out.document({"file": str(out), "profiles": len(stored.profiles), "device_classes": classes})
    session.out.show(Text(f"{len(stored.profiles)} profiles on {', '.join(classes)} in {out}"))


def stored_profiles(client: Tradewind, model: str) -> StoredProfiles:
    """What the services know of a model's costs.

    Raises:
        RemoteError: no such model.
        ProfileMissing: nothing was measured.
    """
    found = client.compiler.model(model)
    variants, profiles = client.compiler.variants(found.model_id), client.profiler.profiles(found.model_id)
    return gathered(found, variants, profiles, client.orchestrator.nodes())


def show_profiles(out: Output, profiles: Sequence[profiler_pb2.Profile], names: Mapping[str, str]) -> None:
    """A heading for each profile and a line for each of its loads, all in the same columns."""
    if not profiles:
        out.show("nothing measured yet; run `tradewind profile run MODEL`")
        return
    columns = ["load", "^TTFT", "^TPOT", "^TPOT p95", "^tok/s", "^energy/token", "^energy/prefill", "^power"]
    rows = [_load_row(load) for profile in profiles for load in profile.loads]
    head, rule, *lines = lined(columns, rows, [""] * len(rows))
    out.show(head, rule)
    for profile in profiles:
        out.show(_heading(profile, names))
        out.show(*lines[: len(profile.loads)])
        del lines[: len(profile.loads)]
    if sources := sorted({words.source(p.energy_per_token.source) for q in profiles for p in q.loads}):
        methods = sorted({p.energy_per_token.method for q in profiles for p in q.loads if p.energy_per_token.method})
        out.show(Text(f"medians; energy: {', '.join(sources)} ({', '.join(methods) or 'no method'})", style="dim"))


def _heading(profile: profiler_pb2.Profile, names: Mapping[str, str]) -> Text:
    point = profile.point
    name = names.get(point.variant_id, words.short(point.variant_id))
    ran = f" (ran at {profile.ran_sm_clock_mhz} MHz)" if profile.HasField("ran_sm_clock_mhz") else ""
    where = f"{profile.node_id} {point.partition_kind}{words.setting(point.power)}{ran}"
    rest = f"{show_bytes(profile.memory_bytes)}, loads in {show_ms(profile.load_s * 1e3)}"
    return Text.assemble(
        (f"{name} on {where}", "bold"), (f"  {rest}, measured {words.age(profile.create_time, time.time())}", "dim")
    )


def _load_row(load: profiler_pb2.LoadPoint) -> list[Cell]:
    return [
        f"  {words.load(load)}",
        show_ms(load.ttft.p50_ms),
        show_ms(load.tpot.p50_ms),
        show_ms(load.tpot.p95_ms),
        f"{load.tokens_per_s:.1f}",
        words.energy(load.energy_per_token),
        words.energy(load.energy_per_prefill),
        show_mw(load.power_mw),
    ]
