"""What a request cost whose replica could not say: a stop text ends it at the gateway, before the last message. Pure.

The mean energy of a token over the finished requests of the same variant, times the request's tokens. Labelled
`modelled`; without any finished request there is no figure and the label is `unavailable`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from tradewind.v1 import common_pb2, inference_pb2

METHOD: Final = "gateway-mean-per-token@1"
# Prompt tokens go through the model many at a time and cost less each; the ratio seen on CPUs and GPUs is about this.
PROMPT_TOKEN_SHARE: Final = 0.1
# Variants remembered; a gateway sees a handful at a time.
MAX_VARIANTS: Final = 256
# Older requests count less and less: after this many, half.
HALF_LIFE_REQUESTS: Final = 64


@dataclass(slots=True)
class _Sum:
    energy_mj: float = 0.0
    weighted_tokens: float = 0.0


class EnergyEstimates:
    """Mean energy of a token, by variant."""

    def __init__(self) -> None:
        self._sums: OrderedDict[str, _Sum] = OrderedDict()

    def learn(self, variant_id: str, usage: inference_pb2.Usage) -> None:
        """Takes in a finished request; one without a usable figure teaches nothing."""
        source = usage.energy.source
        unusable = (common_pb2.FIGURE_SOURCE_UNSPECIFIED, common_pb2.FIGURE_SOURCE_UNAVAILABLE)
        if source in unusable or usage.energy.energy_mj <= 0 or usage.output_tokens == 0:
            return
        fade = 0.5 ** (1 / HALF_LIFE_REQUESTS)
        entry = self._sums.setdefault(variant_id, _Sum())
        entry.energy_mj = entry.energy_mj * fade + usage.energy.energy_mj
        entry.weighted_tokens = entry.weighted_tokens * fade + _weight(
            usage.prompt_tokens - usage.reused_prompt_tokens, usage.output_tokens
        )
        self._sums.move_to_end(variant_id)
        while len(self._sums) > MAX_VARIANTS:
            self._sums.popitem(last=False)

    def estimate(self, variant_id: str, prompt_tokens: int, output_tokens: int) -> common_pb2.Energy:
        """Energy of a request of this size."""
        entry = self._sums.get(variant_id)
        if entry is None:
            return common_pb2.Energy(source=common_pb2.FIGURE_SOURCE_UNAVAILABLE, method=METHOD)
        energy_mj = entry.energy_mj / entry.weighted_tokens * _weight(prompt_tokens, output_tokens)
        return common_pb2.Energy(energy_mj=energy_mj, source=common_pb2.FIGURE_SOURCE_MODELLED, method=METHOD)


def _weight(prompt_tokens: int, output_tokens: int) -> float:
    return prompt_tokens * PROMPT_TOKEN_SHARE + output_tokens
