"""What the source framework answers to a tensor model's samples: made at import, compared with every variant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.compiler.infer.samples import Array, Sample

_IN, _OUT = "in", "out"
_SEPARATOR: Final = "|"


@dataclass(frozen=True, slots=True)
class Answers:
    """Samples and the answers to them, in one order; tensors by name."""

    samples: tuple[Sample, ...]
    outputs: tuple[Sample, ...]

    def save(self, path: Path) -> None:
        """Writes them as safetensors."""
        from safetensors.numpy import save_file

        tensors: dict[str, Array] = {}
        for kind, group in ((_IN, self.samples), (_OUT, self.outputs)):
            for index, tensors_of in enumerate(group):
                for name, array in tensors_of.items():
                    tensors[_SEPARATOR.join((str(index), kind, name))] = _contiguous(array)
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Answers:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        groups: dict[tuple[int, str], dict[str, Any]] = {}
        for key, array in load_file(path).items():
            index, kind, name = key.split(_SEPARATOR, 2)
            groups.setdefault((int(index), kind), {})[name] = array
        count = 1 + max(index for index, _ in groups)
        inside = tuple(groups.get((index, _IN), {}) for index in range(count))
        return cls(inside, tuple(groups[index, _OUT] for index in range(count)))


def _contiguous(array: Array) -> Array:
    import numpy as np

    return np.ascontiguousarray(array)
