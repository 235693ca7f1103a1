"""The declarative file of `tradewind apply`: its schema, and reading it with errors that name the place.

`SCHEMA_VERSION` grows when a file of an older version would mean something else.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tradewind.cli.wish import check_limits_differ, latency_limit, objective, parsed, spread
from tradewind.domain import units
from tradewind.domain.errors import InvalidField
from tradewind.v1 import common_pb2, orchestrator_pb2

SCHEMA_VERSION: Final = 1
# A declaration is a page of text; a file larger than this is something else.
MAX_FILE_BYTES: Final = 1024 * 1024

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,63}$")]
Tokens = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPart(_Part):
    """The model: imported when no model has the name."""

    name: Name
    source: Annotated[str, Field(description="Path relative to this file, or package:NAME/FILE.")] = ""
    format: Annotated[str, Field(description="Detected when left out.")] = ""
    trust: bool = False


class SizesPart(_Part):
    """Sizes of a variant's functions; left out: the recipe's. Models that map tensors to tensors have none."""

    prefill: Annotated[list[Tokens], Field(description="Prompt tokens that prefill calls take.")] = []
    batch: Annotated[list[Tokens], Field(description="Sequences that decode calls take, the widest all slots.")] = []
    slots: Annotated[Count, Field(description="Sequences that the cache holds; 0: as many as the widest batch.")] = 0


class VariantsPart(_Part):
    """What to build when no admitted variant does."""

    targets: list[str] = ["auto"]
    chain: Annotated[
        bool, Field(description="The targets are a fallback chain, first choice first: searched, measured, deployed.")
    ] = False
    recipes: list[str] = []
    context_tokens: Count = 0
    sizes: SizesPart = SizesPart()
    budget: Annotated[str, Field(description="Such as 10min.")] = ""


class ProfilePart(_Part):
    """What to measure; left out: the defaults."""

    prompt_tokens: list[Tokens] = []
    concurrencies: list[Tokens] = []
    partition_kinds: list[str] = []
    nodes: list[str] = []
    clocks: Annotated[
        Literal["default", "auto"],
        Field(description="auto: boards also at the clocks that plans can use, such as the one they ease to."),
    ] = "default"


class SloPart(_Part):
    """Limits with units; latencies by percentile, such as `ttft: {p95: 300ms}`."""

    ttft: dict[str, str] = {}
    tpot: dict[str, str] = {}
    e2e: dict[str, str] = {}
    energy_per_token: str = ""
    power: str = ""
    min_quality: str | float = ""
    max_perplexity_increase: str | float = ""
    availability: str | float = ""


class DemandPart(_Part):
    """Expected load."""

    rate: Annotated[str, Field(description="Such as 0.5/s.")] = ""
    mean_rate: Annotated[str, Field(description="What energy is weighed at; left out: the rate.")] = ""
    prompt_tokens: Count = 0
    output_tokens: Count = 0
    prompt_tokens_p95: Annotated[Count, Field(description="Prompts that must fit; 0: the typical.")] = 0
    output_tokens_p95: Annotated[Count, Field(description="Answers that must fit; 0: the typical.")] = 0


class SpreadPart(_Part):
    """Replicas over failure domains."""

    label: Annotated[str, Field(min_length=1, description="Node label; `node` stands for the node itself.")] = "rack"
    domains: Annotated[int, Field(ge=2, description="Fewest values of the label.")] = 2


class DeploymentPart(_Part):
    """The deployment."""

    name: Name
    slo: SloPart = SloPart()
    objective: Literal["energy", "latency", "cost"] = "energy"
    demand: DemandPart = DemandPart()
    variant: Annotated[str, Field(description="Use this one whatever the objective says.")] = ""
    min_replicas: Count = 0
    max_replicas: Count = 0
    scale_to_zero: Annotated[bool, Field(description="Run nothing after ten minutes without a request.")] = False
    cold_start: Annotated[str, Field(description="Longest start accepted for that.", examples=["30s"])] = ""
    node_labels: dict[str, str] = {}
    spread: SpreadPart | None = None
    trust_level: Annotated[str, Field(description="Never shares a board with another level.")] = ""
    allow_infeasible: bool = False


class Declaration(_Part):
    """A whole file."""

    version: Literal[1]
    model: ModelPart
    variants: VariantsPart = VariantsPart()
    profile: ProfilePart = ProfilePart()
    deployment: DeploymentPart


def read_declaration(file: Path) -> Declaration:
    """Reads and checks a file.

    Raises:
        InvalidField: missing, no UTF-8, no YAML, or not of the schema; every mistake with its path.
    """
    text = _text(file)
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidField(str(file), f"is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise InvalidField(str(file), "must hold version, model and deployment; docs/cli.md shows an example")
    try:
        declaration = Declaration.model_validate(raw)
    except ValidationError as error:
        mistakes = [_mistake(e["type"], e["loc"], e["msg"], e.get("input")) for e in error.errors()]
        raise InvalidField(str(file), "\n  ".join(["", *mistakes]).rstrip()) from error
    try:
        spec_of(declaration)
    except InvalidField as error:
        raise InvalidField(str(file), f"\n  {error.message}") from error
    return declaration


def spec_of(declaration: Declaration) -> orchestrator_pb2.DeploymentSpec:
    """The wish that a declaration holds, but for the pinned variant and the chain's links, which have to be looked up.

    Raises:
        InvalidField: a quantity that is none, or wishes that exclude each other; names its path.
    """
    part = declaration.deployment
    _check_chain(declaration)
    spec = orchestrator_pb2.DeploymentSpec(
        model=declaration.model.name,
        slo=_slo(part.slo),
        objective=objective("deployment.objective", part.objective),
        min_replicas=part.min_replicas,
        max_replicas=part.max_replicas,
        scale_to_zero=part.scale_to_zero,
        cold_start_s=parsed("deployment.cold_start", part.cold_start, units.duration_s) if part.cold_start else 0.0,
        node_selector=part.node_labels,
        trust_level=part.trust_level,
    )
    if part.spread is not None:
        spec.spread.CopyFrom(spread("deployment.spread", part.spread.label, str(part.spread.domains)))
    if part.demand != DemandPart():
        spec.demand.CopyFrom(_demand(part.demand))
    return spec


def _check_chain(declaration: Declaration) -> None:
    wanted = declaration.variants
    if not wanted.chain:
        return
    if len(set(wanted.targets)) < 2:
        raise InvalidField("variants.chain", "is a chain of two or more targets; name them under variants.targets")
    if wanted.recipes:
        raise InvalidField("variants.chain", "a search finds a chain's recipes; leave variants.recipes out")
    if declaration.deployment.variant:
        raise InvalidField("deployment.variant", "variants.chain says what is used; leave one of them out")


def _demand(part: DemandPart) -> common_pb2.Demand:
    def rate(key: str, text: str) -> float:
        return parsed(f"deployment.demand.{key}", text, units.rate_per_s) if text else 0.0

    return common_pb2.Demand(
        requests_per_s=rate("rate", part.rate),
        mean_requests_per_s=rate("mean_rate", part.mean_rate),
        prompt_tokens=part.prompt_tokens,
        output_tokens=part.output_tokens,
        prompt_tokens_p95=part.prompt_tokens_p95,
        output_tokens_p95=part.output_tokens_p95,
    )


def json_schema() -> dict[str, Any]:
    """The schema as JSON Schema, for editors."""
    return Declaration.model_json_schema()


def _slo(part: SloPart) -> common_pb2.Slo:
    latencies: Mapping[str, Mapping[str, str]] = {"ttft": part.ttft, "tpot": part.tpot, "e2e": part.e2e}
    slo = common_pb2.Slo(
        latency=[
            latency_limit(f"deployment.slo.{metric}.{percentile}", metric, percentile, limit)
            for metric, limits in latencies.items()
            for percentile, limit in limits.items()
        ]
    )
    check_limits_differ(slo.latency)
    for field, key, parse in (
        ("energy_per_token_mj", "energy_per_token", units.energy_mj),
        ("power_mw", "power", units.power_mw),
        ("min_top1_agreement", "min_quality", units.share),
        ("max_perplexity_increase", "max_perplexity_increase", units.share),
        ("availability", "availability", units.share),
    ):
        if (value := getattr(part, key)) != "":
            setattr(slo, field, parsed(f"deployment.slo.{key}", str(value), parse))
    return slo


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise InvalidField(str(file), "no such file; deploy/examples/chat.yaml is one to begin with") from error
    except OSError as error:
        raise InvalidField(str(file), f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidField(str(file), f"is larger than {MAX_FILE_BYTES} bytes; is it the right file?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidField(
            str(file), f"is not UTF-8 text (line {line}, byte {error.start}); save it as UTF-8"
        ) from error


def _mistake(kind: str, location: Sequence[int | str], message: str, value: object) -> str:
    path = ".".join(map(str, location))
    if kind == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"{path}: unknown key; {hint}"
    if kind == "missing":
        return f"{path}: missing"
    if kind == "string_type" and isinstance(value, int | float):
        return f"{path}: {value} has no unit; write it with one, such as 300ms, 500mJ, 30W or 0.5/s"
    return f"{path}: {message}, not {value!r}"


def _keys_at(location: Sequence[int | str]) -> list[str]:
    part: type[BaseModel] = Declaration
    for key in location:
        field = part.model_fields.get(str(key))
        kind = field.annotation if field is not None else None
        kind = next((k for k in get_args(kind) if k is not type(None)), kind)
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        part = kind
    return list(part.model_fields)
