"""Whether a causal LM, wrapped for export, still answers as its source framework does. Runs in PyTorch, eagerly.

This is what lets any architecture in: the wrapping makes assumptions (attention and cache come from outside, rows of
the cache are positions), and a model that does not keep to them is found here, with figures, before it costs a build.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from services.compiler.export.generator import Generator
from services.compiler.export.shapes import Shapes
from services.compiler.sources.architectures import architecture_of
from tradewind.domain.errors import UnsupportedModel

# Two ragged chunks and some single steps reach every part of the wrapping.
_SHAPES: Final = Shapes(prefill_chunks=(8,), decode_batches=(2,), context_buckets=(32,), slots=3)
_CHUNKS: Final = ((0, 8), (8, 5))
_TOKENS: Final = 16
# Order of additions in f32 moves logits by some millionths of their spread; anything wrong moves them by tenths.
_MOST_ERROR: Final = 1e-3


def check_wrapped(model: Any) -> float:
    """Compares the wrapped model with itself unwrapped; the largest difference, as a share of the logits' spread.

    Args:
        model: in f32; changed in place.

    Raises:
        UnsupportedModel: it cannot be wrapped, or answers differently.
    """
    architecture, limit = architecture_of(model.config), min(_TOKENS, int(model.config.max_position_embeddings))
    tokens = [(index * 37 + 3) % int(model.config.vocab_size) for index in range(limit)]
    with torch.no_grad():
        wanted = model(torch.tensor([tokens])).logits[0]
        try:
            rows = _answers(Generator(model, _SHAPES).eval(), tokens)
        except (ValueError, TypeError, AttributeError, IndexError, KeyError, RuntimeError) as error:
            raise UnsupportedModel(
                f"{architecture}: attention or cache cannot be given from outside ({type(error).__name__}: {error}); "
                "export it to ONNX with past_key_values and import that",
                {"architecture": architecture},
            ) from error
        spread = float(wanted.max() - wanted.min())
        found = max(float((row - wanted[at]).abs().max()) for at, row in rows.items()) / spread
    if not found <= _MOST_ERROR:
        raise UnsupportedModel(
            f"{architecture}: wrapped for export it answers differently (logits by {found:.2g} of their spread, where "
            f"at most {_MOST_ERROR:g} is rounding); it is not supported",
            {"architecture": architecture, "error": f"{found:.3g}"},
        )
    return found


def _answers(generator: Generator, tokens: list[int]) -> dict[int, torch.Tensor]:
    """Logits by position: chunks into slot 1, then steps in a batch of two."""
    rows, context = {}, _SHAPES.context_buckets[-1]
    done = 0
    for start, length in _CHUNKS:
        length = min(length, len(tokens) - start)
        if length <= 0:
            break
        chunk = torch.zeros(1, _SHAPES.prefill_chunks[0], dtype=torch.long)
        chunk[0, :length] = torch.tensor(tokens[start : start + length])
        one = torch.ones(1, dtype=torch.long)
        done = start + length
        rows[done - 1] = generator.prefill(chunk, one, one * start, one * length, context)[0]
    for at in range(done, len(tokens)):
        rows[at] = generator.decode(torch.tensor([0, tokens[at]]), torch.tensor([0, at]), context)[1]
    return rows
