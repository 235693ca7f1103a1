"""Which replica holds the beginning of a prompt, as far as a gateway can know from what it sent. Pure.

A replica keeps the rows of a sequence until its slot is taken again, and works out only what is new of a prompt that
begins with them. So the gateway remembers the last prompts that each replica took, as many as it has slots.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

# Prompts are compared by blocks of so many tokens: what is gained by fewer is not worth another replica.
BLOCK_TOKENS: Final = 32
# Replicas remembered; each takes some tens of kilobytes.
MAX_REPLICAS: Final = 4_096

# For each block of a prompt a digest of everything up to its end.
Chain = tuple[int, ...]


def chain_of(prompt: Sequence[int], salt: str = "") -> Chain:
    """The whole blocks of a prompt; those of other salts are others."""
    digest, chain = hash(salt), []
    for end in range(BLOCK_TOKENS, len(prompt) + 1, BLOCK_TOKENS):
        digest = hash((digest, *prompt[end - BLOCK_TOKENS : end]))
        chain.append(digest)
    return tuple(chain)


class HeldPrompts:
    """The prompts that replicas took last."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[str, OrderedDict[Chain, None]] = OrderedDict()

    def took(self, replica_id: str, chain: Chain, slots: int) -> None:
        """A replica of so many slots took a prompt, in place of the one that it goes on from.

        One that begins alike and then differs, as under the same system prompt, has a slot of its own.
        """
        if not chain:
            return
        prompts = self._prompts.setdefault(replica_id, OrderedDict())
        self._prompts.move_to_end(replica_id)
        for earlier in [other for other in prompts if _common(chain, other) == len(other)]:
            del prompts[earlier]
        prompts[chain] = None
        while len(prompts) > max(slots, 1):
            prompts.popitem(last=False)
        while len(self._prompts) > MAX_REPLICAS:
            self._prompts.popitem(last=False)

    def tokens(self, replica_ids: Iterable[str], chain: Chain) -> dict[str, int]:
        """Tokens at the beginning of a prompt that replicas hold; those that hold none are left out."""
        held = {}
        for replica_id in replica_ids:
            blocks = max((_common(chain, other) for other in self._prompts.get(replica_id, ())), default=0)
            if blocks:
                held[replica_id] = blocks * BLOCK_TOKENS
        return held


def _common(one: Chain, other: Chain) -> int:
    """Blocks in which two prompts begin alike."""
    count = min(len(one), len(other))
    # A digest stands for all blocks before it, so that equal ones are found by halving.
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        if one[middle - 1] == other[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
