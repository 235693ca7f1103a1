"""llama.cpp as a contender, through xllamacpp (`pip install xllamacpp`, for this bench only), and its Q8_0 file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.compiler.cases import DECODE_FROM_TOKENS, DECODE_STEPS, Case

_THREADS = 2
_CONTEXT_TOKENS = 1024


class LlamaCpp:
    """A server inside this process; its own timings are taken."""

    def __init__(self, path: Path) -> None:
        """Loads a GGUF file."""
        self._path = path
        self._servers: dict[int, Any] = {}

    def takes(self, case: Case) -> bool:
        """Every case."""
        return case.batch >= 1

    def run(self, case: Case) -> float:
        """Seconds of one sample: of the prompt, or of the steps of all streams together."""
        server = self._server(case.batch)
        if case.phase == "prefill":
            return float(_ask(server, case.tokens, 1)["prompt_ms"]) / 1e3
        with ThreadPoolExecutor(case.batch) as pool:
            timings = list(pool.map(lambda _: _ask(server, DECODE_FROM_TOKENS, DECODE_STEPS + 1), range(case.batch)))
        # Streams begin one after the other while prompts are read: the fastest stream met the others' prompts least.
        return min(float(t["predicted_per_token_ms"]) for t in timings) * DECODE_STEPS / 1e3

    def _server(self, streams: int) -> Any:
        if streams not in self._servers:
            import xllamacpp  # type: ignore[import-not-found]

            parameters = xllamacpp.CommonParams()
            parameters.model.path = str(self._path)
            parameters.n_ctx, parameters.n_parallel = _CONTEXT_TOKENS * streams, streams
            parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = _THREADS
            self._servers[streams] = xllamacpp.Server(parameters)
        return self._servers[streams]


def _ask(server: Any, tokens: int, wanted: int) -> dict[str, Any]:
    request = {
        "prompt": "word " * (tokens - 1),
        "max_tokens": wanted,
        "temperature": 0,
        "cache_prompt": False,
        "ignore_eos": True,
    }
    timings: dict[str, Any] = server.handle_completions(request)["timings"]
    return timings


def write_q8_0(source: Path, output: Path) -> None:
    """The same weights in Q8_0: dequantised from the source and rounded again."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(output, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, field.contents())
        else:
            writer.add_key_value(name, field.contents(), field.types[0])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    q8_0, f32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
    for tensor in reader.tensors:
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        numbers = numbers.reshape([int(size) for size in reversed(tensor.shape)])
        if tensor.tensor_type == f32:
            writer.add_tensor(tensor.name, numbers)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(numbers, q8_0), raw_dtype=q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
