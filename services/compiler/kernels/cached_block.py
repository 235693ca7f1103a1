"""A block of a cache's rows as whole numbers, those of the block by one scale. Text only."""

from __future__ import annotations

from typing import Final

from services.compiler.kernels.text import Text
from services.compiler.kernels.whole_numbers import EIGHT, LANES, LEVELS, PAIRS, WORDS, paired, pairs_of, rounded

# Rows of zeros need a scale too.
_LEAST: Final = 1e-30
_ALL_BUT_SIGN: Final = 0x7FFF
_HALVES: Final = "vector<16xf16>"


class CachedBlock:
    """Rows from %r on, of f16 [cached, width]; the cache's last row stands for those past it.

    Args:
        text: to write to.
        cached: rows of the cache.
        width: of a row, 16 or more.
        rows: of a block.
    """

    def __init__(self, text: Text, cached: int, width: int, rows: int) -> None:
        """Writes nothing yet."""
        self._text, self._cached, self._width = text, cached, width
        self._kind = f"tensor<{cached}x{width}xf16>"
        self.key_words = f"tensor<{rows}x{pairs_of(width)}xi32>"
        self.value_words = f"tensor<{rows // 2}x{width}xi32>"

    def largest(self, cache: str, count: str) -> str:
        """The largest size in the first rows, f32; floats without their sign are ordered as whole numbers are."""
        text, name, width = self._text, self._text.fresh(), self._width
        zero, one = text.index(0), text.index(1)
        unsigned, nothing = (text.value(f"arith.constant dense<{bits}> : {PAIRS}") for bits in (_ALL_BUT_SIGN, 0))
        text.line(
            f"{name} = scf.for {name}j = {zero} to {count} step {one} iter_args({name}o={nothing}) -> ({PAIRS}) {{"
        )
        row, most = text.value(f"arith.addi %r, {name}j : index"), f"{name}o"
        # A last vector that is not full is read together with what is before it.
        for at in sorted({*range(0, width - LANES, 2 * LANES), width - 2 * LANES}):
            some = text.read(cache, self._kind, (row, text.index(at)), _HALVES)
            bits = text.value(f"vector.bitcast {some} : {_HALVES} to {PAIRS}")
            most = text.value(f"arith.maxui {most}, {text.value(f'arith.andi {bits}, {unsigned} : {PAIRS}')} : {PAIRS}")
        text.line(f"scf.yield {most} : {PAIRS}\n}}")
        bits = text.value(f"vector.reduction <maxui>, {name} : {PAIRS} into i16")
        number = text.value(f"arith.extf {text.value(f'arith.bitcast {bits} : i16 to f16')} : f16 to f32")
        return text.value(f"arith.maximumf {number}, {text.constant(_LEAST, 'f32')} : f32")

    def factor(self, most: str) -> str:
        """What the whole numbers of a block with this largest size are multiplied by to be what they were."""
        return self._spread(most, self._levels())

    def keys(self, cache: str, most: str, length: str, words: str) -> str:
        """Rows as pairs of whole numbers [rows, pairs], in the place of the words given."""
        text, kind, name = self._text, self.key_words, self._text.fresh()
        inverse, zero, one = self._spread(self._levels(), most), text.index(0), text.index(1)
        text.line(f"{name} = scf.for {name}j = {zero} to {length} step {one} iter_args({name}o={words}) -> ({kind}) {{")
        row, out = self._row(f"{name}j"), f"{name}o"
        for first in range(0, self._width, 2 * LANES):
            parts = range(first, min(first + 2 * LANES, self._width), LANES)
            numbers = [rounded(text, self._eight(cache, row, at), inverse) for at in parts]
            out = text.write(paired(text, numbers), WORDS, out, kind, (f"{name}j", text.index(first // 2)))
        text.line(f"scf.yield {out} : {kind}\n}}")
        return name

    def values(self, cache: str, most: str, length: str, words: str) -> str:
        """Two rows' whole numbers side by side [pairs of rows, width], in the place of the words given."""
        text, kind, name = self._text, self.value_words, self._text.fresh()
        inverse, zero, two = self._spread(self._levels(), most), text.index(0), text.index(2)
        text.line(f"{name} = scf.for {name}j = {zero} to {length} step {two} iter_args({name}o={words}) -> ({kind}) {{")
        rows = [self._row(f"{name}j"), self._row(text.value(f"arith.addi {name}j, {text.index(1)} : index"))]
        to, out = text.value(f"arith.divui {name}j, {two} : index"), f"{name}o"
        for at in range(0, self._width, LANES):
            numbers = [rounded(text, self._eight(cache, row, at), inverse) for row in rows]
            out = text.write(paired(text, numbers), WORDS, out, kind, (to, text.index(at)))
        text.line(f"scf.yield {out} : {kind}\n}}")
        return name

    def _levels(self) -> str:
        return self._text.constant(float(LEVELS), "f32")

    def _spread(self, one: str, other: str) -> str:
        """A quotient, repeated."""
        quotient = self._text.value(f"arith.divf {one}, {other} : f32")
        return self._text.value(f"vector.broadcast {quotient} : f32 to {EIGHT}")

    def _row(self, number: str) -> str:
        """Where a row of the block is in the cache."""
        text = self._text
        row, last = text.value(f"arith.addi %r, {number} : index"), text.index(self._cached - 1)
        return text.value(f"arith.minui {row}, {last} : index")

    def _eight(self, cache: str, row: str, at: int) -> str:
        half = self._text.read(cache, self._kind, (row, self._text.index(at)), "vector<8xf16>")
        return self._text.value(f"arith.extf {half} : vector<8xf16> to {EIGHT}")
