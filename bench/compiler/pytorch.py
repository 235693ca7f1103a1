"""PyTorch as a contender: the source framework, eager and through torch.compile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bench.compiler.cases import DECODE_FROM_TOKENS, DECODE_STEPS, Case

_THREADS = 2
_CONTEXT_TOKENS = 1024


class PyTorch:
    """A causal LM of transformers."""

    def __init__(self, gguf: Path, dtype: str, compiled: bool) -> None:
        """Loads the model; compiles nothing before the first call."""
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(_THREADS)
        self._torch = torch
        loaded: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        self._model = loaded.to(getattr(torch, dtype)).eval()
        self._compiled = compiled
        self._step = torch.compile(self._model) if compiled else self._model

    def takes(self, case: Case) -> bool:
        """One stream, and with torch.compile one length of prompt: each costs minutes of compilation."""
        return case.batch == 1 and not (self._compiled and case.tokens > DECODE_FROM_TOKENS)

    def run(self, case: Case) -> float:
        """Seconds of one sample."""
        with self._torch.no_grad():
            cache = self._cache()
            began = time.perf_counter()
            self._call(case.tokens if case.phase == "prefill" else DECODE_FROM_TOKENS, 0, cache)
            if case.phase == "prefill":
                return time.perf_counter() - began
            began = time.perf_counter()
            for step in range(DECODE_STEPS):
                self._call(1, DECODE_FROM_TOKENS + step, cache)
            return time.perf_counter() - began

    def _cache(self) -> Any:
        from transformers import DynamicCache, StaticCache

        if self._compiled:
            return StaticCache(config=self._model.config, max_cache_len=_CONTEXT_TOKENS)
        return DynamicCache(config=self._model.config)

    def _call(self, tokens: int, start: int, cache: Any) -> None:
        torch = self._torch
        places = torch.arange(start, start + tokens)
        self._step(
            input_ids=torch.full((1, tokens), 5),
            position_ids=places[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
