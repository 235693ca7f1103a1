"""`tradewind deploy`, `tradewind deployment list|show|delete`, `tradewind delete`."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from tradewind.cli import wish, words
from tradewind.cli.commands.explain import show_explanation
from tradewind.cli.end_to_end import judged_by, kept_cell, kept_lines
from tradewind.cli.lookup import chain_of, find_variant
from tradewind.cli.output import Cell, Output, lined, to_json, to_json_list
from tradewind.cli.placing import DEFAULT_WAIT_S, Placed, place, wait_ready
from tradewind.cli.session import Session, command
from tradewind.cli.show_slo import slo_words
from tradewind.domain import units
from tradewind.domain.units import show_bytes, show_ms
from tradewind.v1 import common_pb2, node_pb2, orchestrator_pb2

STATE_PREFIX = "DEPLOYMENT_STATE_"


def register(app: typer.Typer, panel: str) -> None:
    """Adds the commands."""
    command(app, "deploy", rich_help_panel=panel)(deploy)
    command(app, "delete", rich_help_panel=panel)(delete)
    group = typer.Typer(help="Deployments: look at them, end them.", no_args_is_help=True)
    app.add_typer(group, name="deployment", rich_help_panel=panel)
    command(group, "list")(list_deployments)
    command(group, "show")(show)
    command(group, "delete")(delete)


def deploy(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name or id.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name clients say. Default: the model's.")] = "",
    latency: Annotated[
        list[str] | None,
        typer.Option(
            "--latency",
            metavar="LIMIT",
            help="Latency limits, best written --ttft-p95 300ms, --tpot-p50 40ms, --e2e-p99 2s: any percentile.",
        ),
    ] = None,
    energy_per_token: Annotated[
        str, typer.Option("--energy-per-token", metavar="ENERGY", help="Such as 500mJ or 0.5J.")
    ] = "",
    power: Annotated[
        str, typer.Option("--power", metavar="POWER", help="Limit of the whole deployment, such as 30W.")
    ] = "",
    min_quality: Annotated[
        str,
        typer.Option(
            "--min-quality", metavar="SHARE", help="Least share of the reference's top-1 tokens kept: 0.98 or 98%."
        ),
    ] = "",
    max_perplexity_increase: Annotated[
        str, typer.Option("--max-perplexity-increase", metavar="SHARE", help="Against the f32 reference: 0.01 or 1%.")
    ] = "",
    availability: Annotated[
        str, typer.Option("--availability", metavar="SHARE", help="Share of time: 0.99 or 99%.")
    ] = "",
    objective: Annotated[str, typer.Option("--objective", metavar="WORD", help="energy, latency or cost.")] = "energy",
    rate: Annotated[str, typer.Option("--rate", metavar="RATE", help="Expected requests, such as 0.5/s.")] = "",
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", metavar="N", min=0, help="Typical prompt length.")
    ] = 0,
    output_tokens: Annotated[
        int, typer.Option("--output-tokens", metavar="N", min=0, help="Typical answer length.")
    ] = 0,
    mean_rate: Annotated[
        str, typer.Option("--mean-rate", metavar="RATE", help="What energy is weighed at; left out: the rate.")
    ] = "",
    prompt_tokens_p95: Annotated[
        int, typer.Option("--prompt-tokens-p95", metavar="N", min=0, help="Prompts that must fit, beyond the typical.")
    ] = 0,
    output_tokens_p95: Annotated[
        int, typer.Option("--output-tokens-p95", metavar="N", min=0, help="Answers that must fit, beyond the typical.")
    ] = 0,
    variant: Annotated[
        str, typer.Option("--variant", metavar="VARIANT", help="Use this one whatever the objective says.")
    ] = "",
    chain: Annotated[
        bool,
        typer.Option("--chain", help="Each device takes the first of the model's chain that it can load."),
    ] = False,
    min_replicas: Annotated[int, typer.Option("--min-replicas", metavar="N", min=0)] = 0,
    max_replicas: Annotated[int, typer.Option("--max-replicas", metavar="N", min=0, help="0: no limit.")] = 0,
    scale_to_zero: Annotated[
        bool, typer.Option("--scale-to-zero", help="Run nothing after ten minutes without a request.")
    ] = False,
    cold_start: Annotated[
        str,
        typer.Option("--cold-start", metavar="DURATION", help="Longest start accepted for it; left out: any."),
    ] = "",
    node_label: Annotated[
        list[str] | None,
        typer.Option("--node-label", metavar="KEY=VALUE", help="Only on nodes with key=value; repeatable."),
    ] = None,
    spread: Annotated[
        str,
        typer.Option(
            "--spread", metavar="LABEL=N", help="Over at least N values of a node label, such as rack=2 or node=3."
        ),
    ] = "",
    trust_level: Annotated[
        str, typer.Option("--trust-level", metavar="LEVEL", help="Never share a board with another level.")
    ] = "",
    allow_infeasible: Annotated[
        bool, typer.Option("--allow-infeasible", help="Keep the wish even when nothing meets it now.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it serves.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="Longest wait.")] = "5min",
) -> None:
    """Serve a model under an SLO; a deployment of that name is changed, or left alone when the wish is the same."""
    slo = common_pb2.Slo(latency=wish.latency_limits(latency or ()))
    for field, text, parse in (
        ("energy_per_token_mj", energy_per_token, units.energy_mj),
        ("power_mw", power, units.power_mw),
        ("min_top1_agreement", min_quality, units.share),
        ("max_perplexity_increase", max_perplexity_increase, units.share),
        ("availability", availability, units.share),
    ):
        if text:
            setattr(slo, field, wish.parsed(_OPTION[field], text, parse))
    spec = orchestrator_pb2.DeploymentSpec(
        model=model,
        slo=slo,
        objective=wish.objective("--objective", objective),
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        scale_to_zero=scale_to_zero,
        cold_start_s=wish.parsed("--cold-start", cold_start, units.duration_s) if cold_start else 0.0,
        node_selector=wish.labels("--node-label", node_label or ()),
        trust_level=trust_level,
    )
    demand = common_pb2.Demand(
        requests_per_s=wish.parsed("--rate", rate, units.rate_per_s) if rate else 0.0,
        mean_requests_per_s=wish.parsed("--mean-rate", mean_rate, units.rate_per_s) if mean_rate else 0.0,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        prompt_tokens_p95=prompt_tokens_p95,
        output_tokens_p95=output_tokens_p95,
    )
    if demand.ByteSize():
        spec.demand.CopyFrom(demand)
    if spread:
        spec.spread.CopyFrom(wish.spread_option(spread))
    wait_s = wish.parsed("--timeout", timeout, units.duration_s) if timeout else DEFAULT_WAIT_S
    client = session.client
    if variant:
        spec.pinned_variant_id = find_variant(client.compiler, variant, model).variant_id
    if chain:
        spec.chain_variant_ids.extend(chain_of(client.compiler, model))
    placed = place(client, name or model, spec, allow_infeasible=allow_infeasible)
    show_placed(session, placed, wait_s=0.0 if no_wait else wait_s, allow_infeasible=allow_infeasible)


_OPTION = {
    "energy_per_token_mj": "--energy-per-token",
    "power_mw": "--power",
    "min_top1_agreement": "--min-quality",
    "max_perplexity_increase": "--max-perplexity-increase",
    "availability": "--availability",
}


def show_placed(session: Session, placed: Placed, *, wait_s: float, allow_infeasible: bool) -> None:
    """Says what became of a wish, waits until it serves, says what was chosen."""
    out, orchestrator = session.out, session.client.orchestrator
    deployment = placed.deployment
    infeasible = allow_infeasible and bool(placed.explanation.binding_limit)
    if wait_s and not infeasible:
        deployment = wait_ready(out, orchestrator, deployment, wait_s)
    explanation = placed.explanation
    if not explanation.candidates:
        explanation = orchestrator.explain(deployment.name)
    out.document({"change": placed.change, "deployment": to_json(deployment), "explanation": to_json(explanation)})
    out.show(
        Text.assemble(
            (deployment.name, "bold"),
            f" {placed.change}, ",
            _state(deployment),
            f"; SLO {slo_words(deployment.spec.slo)}",
        )
    )
    show_explanation(out, explanation, deployment.spec.slo)
    if deployment.state == orchestrator_pb2.DEPLOYMENT_STATE_READY:
        out.show(
            Text(
                f'next: tradewind chat {deployment.name} "…"   or any OpenAI client at '
                f"{session.client.endpoints.gateway}/v1 with model {deployment.name!r}",
                style="dim",
            )
        )


def list_deployments(session: Session) -> None:
    """List deployments by name."""
    deployments = session.client.orchestrator.deployments()
    session.out.document({"deployments": to_json_list(deployments)})
    show_deployments(session.out, deployments)


def show_deployments(out: Output, deployments: list[orchestrator_pb2.Deployment]) -> None:
    """A line for each deployment."""
    limited = any(judged_by(d.spec.slo) for d in deployments)
    rows: list[list[Cell]] = [
        [
            d.name,
            _state(d),
            words.short(d.spec.model),
            f"{sum(r.state == node_pb2.REPLICA_STATE_READY for r in d.replicas)}/{len(d.replicas)}",
            *([kept_cell(d)] if limited else []),
            common_pb2.Objective.Name(d.spec.objective).removeprefix("OBJECTIVE_").lower(),
            slo_words(d.spec.slo),
        ]
        for d in deployments
    ]
    if rows:
        columns = ["deployment", "state", "model", "^ready", *(["^E2E kept"] if limited else []), "objective", "SLO"]
        out.show(*lined(columns, rows, [d.state_reason for d in deployments]))
    else:
        out.show("no deployments; make one with `tradewind deploy MODEL --ttft-p95 300ms`")


def show(
    session: Session, deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name or id.")]
) -> None:
    """Show a deployment and its replicas."""
    found = session.client.orchestrator.deployment(deployment)
    session.out.document({"deployment": to_json(found)})
    spec = found.spec
    session.out.show(
        Text.assemble((found.name, "bold"), "  ", _state(found), f"  {found.state_reason}"),
        Text(
            f"model {words.short(spec.model)}, SLO {slo_words(spec.slo)}, generation {found.generation}, "
            f"changed {words.age(found.update_time, time.time())}",
            style="dim",
        ),
        *kept_lines(found),
    )
    rows: list[list[Cell]] = [
        [
            r.replica_id,
            words.state(node_pb2.ReplicaState, r.state, "REPLICA_STATE_"),
            words.short(r.variant_id),
            r.partition_id,
            f"{r.active_sequences} + {r.queued_sequences}",
            show_ms(r.ttft.p95_ms) if r.ttft.samples else "–",
            show_ms(r.tpot.p95_ms) if r.tpot.samples else "–",
            show_bytes(r.memory_bytes) if r.memory_bytes else "–",
            str(r.starts),
        ]
        for r in found.replicas
    ]
    columns = ["replica", "state", "variant", "partition", "^at work", "^TTFT p95", "^TPOT p95", "^memory", "^starts"]
    session.out.table(columns, rows, "no replicas")
    for replica in found.replicas:
        if replica.reason:
            session.out.show(Text(f"{replica.replica_id}: {replica.reason}", style="yellow"))


def delete(
    session: Session, deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name or id.")]
) -> None:
    """End a deployment: its replicas finish what they have in hand and stop."""
    gone = session.client.orchestrator.delete(deployment)
    session.out.document({"deployment": to_json(gone)})
    session.out.show(Text.assemble((gone.name, "bold"), " is being ended; its replicas finish what they have in hand"))


def _state(deployment: orchestrator_pb2.Deployment) -> Text:
    return words.state(orchestrator_pb2.DeploymentState, deployment.state, STATE_PREFIX)
