"""Turns queries and keys by their positions and writes keys and values into the cache, in place. Text only.

Rotary embedding of halves, https://arxiv.org/abs/2104.09864 as GPT-NeoX and Llama have it: (a, b) becomes
(a · cos - b · sin, b · cos + a · sin).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.compiler.kernels.text import Text, dispatch

# Halves of a head are read in vectors of these many numbers.
LANES: Final = 8


@dataclass(frozen=True, slots=True)
class RotaryCache:
    """Shape: rows f32 [tokens, (heads + 2 · kv_heads) · width], caches f16 [slots, kv_heads, rows, width]."""

    tokens: int
    heads: int
    width: int
    slots: int
    kv_heads: int
    rows: int

    @property
    def name(self) -> str:
        """Of its function."""
        cache = f"{self.slots}x{self.kv_heads}x{self.rows}"
        return f"tradewind_rotary_cache_{self.tokens}x{self.heads}x{self.width}_{cache}"

    @property
    def columns(self) -> int:
        """Numbers of a row."""
        return (self.heads + 2 * self.kv_heads) * self.width


def takes(width: int) -> bool:
    """Whether heads of this width are taken."""
    return width % (2 * LANES) == 0


def rotary_cache_kernel(shape: RotaryCache) -> str:
    """Function `shape.name`(rows, cosines, sines, slots, positions, keys, values) → queries, keys, values.

    Cosines and sines are f32 [tokens, width], slots and positions i64 [tokens], queries f32 [tokens, heads, width].
    """
    angles, numbers = f"tensor<{shape.tokens}x{shape.width}xf32>", f"tensor<{shape.tokens}xi64>"
    inputs = {"x": f"tensor<{shape.tokens}x{shape.columns}xf32>", "cos": angles, "sin": angles}
    inputs |= {"slots": numbers, "positions": numbers}
    cache = f"tensor<{shape.slots}x{shape.kv_heads}x{shape.rows}x{shape.width}xf16>"
    queries = f"tensor<{shape.tokens}x{shape.heads}x{shape.width}xf32>"
    body = _Row(shape, inputs).write(queries, cache)
    kept = {"k": cache, "v": cache}
    return dispatch(shape.name, inputs, {"q": queries}, (shape.tokens,), body, kept)


class _Row:
    """The dispatch under way: a workgroup for each token."""

    def __init__(self, shape: RotaryCache, inputs: dict[str, str]) -> None:
        self._shape, self._inputs, self._text = shape, inputs, Text()
        self._half = shape.width // 2
        self._some = f"vector<{LANES}xf32>"
        self._row_type = f"tensor<1x{shape.columns}xf32>"
        self._angles_type = f"tensor<1x{shape.width}xf32>"

    def write(self, queries: str, cache: str) -> Text:
        shape, text = self._shape, self._text
        zero = text.index(0)
        row = text.load("%x", self._inputs["x"], ("%wg0", zero), (1, shape.columns), self._row_type)
        cos, sin = (
            text.load(f"%{key}", self._inputs[key], ("%wg0", zero), (1, shape.width), self._angles_type)
            for key in ("cos", "sin")
        )
        slot, position = self._number("slots"), self._number("positions")
        parts = (
            (0, shape.heads, True, "f32"),
            (shape.heads, shape.kv_heads, True, "f16"),
            (shape.heads + shape.kv_heads, shape.kv_heads, False, "f16"),
        )
        turned = [self._heads(row, (cos, sin), *part) for part in parts]
        kinds = [f"tensor<{heads}x{shape.width}x{element}>" for _, heads, _, element in parts]
        text.store(turned[0], kinds[0], "%q", queries, ("%wg0", zero, zero), (1, shape.heads, shape.width))
        for key, value, kind in zip("kv", turned[1:], kinds[1:], strict=True):
            place, size = (slot, zero, position, zero), (1, shape.kv_heads, 1, shape.width)
            text.store(value, kind, f"%{key}", cache, place, size, "readwrite")
        return text

    def _number(self, which: str) -> str:
        text, kind = self._text, self._inputs[which]
        tensor = text.load(f"%{which}", kind, (text.index(0),), (self._shape.tokens,), kind)
        number = text.value(f"tensor.extract {tensor}[%wg0] : {kind}")
        return text.value(f"arith.index_cast {number} : i64 to index")

    def _heads(self, row: str, angles: tuple[str, str], first: int, count: int, turns: bool, element: str) -> str:
        """Loops over heads of one part of the row: [count, width]."""
        text, width, name = self._text, self._shape.width, f"%h{first}"
        kind = f"tensor<{count}x{width}x{element}>"
        begun = text.value(f"tensor.empty() : {kind}")
        zero, last, one = text.index(0), text.index(count), text.index(1)
        text.line(f"{name} = scf.for {name}i = {zero} to {last} step {one} iter_args({name}o={begun}) -> ({kind}) {{")
        head = text.value(f"arith.addi {name}i, {text.index(first)} : index")
        column, out = text.value(f"arith.muli {head}, {text.index(width)} : index"), f"{name}o"
        for at in range(0, self._half, LANES):
            low, high = (self._read(row, self._row_type, column, start) for start in (at, at + self._half))
            if turns:
                low, high = self._turned(low, high, angles, at)
            for start, value in ((at, low), (at + self._half, high)):
                vector = self._some
                if element == "f16":
                    vector = f"vector<{LANES}xf16>"
                    value = text.value(f"arith.truncf {value} : {self._some} to {vector}")
                out = text.write(value, vector, out, kind, (f"{name}i", text.index(start)))
        text.line(f"scf.yield {out} : {kind}\n}}")
        return name

    def _turned(self, low: str, high: str, angles: tuple[str, str], at: int) -> tuple[str, str]:
        text, made, zero = self._text, [], self._text.index(0)
        for one, other, start, operation in ((low, high, at, "subf"), (high, low, at + self._half, "addf")):
            cos, sin = (self._read(angle, self._angles_type, zero, start) for angle in angles)
            ahead, aside = (text.value(f"arith.mulf {a}, {b} : {self._some}") for a, b in ((one, cos), (other, sin)))
            made.append(text.value(f"arith.{operation} {ahead}, {aside} : {self._some}"))
        return made[0], made[1]

    def _read(self, source: str, kind: str, column: str, start: int) -> str:
        text = self._text
        at = text.value(f"arith.addi {column}, {text.index(start)} : index")
        return text.read(source, kind, (text.index(0), at), self._some)
