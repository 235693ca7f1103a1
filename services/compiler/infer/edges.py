"""Types at the edge of a graph: whatever it computes in, callers give and get f32."""

from __future__ import annotations

from typing import Any

import torch

_NARROW = (torch.float16, torch.bfloat16)


class WideEdges(torch.nn.Module):
    """Gives floats of a narrow type as f32; a tuple whatever the module gives."""

    def __init__(self, module: torch.nn.Module) -> None:
        """Around a module that takes f32 itself."""
        super().__init__()
        self.inner = module

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The module's answer."""
        answer: Any = self.inner(*given)
        outputs = answer if isinstance(answer, tuple | list) else (answer,)
        return tuple(output.float() if output.dtype in _NARROW else output for output in outputs)
