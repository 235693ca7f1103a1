"""The builds that `bench.compiler.passes` compares, and how each is made."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from services.compiler.export.shapes import Shapes
from services.compiler.passes.form import PLAIN, Form
from services.compiler.toolchain import find_iree_compile
from tradewind.domain.manifest import Function
from tradewind.domain.passes import FUSED_ATTENTION, SLOT_ATTENTION

LAYERS: Final = 2
# What is timed of each build, by the beginnings of the functions' names.
FUNCTIONS: Final = ("prefill_t128", "decode_b1", "decode_b4", "decode_b8")
_FLAGS: Final = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-opt-level=O3",
)


@dataclass(frozen=True, slots=True)
class Sizes(Shapes):
    """The functions of one bucket only, over a cache that holds a longer one: what the others do is not timed."""

    timed: int = 256

    @property
    def functions(self) -> tuple[Function, ...]:
        """Those that attend to `timed` rows."""
        whole = Shapes(self.prefill_chunks, self.decode_batches, self.context_buckets, self.slots)
        return tuple(f for f in whole.functions if f.context == self.timed)


SHAPES: Final = Sizes(prefill_chunks=(128,), decode_batches=(1, 4, 8), context_buckets=(256, 1024), slots=8)


@dataclass(frozen=True, slots=True)
class Case:
    """A build.

    Attributes:
        form: what its passes make of the model.
        shapes: of its functions.
        narrow: precision that weights are kept in; empty for f32.
        caches_as_arguments: whether the KV cache goes in and out of each call, in place of living in the module.
    """

    name: str
    form: Form = PLAIN
    shapes: Sizes = SHAPES
    narrow: str = ""
    caches_as_arguments: bool = False


# Each adds a pass to the one before: kernels' passes need those that come before them.
_PACKED: Final = replace(PLAIN, packed="w4")
_SLOTS: Final = replace(_PACKED, attention=SLOT_ATTENTION)
_SIBLINGS: Final = replace(_SLOTS, siblings=True)
_EDGES: Final = replace(_SIBLINGS, edges=True)
_ROTARY: Final = replace(_EDGES, rotary_cache=True)

CASES: Final = (
    Case("all"),
    Case("without cache-in-place", replace(PLAIN, repeated=False), caches_as_arguments=True),
    Case("without context-buckets", shapes=replace(SHAPES, timed=1024)),
    Case("fused-attention", replace(PLAIN, attention=FUSED_ATTENTION)),
    Case("without flat-linear", replace(PLAIN, flat=False)),
    Case("without last-token-logits", replace(PLAIN, last_token=False)),
    Case("without repeat-layer", replace(PLAIN, repeated=False)),
    Case("with narrow-weights bf16", narrow="bf16"),
    Case("with device-sampling", replace(PLAIN, sampling=True)),
    Case("packed-linears w4", _PACKED),
    Case("and slot-attention", _SLOTS),
    Case("and sibling-linears", _SIBLINGS),
    Case("and product-edges", _EDGES),
    Case("and rotary-cache", _ROTARY),
)


def build_case(case: Case, folder: Path) -> None:
    """Writes a build's module, weights, and what making them took."""
    import torch

    from services.compiler.export.generator import export_mlir, save_weights
    from services.compiler.passes.narrow_weights import narrow_weights

    model, mlir = _model(), folder / f"{case.name}.mlir"
    if case.narrow:
        narrow_weights(model, getattr(torch, {"bf16": "bfloat16"}[case.narrow]))
    began = time.perf_counter()
    if case.caches_as_arguments:
        _export_with_caches(model, case, mlir)
    else:
        export_mlir(model, case.shapes, mlir, lambda _name, _share: None, torch.float32, case.form)
    export_s = time.perf_counter() - began
    save_weights(model, folder / f"{case.name}.irpa")
    began = time.perf_counter()
    command = [find_iree_compile(), mlir, *_FLAGS, "-o", folder / f"{case.name}.vmfb"]
    subprocess.run(command, check=True, capture_output=True)
    facts = {"export_s": export_s, "compile_s": time.perf_counter() - began}
    (folder / f"{case.name}.json").write_text(json.dumps(facts), encoding="utf-8")


def _model() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=LAYERS, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(torch.float32).eval()


def _export_with_caches(model: Any, case: Case, path: Path) -> None:
    """As `export_mlir`, with the caches as arguments that each call changes."""
    import torch
    from iree.turbine import aot
    from iree.turbine.aot.compiled_module import ExportTargetDef
    from iree.turbine.aot.decompositions import current_aot_decompositions
    from iree.turbine.aot.fx_programs import FxPrograms

    from services.compiler.export.generator import Generator
    from services.compiler.export.shapes import WEIGHTS_SCOPE

    class Outside(Generator):
        """Takes its caches from outside for each call."""

        given: list[tuple[Any, Any]]

        def _buffers_by_layer(self) -> list[tuple[Any, Any]]:
            return self.given

    class Call(torch.nn.Module):
        def __init__(self, generator: Outside, function: Any) -> None:
            super().__init__()
            self.model = generator.model
            # Outside of the modules, so that its own caches are no part of the export.
            self.held = [generator]
            self.function = function

        def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
            (generator,) = self.held
            own, caches = arguments[: -2 * LAYERS], arguments[-2 * LAYERS :]
            generator.given = list(zip(caches[::2], caches[1::2], strict=True))
            phase = generator.prefill if self.function.phase == "prefill" else generator.decode
            return phase(*own, self.function.context)  # type: ignore[operator]

    generator = Outside(model, case.shapes, torch.float32, case.form).eval()
    aot.externalize_module_parameters(model, external_scope=WEIGHTS_SCOPE)
    caches = [torch.zeros_like(buffer) for layer in generator.cache.layers for buffer in (layer.k, layer.v)]
    programs: Any = FxPrograms()
    for function in case.shapes.functions:
        one = torch.ones(1, dtype=torch.long)
        if function.phase == "prefill":
            own = (torch.zeros(1, function.tokens, dtype=torch.long), 0 * one, 0 * one, one)
        else:
            own = (torch.zeros(function.batch, dtype=torch.long),) * 2
            own = tuple(tensor.clone() for tensor in own)
        with torch.no_grad():
            program = torch.export.export(Call(generator, function), (*own, *caches), strict=False)
            program = program.run_decompositions(current_aot_decompositions() or {})
        programs.programs[function.name] = ExportTargetDef(program)
    aot.export(programs).save_mlir(str(path))
