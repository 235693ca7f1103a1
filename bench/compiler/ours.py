"""Variants of this compiler as a contender: built through the quality gate, driven as the engine drives them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from bench.compiler.cases import DECODE_FROM_TOKENS, DECODE_STEPS, Case
from bench.compiler.speed import blob, manifests
from services.compiler.jobs.limits import JobLimits
from services.compiler.order import Order
from services.compiler.quality.session import Session
from services.compiler.recipes import find_recipe, fit
from services.compiler.sizes import Sizes, with_sizes
from services.compiler.targets import find_target
from services.compiler.workshop import Workshop
from tradewind.domain.manifest import Function
from tradewind.v1 import compiler_pb2

_LIMITS: Final = JobLimits(time_s=1800, memory_bytes=16 << 30)
_CONTEXT_TOKENS: Final = 1024
_CHUNKS: Final = (128, 512)
_BATCHES: Final = (1, 4, 8)


def build(state_dir: Path, source: Path, recipes: list[str]) -> list[dict[str, object]]:
    """Imports the model and builds each recipe with the functions of the cases; quality of each."""
    workshop = Workshop(state_dir, _LIMITS)
    try:
        return asyncio.run(_build(workshop, source, recipes))
    finally:
        workshop.close()


async def _build(workshop: Workshop, source: Path, recipes: list[str]) -> list[dict[str, object]]:
    model = await workshop.importer.import_model(source, lambda _stage, _share: None)
    target, made = find_target("cpu:host", workshop.targets), []
    for name in recipes:
        facts = fit(find_recipe(name), target.features, _CONTEXT_TOKENS, _CONTEXT_TOKENS)
        order = Order(model, with_sizes(facts, Sizes(_CHUNKS, _BATCHES)), target)
        variant = await workshop.builder.build(order, lambda _stage, _share: None)
        quality = variant.quality
        made.append(
            {
                "recipe": name,
                "state": compiler_pb2.VariantState.Name(variant.state),
                "reason": variant.state_reason,
                "top1_agreement": quality.top1_agreement,
                "perplexity": quality.perplexity,
                "reference_perplexity": quality.reference_perplexity,
                "variant_id": variant.variant_id,
            }
        )
    return made


class Ours:
    """A variant in the state folder."""

    def __init__(self, state_dir: Path, variant_id: str) -> None:
        """Loads a variant."""
        manifest = next(manifest for manifest in manifests(state_dir) if manifest.variant_id == variant_id)
        # IREE knows the kind of a parameter archive by the ending of its name.
        weights = state_dir / f"{variant_id[:16].replace(':', '-')}.irpa"
        weights.unlink(missing_ok=True)
        weights.symlink_to(blob(state_dir, manifest.weights[0].digest).resolve())
        module = blob(state_dir, manifest.module.digest)
        self._session = Session(module, [weights], manifest.functions, manifest.driver)
        self._functions = manifest.functions

    def takes(self, case: Case) -> bool:
        """Every case."""
        return bool(self._fitting(case))

    def run(self, case: Case) -> float:
        """Seconds of one sample."""
        function = max(self._fitting(case), key=lambda function: function.tokens)
        began = time.perf_counter()
        if case.phase == "prefill":
            for start in range(0, case.tokens, function.tokens):
                self._session.prefill(function, [5] * function.tokens, 0, start)
        else:
            for step in range(DECODE_STEPS):
                self._session.decode(function, [5] * case.batch, [DECODE_FROM_TOKENS + step] * case.batch)
        return time.perf_counter() - began

    def _fitting(self, case: Case) -> list[Function]:
        """Functions that the case is made of whole calls of."""
        return [
            f for f in self._functions if (f.phase, f.batch) == (case.phase, case.batch) and case.tokens % f.tokens == 0
        ]
