"""Imports and builds a random Llama of 1.1 billion parameters, and says what time and memory it took.

    python -m bench.compiler.billion WORK_DIR [--recipe bf16-grouped] [--target cpu:host] [--limit-gib 16]

The weights are random, in bf16, with the shape of TinyLlama-1.1B; WORK_DIR needs 15 GB on a disk, and what is made
there is deleted at the end. Every child process is ended when it takes more than the limit, so a run that ends well is
the proof. Peaks are resident memory of a child and its descendants without pages of mapped files, looked at every
quarter of a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any, Final

import psutil

from bench.compiler.peak_watch import PeakWatch
from services.compiler.jobs.limits import JobLimits
from services.compiler.order import Order
from services.compiler.recipes import find_recipe, fit
from services.compiler.targets import find_target
from services.compiler.workshop import Workshop
from tests.tiny_model import write_tiny_tokenizer
from tradewind.v1 import compiler_pb2

SHAPE: Final[dict[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_JOB_TIME_S: Final = 1800


def write_model(folder: Path) -> int:
    """A Hugging Face folder with one shard for each layer; how many parameters it has."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SHAPE), encoding="utf-8")
    write_tiny_tokenizer(folder)
    torch.manual_seed(0)
    index: dict[str, str] = {}
    count = 0
    for number, shapes in enumerate(_shards()):
        name = f"model-{number:05d}.safetensors"
        tensors = {key: _draw(key, shape) for key, shape in shapes.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
        count += sum(tensor.numel() for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return count


def _shards() -> list[dict[str, tuple[int, ...]]]:
    hidden, inner, vocabulary = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["vocab_size"]
    narrow = hidden // SHAPE["num_attention_heads"] * SHAPE["num_key_value_heads"]
    layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    ends: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
    }
    return [
        ends,
        *(
            {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
            for number in range(SHAPE["num_hidden_layers"])
        ),
    ]


def _draw(name: str, shape: tuple[int, ...]) -> Any:
    """Unit gain, and a head wide enough that its answers are decided."""
    import torch

    if len(shape) < 2:
        return torch.ones(shape, dtype=torch.bfloat16)
    gain = 6.0 if name in ("lm_head.weight", "model.embed_tokens.weight") else 1.0
    return (torch.randn(shape) * gain * shape[-1] ** -0.5).to(torch.bfloat16)


async def _run(arguments: argparse.Namespace, source: Path, state: Path) -> None:
    limits = JobLimits(_JOB_TIME_S, arguments.limit_gib << 30)
    workshop, watch, began = Workshop(state, limits, places=1), PeakWatch(), time.monotonic()
    try:
        stored = await workshop.importer.import_model(source, _tell(began))
        print(f"import {time.monotonic() - began:.0f} s, peak {watch.take_bytes() / 2**30:.2f} GiB", flush=True)
        target, recipe = find_target(arguments.target, workshop.targets), find_recipe(arguments.recipe)
        facts = fit(recipe, target.features, stored.model.context_tokens, 0)
        began = time.monotonic()
        variant = await workshop.builder.make(Order(stored, facts, target), _tell(began))
    finally:
        workshop.close()
    state_name = compiler_pb2.VariantState.Name(variant.state)
    print(
        f"build of {variant.name} {time.monotonic() - began:.0f} s (export and compile {variant.compile_s:.0f} s), "
        f"peak as recorded {variant.build_peak_bytes / 2**30:.2f} GiB, resident {variant.memory_bytes / 2**30:.2f} "
        f"GiB, load average {psutil.getloadavg()[2]:.1f}, {state_name}: {variant.state_reason}"
    )


def _tell(began: float) -> Any:
    seen: set[str] = set()

    def tell(stage: str, _share: float) -> None:
        name = stage.partition(",")[0]
        if name not in seen:
            seen.add(name)
            print(f"  {time.monotonic() - began:6.0f} s  {name}", flush=True)

    return tell


def main() -> None:
    """Prints stages as they begin, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--recipe", default="bf16-grouped")
    parser.add_argument("--target", default="cpu:host")
    parser.add_argument("--limit-gib", type=int, default=16)
    arguments = parser.parse_args()
    folder = arguments.work_dir / "billion"
    try:
        count = write_model(folder / "model")
        print(f"{count / 1e9:.2f} billion parameters", flush=True)
        asyncio.run(_run(arguments, folder / "model", folder / "state"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
