"""What a product reads: rows as they are, normalised, or gated. Text only."""

from __future__ import annotations

from dataclasses import dataclass
from math import e, log2
from typing import Final

from services.compiler.kernels.exponential import power_of_two, smaller
from services.compiler.kernels.formats import GROUP
from services.compiler.kernels.text import Text

PLAIN: Final = "plain"
# x / sqrt(mean(x²) + epsilon) · gain: RMSNorm, https://arxiv.org/abs/1910.07467.
NORMED: Final = "normed"
# silu(first half) · second half: SwiGLU, https://arxiv.org/abs/2002.05202.
GATED: Final = "gated"
# Whole numbers, scales of their groups, and the groups' sums, as `rounding` makes them.
ROUNDED: Final = "rounded"
_LANES: Final = 8
_EIGHT: Final = "vector<8xf32>"
# Of two: a gate that is divided by it is 0.
_MOST_POWER: Final = 126.0
# Columns of a group where its vectors begin.
_PARTS: Final = range(0, GROUP, _LANES)


@dataclass(frozen=True, slots=True)
class Rows:
    """Shape of what is read, and what is made of it before it is multiplied.

    Attributes:
        count: rows.
        inputs: numbers of a row that are multiplied.
        made: PLAIN, NORMED, GATED or ROUNDED.
        epsilon: of the norm.
    """

    count: int
    inputs: int
    made: str = PLAIN
    epsilon: float = 0.0

    @property
    def columns(self) -> int:
        """Numbers of a row as it is read."""
        return 2 * self.inputs if self.made == GATED else self.inputs

    @property
    def suffix(self) -> str:
        """Tells functions apart by what they make of rows."""
        if self.made == PLAIN:
            return ""
        number = self.epsilon.hex().replace(".", "_").replace("-", "m").replace("+", "")
        return f"_{self.made}_{number}" if self.made == NORMED else f"_{self.made}"

    def kind(self, count: int = 0) -> str:
        """Tensor type of that many rows; 0 for all."""
        return f"tensor<{count or self.count}x{self.columns}xf32>"

    @property
    def gain_kind(self) -> str:
        """Tensor type of the norm's gains."""
        return f"tensor<{self.inputs}xf32>"


class RowReader:
    """Writes the vectors of rows in a tensor, in groups.

    Args:
        text: to write to.
        rows: what they are.
        source: tensor of `count` rows.
        count: how many it has.
        gain: of the norm; "" without.
    """

    def __init__(self, text: Text, rows: Rows, source: str, count: int, gain: str) -> None:
        """Writes nothing yet."""
        self._text, self._rows, self._source, self._gain = text, rows, source, gain
        self._kind = rows.kind(count)
        self._factor = ""

    def begin(self, row: str) -> None:
        """Writes what is done once for a row, at an index."""
        if self._rows.made == NORMED:
            self._factor = self._norm(row)

    def group(self, row: str, at: str) -> list[str]:
        """A group's numbers from a column on, eight to a vector."""
        return [
            self._eight(row, self._text.value(f"arith.addi {at}, {self._text.index(lane)} : index")) for lane in _PARTS
        ]

    def _eight(self, row: str, at: str) -> str:
        text = self._text
        read = text.read(self._source, self._kind, (row, at), _EIGHT)
        if self._rows.made == NORMED:
            scaled = text.value(f"arith.mulf {read}, {self._factor} : {_EIGHT}")
            gain = text.read(self._gain, self._rows.gain_kind, (at,), _EIGHT)
            return text.value(f"arith.mulf {scaled}, {gain} : {_EIGHT}")
        if self._rows.made == GATED:
            other = text.value(f"arith.addi {at}, {text.index(self._rows.inputs)} : index")
            up = text.read(self._source, self._kind, (row, other), _EIGHT)
            return text.value(f"arith.mulf {self._silu(read)}, {up} : {_EIGHT}")
        return read

    def _norm(self, row: str) -> str:
        """1 / sqrt(mean of squares + epsilon), repeated."""
        text, rows = self._text, self._rows
        zero, last, step = text.index(0), text.index(rows.inputs), text.index(GROUP)
        nothing, parts = text.constant(0.0, _EIGHT), range(len(_PARTS))
        kinds = ",".join([_EIGHT] * len(parts))
        started = ",".join(f"%sq{i}={nothing}" for i in parts)
        text.line(f"%ss:{len(parts)} = scf.for %sa = {zero} to {last} step {step} iter_args({started}) -> ({kinds}) {{")
        ends = []
        for i in parts:
            at = text.value(f"arith.addi %sa, {text.index(i * _LANES)} : index")
            some = text.read(self._source, self._kind, (row, at), _EIGHT)
            ends.append(text.value(f"math.fma {some}, {some}, %sq{i} : {_EIGHT}"))
        text.line(f"scf.yield {','.join(ends)} : {kinds}\n}}")
        total = "%ss#0"
        for i in parts[1:]:
            total = text.value(f"arith.addf {total}, %ss#{i} : {_EIGHT}")
        whole = text.value(f"vector.reduction <add>, {total} : {_EIGHT} into f32")
        mean = text.value(f"arith.divf {whole}, {text.constant(float(rows.inputs), 'f32')} : f32")
        more = text.value(f"arith.addf {mean}, {text.constant(rows.epsilon, 'f32')} : f32")
        root = text.value(f"math.sqrt {more} : f32")
        inverse = text.value(f"arith.divf {text.constant(1.0, 'f32')}, {root} : f32")
        return text.value(f"vector.broadcast {inverse} : f32 to {_EIGHT}")

    def _silu(self, gate: str) -> str:
        text = self._text
        power = text.value(f"arith.mulf {gate}, {text.constant(-log2(e), _EIGHT)} : {_EIGHT}")
        fallen = power_of_two(text, smaller(text, power, text.constant(_MOST_POWER, _EIGHT)))
        more = text.value(f"arith.addf {fallen}, {text.constant(1.0, _EIGHT)} : {_EIGHT}")
        return text.value(f"arith.divf {gate}, {more} : {_EIGHT}")
