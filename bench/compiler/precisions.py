"""What each precision costs: one model under recipes of the book, and under two forms of them that are in none.

    python -m bench.compiler.precisions build WORK_DIR [CASE…]   # 15 s a case: exports and compiles all, or those
    python -m bench.compiler.precisions time WORK_DIR            # times what is there, writes WORK_DIR/precisions.json

The model is a Llama of SmolLM2-135M's widths and vocabulary with 2 layers and random weights. A round calls each
function of each build once; figures are medians. Prompts start at row 0, decode steps write row 100.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.compiler.side_by_side import machine
from bench.compiler.turns import timed_in_turns
from services.compiler.export.shapes import Shapes
from services.compiler.quality.session import Session
from services.compiler.recipes import DATA_TILING, find_recipe, fit
from services.compiler.toolchain import find_iree_compile
from services.compiler.tuning.spec import spec_text
from tradewind.domain.manifest import RecipeFacts
from tradewind.domain.passes import NARROW_WEIGHTS

LAYERS: Final = 2
SHAPES: Final = Shapes(prefill_chunks=(64,), decode_batches=(1, 4, 8), context_buckets=(256,), slots=8)
ROUNDS: Final = 20
# A recipe of the book, and the flags that are its own or the other way about.
CASES: Final = {
    "f32-grouped": (),
    "f32-grouped-gdt": (DATA_TILING,),
    "f32-tuned": (),
    "f32-tuned, without tiles": (),
    "bf16-grouped": (),
    "bf16-grouped, packed": (DATA_TILING,),
    "w8-kernels": (),
    "w4-kernels": (),
    "w8-grouped": (),
    "w8-grouped, packed": (DATA_TILING,),
    "w8a8-grouped-gdt": (DATA_TILING,),
    "w8a8-grouped-gdt, not packed": (),
}
_FLAGS: Final = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-opt-level=O3",
)
_ROW: Final = 100


def facts_of(case: str) -> RecipeFacts:
    """The recipe that a case is of, as a CPU with AVX2 and without bf16 gets it."""
    return fit(find_recipe(case.partition(",")[0]), frozenset({"avx2", "fma", "f16c"}), 8192, 0)


def build(folder: Path, cases: Sequence[str]) -> None:
    """Builds cases, each in a process of its own: a model is changed by what is made of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if not (folder / f"{case}.vmfb").exists():
            subprocess.run([sys.executable, "-m", "bench.compiler.precisions", "one", str(folder), case], check=True)


def build_one(case: str, folder: Path) -> None:
    """Writes a case's module and weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from services.compiler.export.generator import export_mlir, save_weights
    from services.compiler.passes.form import form_of
    from services.compiler.passes.narrow_weights import narrow_weights

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=LAYERS, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.float32).eval()
    facts, mlir = facts_of(case), folder / f"{case}.mlir"
    if NARROW_WEIGHTS in facts.passes:
        narrow_weights(model, torch.bfloat16)
    form = form_of(facts.passes, facts.precision)
    export_mlir(model, SHAPES, mlir, lambda _name, _share: None, torch.float32, form)
    save_weights(model, folder / f"{case}.irpa")
    spec = folder / f"{case}.tuning.mlir"
    spec.write_text(spec_text(facts.tuning))
    tiles = [f"--iree-codegen-tuning-spec-path={spec}"] if facts.tuning and "without tiles" not in case else []
    command = [find_iree_compile(), mlir, *_FLAGS, *CASES[case], *tiles, "-o", folder / f"{case}.vmfb"]
    subprocess.run(command, check=True, capture_output=True)


def time_all(folder: Path) -> None:
    """Times every case that was built, in turns."""
    cases = [case for case in CASES if (folder / f"{case}.vmfb").exists()]
    calls = {(case, f): call for case in cases for f, call in _calls(folder, case).items()}
    samples = timed_in_turns(calls, ROUNDS)
    functions = [f.name for f in SHAPES.functions]
    medians = {case: {f: 1e3 * statistics.median(samples[case, f]) for f in functions} for case in cases}
    weights = {case: (folder / f"{case}.irpa").stat().st_size for case in cases}
    result = {"machine": machine(), "layers": LAYERS, "rounds": ROUNDS, "median_ms": medians, "weights_bytes": weights}
    (folder / "precisions.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print("| build | " + " | ".join(f"{name}, ms" for name in functions) + " | weights, MB |")
    print("|---|" + "--:|" * (len(functions) + 1))
    for case in cases:
        cells = [f"{medians[case][f]:.2f}" for f in functions] + [f"{weights[case] / 1e6:.0f}"]
        print(f"| {case} | " + " | ".join(cells) + " |")


def _calls(folder: Path, case: str) -> dict[str, Callable[[], Any]]:
    session = Session(folder / f"{case}.vmfb", [folder / f"{case}.irpa"], SHAPES.functions, "local-task")
    calls: dict[str, Callable[[], Any]] = {}
    for f in session.functions:
        if f.phase == "prefill":
            calls[f.name] = lambda f=f: session.prefill(f, [5] * f.tokens, 0, 0)
        else:
            calls[f.name] = lambda f=f: session.decode(f, [5] * f.batch, [_ROW] * f.batch)
    return calls


def main() -> None:
    """Builds or times."""
    what, folder, *names = sys.argv[1:]
    if what == "build":
        build(Path(folder), names or list(CASES))
    elif what == "one":
        build_one(names[0], Path(folder))
    else:
        time_all(Path(folder))


if __name__ == "__main__":
    main()
