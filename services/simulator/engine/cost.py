"""What one step of a replica takes and draws: the operating point as the engine runs it. Pure values.

A decode step of n sequences with k tokens of context in the cache takes `decode_s[n] + context_s · k`; the first part
reads the weights, the second the cache. A prompt of p tokens takes `prefill_token_s · p + prefill_square_s · p²`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True, slots=True)
class StepCost:
    """Costs of one operating point: variant × partition kind × power setting.

    Attributes:
        decode_s: entry n is a decode step of n sequences without context; entry 0 is not used.
        context_s: for each token in the cache that a step reads.
        prefill_token_s, prefill_square_s: of a prompt, linear and quadratic part.
        chunk_tokens: longest prefill chunk while others decode.
        decode_power_w: entry n while n sequences decode; entry 0 is loaded and idle.
        prefill_power_w: while a prompt is taken in.
        cache_tokens: tokens of context that fit.
        load_s: from nothing to ready.
        by_slot: entry n of the decode figures holds while the highest slot in use is n, whatever is free below it.
        rest_saved_w: what an idle replica draws less than loaded idle once its clocks have fallen; 0 when they do not.
        ramp_s: what the first work takes longer after that.
        prefill_grain_tokens: prompts are padded to whole multiples of this, as compiled functions of one length do.
        apart: a chunk and the decode step after it are two calls: the first token comes with the last chunk, and that
            step has the sequence already. Else they are one, as in engines that mix prompts into batches.
    """

    decode_s: tuple[float, ...]
    context_s: float
    prefill_token_s: float
    prefill_square_s: float
    chunk_tokens: int
    decode_power_w: tuple[float, ...]
    prefill_power_w: float
    cache_tokens: int
    load_s: float
    prefill_grain_tokens: int = 1
    by_slot: bool = False
    apart: bool = False
    rest_saved_w: float = 0.0
    ramp_s: float = 0.0

    @property
    def idle_power_w(self) -> float:
        """Loaded, with nothing to do."""
        return self.decode_power_w[0]

    @property
    def most_sequences(self) -> int:
        """The largest batch it has figures for."""
        return len(self.decode_s) - 1

    def prefill_s(self, tokens: int, start: int = 0) -> float:
        """Time to take in prompt tokens start … start+tokens-1."""
        tokens = -(-tokens // self.prefill_grain_tokens) * self.prefill_grain_tokens
        end = start + tokens
        return self.prefill_token_s * tokens + self.prefill_square_s * (end * end - start * start)

    def tokens_within(self, seconds: float, start: int) -> int:
        """Prompt tokens from `start` on that take no longer; 0 when not even the shortest chunk does."""
        if seconds <= 0.0:
            return 0
        each_s = self.prefill_token_s + 2.0 * self.prefill_square_s * start
        tokens = int(2.0 * seconds / (each_s + sqrt(each_s * each_s + 4.0 * self.prefill_square_s * seconds)))
        return tokens - tokens % self.prefill_grain_tokens

    def step_s(self, sequences: int, context_tokens: float) -> float:
        """One decode step."""
        return self.decode_s[sequences] + self.context_s * context_tokens
