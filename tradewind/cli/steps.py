"""What `apply` has to do: the difference between a declaration and what there is. Pure.

The four steps follow from each other: a missing model makes everything after it missing too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tradewind.cli.declaration import Declaration, ProfilePart, SizesPart, VariantsPart
from tradewind.v1 import common_pb2, compiler_pb2, orchestrator_pb2, profiler_pb2

ADMITTED = compiler_pb2.VARIANT_STATE_ADMITTED
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is of a declaration.

    Attributes:
        variants: of the model.
        profiles: of the model.
        deployment: of the name; None when there is none.
        same_wish: whether its wish is the declared one.
        chain: of the newest search of the model.
        fleet_targets: what the devices of the nodes run.
        uneased: variants that were measured on boards at the default clock and not at the one those ease to.
    """

    model: compiler_pb2.Model | None
    variants: Sequence[compiler_pb2.Variant] = ()
    profiles: Sequence[profiler_pb2.Profile] = ()
    deployment: orchestrator_pb2.Deployment | None = None
    same_wish: bool = False
    chain: compiler_pb2.FallbackChain = field(default_factory=compiler_pb2.FallbackChain)
    fleet_targets: frozenset[str] = frozenset()
    uneased: frozenset[str] = frozenset()

    def links(self, wanted: VariantsPart) -> list[compiler_pb2.Variant]:
        """Variants of the chain that was wanted, in order; none when the newest search made another one."""
        if len(self.chain.targets) != len(wanted.targets):
            return []
        if not all(map(_means, wanted.targets, self.chain.targets)):
            return []
        known = {v.variant_id: v for v in self.variants}
        return [known[link] for link in self.chain.variant_ids if link in known]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it is about, whether something is to do, and why."""

    name: Literal["model", "variants", "profile", "deployment"]
    needed: bool
    why: str


def steps(declaration: Declaration, seen: Observed) -> list[Step]:
    """The four steps in order, needed or not."""
    model = _model_step(declaration, seen)
    variants = _variants_step(declaration.variants, seen, model.needed)
    profile = _profile_step(declaration, seen, variants.needed)
    return [model, variants, profile, _deployment_step(declaration, seen)]


def _model_step(declaration: Declaration, seen: Observed) -> Step:
    name = declaration.model.name
    if seen.model is not None:
        return Step("model", False, f"{name} is imported")
    return Step("model", True, f"import {name} from {declaration.model.source}")


def _variants_step(wanted: VariantsPart, seen: Observed, model_missing: bool) -> Step:
    for_targets = f"for {', '.join(wanted.targets) or AUTO}"
    if model_missing:
        return Step("variants", True, f"build {for_targets}")
    if wanted.chain:
        return _chain_step(wanted, seen)
    sized = [v for v in seen.variants if _has_sizes(v, wanted.sizes)]
    if missing := [r for r in wanted.recipes if not any(v.recipe.name == r for v in sized)]:
        return Step("variants", True, f"build {', '.join(missing)} {for_targets}")
    admitted = [v for v in sized if v.state == ADMITTED]
    named = [t for t in wanted.targets if t != AUTO]
    bare = [t for t in named if not any(t in (v.target, v.compiled_target) for v in admitted)]
    if bare or not admitted:
        with_sizes = " with these sizes" if len(sized) < len(seen.variants) else ""
        return Step("variants", True, f"build {for_targets}: none{with_sizes} is admitted")
    short = wanted.context_tokens and not any(_context(v) >= wanted.context_tokens for v in admitted)
    if short:
        return Step("variants", True, f"build {for_targets}: none holds {wanted.context_tokens} tokens")
    return Step("variants", False, f"{len(admitted)} admitted")


def _chain_step(wanted: VariantsPart, seen: Observed) -> Step:
    links = seen.links(wanted)
    chain = " → ".join(wanted.targets)
    if not links:
        return Step("variants", True, f"search for the chain {chain}")
    if any(_context(link) < wanted.context_tokens for link in links):
        return Step(
            "variants", True, f"search for the chain {chain}: a link holds less than {wanted.context_tokens} tokens"
        )
    if not all(_has_sizes(link, wanted.sizes) for link in links):
        return Step("variants", True, f"search for the chain {chain}: a link has other sizes")
    return Step("variants", False, f"the chain {chain} has {len(links)} links")


def _profile_step(declaration: Declaration, seen: Observed, variants_missing: bool) -> Step:
    if variants_missing:
        return Step("profile", True, "measure the new variants")
    serving = _serving(declaration.variants, seen)
    unknown = [v.name for v in serving if not _measured(v.variant_id, declaration.profile, seen.profiles)]
    if unknown:
        return Step("profile", True, f"measure {', '.join(unknown)}")
    slower = [v.name for v in serving if v.variant_id in seen.uneased]
    if slower and declaration.profile.clocks == AUTO:
        return Step("profile", True, f"measure {', '.join(slower)} at the clock that boards ease to")
    return Step("profile", False, f"{len(serving)} variants are measured")


def _serving(wanted: VariantsPart, seen: Observed) -> list[compiler_pb2.Variant]:
    """What may come to serve: admitted variants; of a chain the links that some node's device can run."""
    if wanted.chain:
        return [v for v in seen.links(wanted) if {v.target, v.compiled_target} & seen.fleet_targets]
    return [v for v in seen.variants if v.state == ADMITTED]


def _deployment_step(declaration: Declaration, seen: Observed) -> Step:
    name = declaration.deployment.name
    if seen.deployment is None:
        return Step("deployment", True, f"create {name}")
    if not seen.same_wish:
        return Step("deployment", True, f"change {name}, generation {seen.deployment.generation}")
    return Step("deployment", False, f"{name} is as declared")


def _measured(variant_id: str, wanted: ProfilePart, profiles: Sequence[profiler_pb2.Profile]) -> bool:
    """Whether a variant has profiles with every load and on every partition kind and node asked for."""
    # Those of other clocks are beside the default's, never in place of them.
    mine = [p for p in profiles if p.point.variant_id == variant_id and p.point.power == common_pb2.PowerSetting()]
    loads = {(load.prompt_tokens, load.concurrency) for p in mine for load in p.loads}
    return (
        bool(mine)
        and set(wanted.partition_kinds) <= {p.point.partition_kind for p in mine}
        and set(wanted.nodes) <= {p.node_id for p in mine}
        and set(wanted.prompt_tokens) <= {prompt for prompt, _ in loads}
        and set(wanted.concurrencies) <= {number for _, number in loads}
    )


def _means(said: str, target: str) -> bool:
    """Whether a person means a target: by its name, or by its kind where there is only one."""
    return said in (target, target.removesuffix(":default").removesuffix(":portable"))


def _has_sizes(variant: compiler_pb2.Variant, wanted: SizesPart) -> bool:
    """Whether a variant's functions have the sizes asked for; what is not asked for may be anything."""
    recipe = variant.recipe
    return (
        (not wanted.prefill or list(recipe.prefill_chunks) == sorted(set(wanted.prefill)))
        and (not wanted.batch or list(recipe.decode_batches) == sorted(set(wanted.batch)))
        and wanted.slots in (0, recipe.slots)
    )


def _context(variant: compiler_pb2.Variant) -> int:
    return max(variant.recipe.context_buckets, default=0)
