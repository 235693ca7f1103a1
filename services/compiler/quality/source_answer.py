"""What the source framework answers first: the canary of a module that nothing here has run. Computes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.compiler.quality.thresholds import token_slack_nats
from tradewind.domain.manifest import Canary

# Enough to see a wrong decode step, and a few calls on the device that loads the module.
SOURCE_TOKENS: Final = 16


def source_canary(reference: Path, precision: str) -> Canary:
    """The source's greedy answer out of a reference's file, with what rounding may change of it.

    Raises:
        KeyError: no thresholds for the precision.
    """
    from safetensors import safe_open

    with safe_open(reference, framework="numpy") as tensors:
        prompt, continuation = (tensors.get_tensor(name).tolist() for name in ("prompt", "continuation"))
    return Canary(tuple(prompt), tuple(continuation[:SOURCE_TOKENS]), token_slack_nats(precision))
