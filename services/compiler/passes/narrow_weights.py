"""Pass "narrow-weights": weights of linear layers are kept in bf16 or f16; arithmetic stays f32.

For CPUs that cannot compute in the narrower type: half the memory, and the arithmetic of f32. Linear layers widen
their weights as they use them, which is why the pass goes with "flat-linear".
"""

from __future__ import annotations

import torch


def narrow_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Narrows the weights of a model in f32, in place.

    A weight that is tied to an embedding narrows it too; its rows are widened again as they leave it.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.to(dtype)
        if isinstance(module, torch.nn.Embedding):
            module.register_forward_hook(lambda _module, _args, rows: rows.float())
