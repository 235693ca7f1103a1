"""Attention over the rows of a cache that are written, and no others. Text only.

Keys and values lie in f16, the rows of a head one behind the other: a call of a few tokens waits for memory.
Softmax is taken as rows pass by (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867), so that scratch does
not grow with the context, and what a call costs follows what is in the cache, not what would fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import e, log2
from typing import Final

from services.compiler.kernels.exponential import larger, power_of_two
from services.compiler.kernels.formats import GROUP, Format
from services.compiler.kernels.prompt_attention import PromptAttention, tokens_together
from services.compiler.kernels.rounding import round_rows, rounded_types
from services.compiler.kernels.rows import RowReader, Rows
from services.compiler.kernels.text import MOST_WORKGROUPS, Text, dispatch, equal_shares

LANES: Final = 8
# Rows that pass by together.
_ROWS: Final = 32
# Lanes of values that are summed in one pass: with 3 query heads on a KV head, 12 of 16 registers.
_CHUNK: Final = 32
_ABSENT: Final = -1e30
# Rows of a block whose values are added together.
_PAIR: Final = 2
# Rows of a block and heads whose products with keys are summed together: 12 of 16 registers.
_TOGETHER: Final = 4
_HEADS: Final = 3
_EIGHT: Final = "vector<8xf32>"
_FOUR: Final = "vector<4xf32>"
_WORDS: Final = "vector<8xi32>"


@dataclass(frozen=True, slots=True)
class Attention:
    """Shape: queries f32 [tokens, heads, width], caches f16 [slots, kv_heads, rows, width].

    Tokens that `follows` says so of follow each other in one slot. With a format to be rounded for, the result is what
    `rounding` makes of it, numbers [tokens, heads, width] and the others [tokens, heads, width / 32].
    """

    tokens: int
    heads: int
    width: int
    slots: int
    rows: int
    kv_heads: int
    scale: float
    follows: bool = False
    rounded: Format | None = None

    @property
    def name(self) -> str:
        """Of its function."""
        shape = f"{self.tokens}x{self.heads}x{self.width}_{self.slots}x{self.kv_heads}x{self.rows}"
        kind = "attend_prompt" if self.follows else f"attend_{self.rounded.name}" if self.rounded else "attend"
        return f"tradewind_{kind}_{shape}_{self.scale.hex().replace('.', '_').replace('-', 'm')}".replace("+", "")

    @property
    def results(self) -> dict[str, str]:
        """Types of what its function gives."""
        places = f"tensor<{self.tokens}x{self.heads}x"
        if self.rounded is None:
            return {"o": f"{places}{self.width}xf32>"}
        groups = f"{places}{self.width // GROUP}xf32>"
        return {"oq": f"{places}{self.width}x{self.rounded.activation}>", "oa": groups, "ob": groups}

    @property
    def group(self) -> int:
        """Query heads on one KV head."""
        return self.heads // self.kv_heads


def attention_kernel(shape: Attention) -> str:
    """Function `shape.name`(queries, keys, values, slots i64 [tokens], positions i64 [tokens]) → `shape.results`.

    Token t sees rows up to and with positions[t] of slots[t]; of tokens that follow each other the first's are read.
    """
    queries = f"tensor<{shape.tokens}x{shape.heads}x{shape.width}xf32>"
    cache = f"tensor<{shape.slots}x{shape.kv_heads}x{shape.rows}x{shape.width}xf16>"
    whole = f"tensor<{shape.tokens}xi64>"
    inputs = {"q": queries, "k": cache, "v": cache, "slots": whole, "positions": whole}
    if tokens_together(shape):
        return PromptAttention(shape, (queries, cache, whole)).kernel()
    shares = equal_shares(shape.tokens, MOST_WORKGROUPS // shape.kv_heads)
    body = _Attend(shape, queries, cache, whole).write(shares)
    return dispatch(shape.name, inputs, shape.results, (shares, shape.kv_heads), body)


class _Attend:
    """The dispatch under way: a workgroup for each KV head and some tokens, of which none waits for another."""

    def __init__(self, shape: Attention, queries: str, cache: str, numbers: str) -> None:
        self._shape, self._text = shape, Text()
        self._queries, self._cache, self._numbers = queries, cache, numbers
        self._mine = f"tensor<{shape.group}x{shape.width}xf32>"
        self._rows_type = f"tensor<{shape.rows}x{shape.width}xf16>"
        self._scores_type = f"tensor<{shape.group}x{_ROWS}xf32>"

    def write(self, shares: int) -> Text:
        text = self._text
        if shares == self._shape.tokens:
            self._attend("%wg0")
            return text
        tokens, step = text.index(self._shape.tokens), text.index(shares)
        text.line(f"scf.for %tk = %wg0 to {tokens} step {step} {{")
        self._attend("%tk")
        text.line("}")
        return text

    def _attend(self, token: str) -> None:
        shape, text, group = self._shape, self._text, self._shape.group
        zero = text.index(0)
        head = text.value(f"arith.muli %wg1, {text.index(group)} : index")
        part = (1, group, shape.width)
        queries = text.load("%q", self._queries, (token, head, zero), part, self._mine)
        slot, position = self._number("slots", token), self._number("positions", token)
        rows = (1, 1, shape.rows, shape.width)
        keys, values = (
            text.load(f"%{key}", self._cache, (slot, "%wg1", zero, zero), rows, self._rows_type) for key in "kv"
        )
        count = text.value(f"arith.addi {position}, {text.index(1)} : index")
        out = self._divide(*self._blocks(queries, keys, values, count))
        self._store(out, token, head)

    def _store(self, out: str, token: str, head: str) -> None:
        shape, text, group = self._shape, self._text, self._shape.group
        made: tuple[str, ...] = (out,)
        kinds: tuple[str, ...] = (self._mine,)
        if shape.rounded:
            reader = RowReader(text, Rows(group, shape.width), out, group, "")
            made = round_rows(text, shape.rounded, reader, group, shape.width)
            kinds = rounded_types(shape.rounded, group, shape.width)
        sizes = (shape.width, shape.width // GROUP, shape.width // GROUP)
        for (key, whole), value, kind, size in zip(shape.results.items(), made, kinds, sizes, strict=False):
            text.store(value, kind, f"%{key}", whole, (token, head, text.index(0)), (1, group, size))

    def _number(self, which: str, token: str) -> str:
        text = self._text
        tensor = text.load(f"%{which}", self._numbers, (text.index(0),), (self._shape.tokens,), self._numbers)
        number = text.value(f"tensor.extract {tensor}[{token}] : {self._numbers}")
        return text.value(f"arith.index_cast {number} : i64 to index")

    def _blocks(self, queries: str, keys: str, values: str, count: str) -> tuple[str, list[str]]:
        """Loops over blocks of rows: sums of weighted values [group, width], and eight parts of each head's weights."""
        text, group = self._text, self._shape.group
        scores = text.value(f"tensor.empty() : {self._scores_type}")
        kinds = ",".join([self._mine, self._scores_type, *[_EIGHT] * (2 * group)])
        absent, none = text.constant(_ABSENT, _EIGHT), text.constant(0.0, _EIGHT)
        started = [f"%acc={self._zeros()}", f"%sc={scores}"]
        started += [f"%top{h}={absent}" for h in range(group)] + [f"%sum{h}={none}" for h in range(group)]
        zero, rows = text.index(0), text.index(_ROWS)
        text.line(f"%b:{2 + 2 * group} = scf.for %r = {zero} to {count} step {rows} iter_args({','.join(started)})")
        text.line(f"-> ({kinds}) {{")
        left = text.value(f"arith.subi {count}, %r : index")
        length = text.value(f"arith.minui {left}, {rows} : index")
        scores = "%sc"
        for first in range(0, group, _HEADS):
            scores = self._scores(queries, keys, length, scores, range(first, min(first + _HEADS, group)))
        scores, tops, sums, fades = self._weights(scores, length)
        acc = self._values(values, scores, length, fades)
        text.line(f"scf.yield {','.join((acc, scores, *tops, *sums))} : {kinds}\n}}")
        return "%b#0", [f"%b#{2 + group + h}" for h in range(group)]

    def _zeros(self) -> str:
        text = self._text
        out, zero = text.value(f"tensor.empty() : {self._mine}"), text.constant(0.0, _EIGHT)
        for head in range(self._shape.group):
            for at in range(0, self._shape.width, LANES):
                out = text.write(zero, _EIGHT, out, self._mine, (text.index(head), text.index(at)))
        return out

    def _scores(self, queries: str, keys: str, length: str, scores: str, heads: range) -> str:
        """Scaled products of some queries and a block of keys: [group, rows of a block], some behind its length too."""
        text, shape, name = self._text, self._shape, f"%s{heads.start}"
        zero, step = text.index(0), text.index(_TOGETHER)
        text.line(f"{name} = scf.for %j = {zero} to {length} step {step} iter_args({name}o={scores})")
        text.line(f"-> ({self._scores_type}) {{")
        places = self._places(_TOGETHER)
        sums = {head: ["" for _ in places] for head in heads}
        for at in range(0, shape.width, LANES):
            query = {head: text.read(queries, self._mine, (text.index(head), text.index(at)), _EIGHT) for head in heads}
            for i, (_, row) in enumerate(places):
                key = self._cached(keys, row, at)
                for head in heads:
                    known = sums[head][i]
                    made = f"math.fma {query[head]}, {key}, {known}" if known else f"arith.mulf {query[head]}, {key}"
                    sums[head][i] = text.value(f"{made} : {_EIGHT}")
        # Powers are of two.
        out, scale = f"{name}o", text.constant(shape.scale * log2(e), _FOUR)
        for head in heads:
            score = text.value(f"arith.mulf {_four_sums(text, sums[head])}, {scale} : {_FOUR}")
            out = text.write(score, _FOUR, out, self._scores_type, (text.index(head), "%j"))
        text.line(f"scf.yield {out} : {self._scores_type}\n}}")
        return name

    def _places(self, count: int) -> list[tuple[str, str]]:
        """Columns of the block and rows of the cache from %j on; the last row stands for those past it."""
        text, places = self._text, []
        last = text.index(self._shape.rows - 1)
        for i in range(count):
            column = text.value(f"arith.addi %j, {text.index(i)} : index")
            row = text.value(f"arith.addi %r, {column} : index")
            places.append((column, text.value(f"arith.minui {row}, {last} : index")))
        return places

    def _cached(self, rows: str, row: str, at: int) -> str:
        half = self._text.read(rows, self._rows_type, (row, self._text.index(at)), "vector<8xf16>")
        return self._text.value(f"arith.extf {half} : vector<8xf16> to {_EIGHT}")

    def _weights(self, scores: str, length: str) -> tuple[str, list[str], list[str], list[str]]:
        """Powers in place of scores; new maxima, sums, and by what older sums fade, eight of the same each."""
        text, tops, sums, fades = self._text, [], [], []
        there = self._there(length)
        for head in range(self._shape.group):
            places = [(text.index(head), text.index(at)) for at in range(0, _ROWS, LANES)]
            read = [text.read(scores, self._scores_type, place, _EIGHT) for place in places]
            absent = text.constant(_ABSENT, _EIGHT)
            some = [
                text.value(f"arith.select {mask}, {score}, {absent} : vector<8xi1>, {_EIGHT}")
                for mask, score in zip(there, read, strict=True)
            ]
            top = self._top(some, f"%top{head}")
            fade = power_of_two(text, text.value(f"arith.subf %top{head}, {top} : {_EIGHT}"))
            total = text.value(f"arith.mulf %sum{head}, {fade} : {_EIGHT}")
            for score, place in zip(some, places, strict=True):
                weight = power_of_two(text, text.value(f"arith.subf {score}, {top} : {_EIGHT}"))
                scores = text.write(weight, _EIGHT, scores, self._scores_type, place)
                total = text.value(f"arith.addf {total}, {weight} : {_EIGHT}")
            tops.append(top)
            sums.append(total)
            fades.append(fade)
        return scores, tops, sums, fades

    def _there(self, length: str) -> list[str]:
        """Which columns of a block are before its end."""
        text, masks = self._text, []
        end = text.value(
            f"vector.broadcast {text.value(f'arith.index_cast {length} : index to i32')} : i32 to {_WORDS}"
        )
        for at in range(0, _ROWS, LANES):
            columns = ",".join(str(at + lane) for lane in range(LANES))
            own = text.value(f"arith.constant dense<[{columns}]> : {_WORDS}")
            masks.append(text.value(f"arith.cmpi slt, {own}, {end} : {_WORDS}"))
        return masks

    def _top(self, scores: list[str], known: str) -> str:
        """The largest of some and of what was known."""
        text, most = self._text, scores[0]
        for other in scores[1:]:
            most = larger(text, most, other)
        for order in ("4,5,6,7,0,1,2,3", "2,3,0,1,6,7,4,5", "1,0,3,2,5,4,7,6"):
            turned = text.value(f"vector.shuffle {most}, {most} [{order}] : {_EIGHT}, {_EIGHT}")
            most = larger(text, most, turned)
        return larger(text, known, most)

    def _values(self, values: str, scores: str, length: str, fades: list[str]) -> str:
        """Weighted values of a block added to the faded sums."""
        text, shape, out = self._text, self._shape, "%acc"
        for start in range(0, shape.width, _CHUNK):
            places = [
                (text.index(head), text.index(at))
                for head in range(shape.group)
                for at in range(start, min(start + _CHUNK, shape.width), LANES)
            ]
            per_head = len(places) // shape.group
            old = [text.read(out, self._mine, place, _EIGHT) for place in places]
            faded = [text.value(f"arith.mulf {v}, {fades[i // per_head]} : {_EIGHT}") for i, v in enumerate(old)]
            summed = self._sum_rows(values, scores, length, start, per_head, faded)
            for total, place in zip(summed, places, strict=True):
                out = text.write(total, _EIGHT, out, self._mine, place)
        return out

    def _sum_rows(
        self, values: str, scores: str, length: str, start: int, per_head: int, begun: list[str]
    ) -> list[str]:
        text, shape = self._text, self._shape
        kinds = ",".join([_EIGHT] * len(begun))
        names = [f"%a{start}_{i}" for i in range(len(begun))]
        zero, step, made = text.index(0), text.index(_PAIR), f"%w{start}"
        begins = ",".join(f"{name}={value}" for name, value in zip(names, begun, strict=True))
        head = made if len(begun) == 1 else f"{made}:{len(begun)}"
        text.line(f"{head} = scf.for %j = {zero} to {length} step {step} iter_args({begins}) -> ({kinds}) {{")
        ends = list(names)
        # Weights behind the block's length are 0.
        for column, row in self._places(_PAIR):
            value = [self._cached(values, row, start + LANES * i) for i in range(per_head)]
            for query in range(shape.group):
                weight = text.value(f"tensor.extract {scores}[{text.index(query)},{column}] : {self._scores_type}")
                wide = text.value(f"vector.broadcast {weight} : f32 to {_EIGHT}")
                for i in range(per_head):
                    at = query * per_head + i
                    ends[at] = text.value(f"math.fma {wide}, {value[i]}, {ends[at]} : {_EIGHT}")
        text.line(f"scf.yield {','.join(ends)} : {kinds}\n}}")
        return [made] if len(begun) == 1 else [f"{made}#{i}" for i in range(len(begun))]

    def _divide(self, acc: str, sums: list[str]) -> str:
        text, out = self._text, acc
        one = text.constant(1.0, "f32")
        for head, total in enumerate(sums):
            whole = text.value(f"vector.reduction <add>, {total} : {_EIGHT} into f32")
            inverse = text.value(f"arith.divf {one}, {whole} : f32")
            spread = text.value(f"vector.broadcast {inverse} : f32 to {_EIGHT}")
            for at in range(0, self._shape.width, LANES):
                place = (text.index(head), text.index(at))
                value = text.read(out, self._mine, place, _EIGHT)
                scaled = text.value(f"arith.mulf {value}, {spread} : {_EIGHT}")
                out = text.write(scaled, _EIGHT, out, self._mine, place)
        return out


def _four_sums(text: Text, vectors: list[str]) -> str:
    """The sums of four vectors of eight, as one of four."""
    pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
    first, second = (_added_halves(text, pair, ("0,8,1,9,4,12,5,13", "2,10,3,11,6,14,7,15")) for pair in pairs)
    both = _added_halves(text, (first, second), ("0,1,8,9,4,5,12,13", "2,3,10,11,6,7,14,15"))
    low, high = (
        text.value(f"vector.shuffle {both}, {both} [{order}] : {_EIGHT}, {_EIGHT}") for order in ("0,1,2,3", "4,5,6,7")
    )
    return text.value(f"arith.addf {low}, {high} : {_FOUR}")


def _added_halves(text: Text, pair: tuple[str, str], orders: tuple[str, str]) -> str:
    parts = [text.value(f"vector.shuffle {pair[0]}, {pair[1]} [{order}] : {_EIGHT}, {_EIGHT}") for order in orders]
    return text.value(f"arith.addf {parts[0]}, {parts[1]} : {_EIGHT}")
