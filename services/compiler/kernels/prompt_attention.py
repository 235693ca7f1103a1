"""Attention of tokens that follow each other in one slot: some tokens together, their queries in the lanes. Text only.

A workgroup takes the query heads of some tokens on one KV head. Keys and values of a block of rows are rounded once for
all of them; scores, softmax and sums never go across lanes. Softmax is taken as blocks pass by, as in `attention`.

Both products are of whole numbers of at most 13 bits: two and their sum are one instruction, which AVX2 has twice as
wide as those of single precision. What a number is rounded by goes by the largest of its block of rows, or of its
query, and so is about what f16, which the cache holds, loses of such a number.
"""

from __future__ import annotations

from math import e, log2
from typing import TYPE_CHECKING, Final

from services.compiler.kernels.cached_block import CachedBlock
from services.compiler.kernels.exponential import larger, power_of_two
from services.compiler.kernels.text import MOST_WORKGROUPS, Text, dispatch, equal_shares
from services.compiler.kernels.whole_numbers import (
    LEVELS,
    as_pairs,
    levels_of,
    multiplied,
    nearest,
    paired,
    pairs_of,
    rounded,
)

if TYPE_CHECKING:
    from services.compiler.kernels.attention import Attention

_LANES: Final = 8
# Rows that pass by together.
_ROWS: Final = 32
# Rows, or places in the width, and vectors of queries whose sums are in registers. Of 4 x 3 LLVM keeps some on a stack.
_STEP: Final = 4
_WIDTH: Final = 2
# Written out in the innermost loop.
_PAIRS_AT_ONCE: Final = 2
# Of a workgroup. The more, the less often rows are rounded.
_MOST_QUERIES: Final = 48
# IREE refuses dispatches with more than 32 KiB on their stack, and it is what L1 holds.
_SCRATCH_BYTES: Final = 30 << 10
_ABSENT: Final = -1e30
# Queries of zeros need a scale too.
_LEAST: Final = 1e-30
_EIGHT: Final = "vector<8xf32>"
_WORDS: Final = "vector<8xi32>"


def tokens_together(shape: Attention) -> int:
    """Tokens of a workgroup; 0 when this kernel does not take the shape."""
    if not shape.follows or shape.width % _LANES or shape.width < 2 * _LANES:
        return 0
    fitting = (n for n in range(_MOST_QUERIES // shape.group, 0, -1) if shape.tokens % n == 0)
    return next((n for n in fitting if n * shape.group % _LANES == 0 and _scratch(shape, n) <= _SCRATCH_BYTES), 0)


def _scratch(shape: Attention, tokens: int) -> int:
    """Bytes on the stack: queries and sums, a block of keys and one of values, its scores and weights."""
    queries, pairs = tokens * shape.group, pairs_of(shape.width)
    words = queries * (pairs + shape.width) + _ROWS * pairs + _ROWS // 2 * shape.width
    return 4 * (words + min(queries, _WIDTH * _LANES) * (_ROWS + _ROWS // 2))


class PromptAttention:
    """The dispatch under way.

    Args:
        shape: `tokens_together` of it is not 0.
        kinds: types of queries, of the cache and of whole numbers for each token.
    """

    def __init__(self, shape: Attention, kinds: tuple[str, str, str]) -> None:
        """Writes nothing yet."""
        self._shape, self._text = shape, Text()
        self._queries, self._cache, self._numbers = kinds
        self._tokens = tokens_together(shape)
        queries = self._tokens * shape.group
        self._vectors = range(queries // _LANES)
        self._parts = [self._vectors[first : first + _WIDTH] for first in self._vectors[::_WIDTH]]
        together = len(self._parts[0]) * _LANES
        self._mine = f"tensor<{self._tokens}x{shape.group}x{shape.width}xf32>"
        self._turned = f"tensor<{shape.width}x{queries}xf32>"
        self._query_words = f"tensor<{pairs_of(shape.width)}x{queries}xi32>"
        self._block = CachedBlock(self._text, shape.rows, shape.width, _ROWS)
        self._weight_words = f"tensor<{_ROWS // 2}x{together}xi32>"
        self._scores_type = f"tensor<{_ROWS}x{together}xf32>"
        self._rows_type = f"tensor<{shape.rows}x{shape.width}xf16>"

    def kernel(self) -> str:
        """Its function, as `attention_kernel` describes it."""
        inputs = {"q": self._queries, "k": self._cache, "v": self._cache}
        inputs |= {"slots": self._numbers, "positions": self._numbers}
        kv_heads, pieces = self._shape.kv_heads, self._shape.tokens // self._tokens
        shares = equal_shares(pieces, MOST_WORKGROUPS // kv_heads)
        return dispatch(self._shape.name, inputs, {"o": self._queries}, (shares, kv_heads), self._write(pieces, shares))

    def _write(self, pieces: int, shares: int) -> Text:
        """Loops over pieces, there and back: each workgroup has early tokens, which see few rows, and late ones."""
        text = self._text
        zero, one, turns = text.index(0), text.index(1), text.index(pieces // shares)
        text.line(f"scf.for %turn = {zero} to {turns} step {one} {{")
        back = text.value(f"arith.remui %turn, {text.index(2)} : index")
        last = text.value(f"arith.subi {text.index(shares - 1)}, %wg0 : index")
        is_back = text.value(f"arith.cmpi eq, {back}, {one} : index")
        place = text.value(f"arith.select {is_back}, {last}, %wg0 : index")
        before = text.value(f"arith.muli %turn, {text.index(shares)} : index")
        self._piece(text.value(f"arith.addi {before}, {place} : index"))
        text.line("}")
        return text

    def _piece(self, number: str) -> None:
        shape, text = self._shape, self._text
        zero = text.index(0)
        first = text.value(f"arith.muli {number}, {text.index(self._tokens)} : index")
        head = text.value(f"arith.muli %wg1, {text.index(shape.group)} : index")
        place, size = (first, head, zero), (self._tokens, shape.group, shape.width)
        turned = self._turn(text.load("%q", self._queries, place, size, self._mine))
        queries = self._round_queries(turned)
        slot, position = self._number("slots", zero), self._number("positions", first)
        rows = (1, 1, shape.rows, shape.width)
        keys, values = (
            text.load(f"%{key}", self._cache, (slot, "%wg1", zero, zero), rows, self._rows_type) for key in "kv"
        )
        out = self._turn_back(*self._blocks(queries, turned, (keys, values), position))
        text.store(out, self._mine, "%o", self._queries, place, size)

    def _number(self, which: str, at: str) -> str:
        text = self._text
        tensor = text.load(f"%{which}", self._numbers, (text.index(0),), (self._shape.tokens,), self._numbers)
        number = text.value(f"tensor.extract {tensor}[{at}] : {self._numbers}")
        return text.value(f"arith.index_cast {number} : i64 to index")

    def _turn(self, queries: str) -> str:
        """Queries with a width's numbers of all of them side by side: [width, queries]."""
        text = self._text
        empty, zero = text.value(f"tensor.empty() : {self._turned}"), text.index(0)
        last, step = text.index(self._shape.width), text.index(_LANES)
        text.line(f"%qt = scf.for %d = {zero} to {last} step {step} iter_args(%q0={empty}) -> ({self._turned}) {{")
        out = "%q0"
        for vector in self._vectors:
            square = [text.read(queries, self._mine, (*self._query(vector, i), "%d"), _EIGHT) for i in range(_LANES)]
            for i, column in enumerate(_transposed(text, square)):
                row = text.value(f"arith.addi %d, {text.index(i)} : index")
                out = self._put(column, out, self._turned, row, vector)
        text.line(f"scf.yield {out} : {self._turned}\n}}")
        return "%qt"

    def _query(self, vector: int, lane: int) -> tuple[str, str]:
        """Token and head of a lane."""
        token, head = divmod(vector * _LANES + lane, self._shape.group)
        return self._text.index(token), self._text.index(head)

    def _round_queries(self, turned: str) -> tuple[str, list[str]]:
        """Queries as pairs of whole numbers [pairs, queries], and what products of these are multiplied by."""
        text, shape = self._text, self._shape
        zero, one, width = text.index(0), text.index(1), text.index(shape.width)
        kinds, least = ",".join([_EIGHT] * len(self._vectors)), text.constant(_LEAST, _EIGHT)
        begun = ",".join(f"%qm{v}={least}" for v in self._vectors)
        text.line(f"{_named('%qx', len(self._vectors))} = scf.for %d = {zero} to {width} step {one}")
        text.line(f"iter_args({begun}) -> ({kinds}) {{")
        ends = []
        for v in self._vectors:
            size = text.value(f"math.absf {self._eight(turned, self._turned, '%d', v)} : {_EIGHT}")
            ends.append(larger(text, f"%qm{v}", size))
        text.line(f"scf.yield {','.join(ends)} : {kinds}\n}}")
        most = _parts("%qx", len(self._vectors))
        levels = text.constant(float(levels_of(shape.width)), _EIGHT)
        inverses = [text.value(f"arith.divf {levels}, {some} : {_EIGHT}") for some in most]
        # Powers are of two.
        scale = text.constant(shape.scale * log2(e) / levels_of(shape.width), _EIGHT)
        factors = [text.value(f"arith.mulf {some}, {scale} : {_EIGHT}") for some in most]
        words = text.value(f"tensor.empty() : {self._query_words}")
        for first in range(0, shape.width, 2 * _LANES):
            words = self._pair_queries(turned, words, inverses, first)
        return words, factors

    def _pair_queries(self, turned: str, words: str, inverses: list[str], first: int) -> str:
        """The words of a pair of eights of a width's numbers."""
        text, name = self._text, f"%qw{first}"
        zero, one, last = text.index(0), text.index(1), text.index(_LANES)
        text.line(
            f"{name} = scf.for %d = {zero} to {last} step {one} iter_args(%qo={words}) -> ({self._query_words}) {{"
        )
        out, to = "%qo", text.value(f"arith.addi %d, {text.index(first // 2)} : index")
        for v in self._vectors:
            numbers = []
            for at in range(first, min(first + 2 * _LANES, self._shape.width), _LANES):
                row = text.value(f"arith.addi %d, {text.index(at)} : index")
                numbers.append(rounded(text, self._eight(turned, self._turned, row, v), inverses[v]))
            out = text.write(paired(text, numbers), _WORDS, out, self._query_words, (to, text.index(v * _LANES)))
        text.line(f"scf.yield {out} : {self._query_words}\n}}")
        return name

    def _blocks(
        self, queries: tuple[str, list[str]], turned: str, cached: tuple[str, str], position: str
    ) -> tuple[str, list[str]]:
        """Loops over blocks of rows: sums of weighted values [width, queries], and sums of weights."""
        text = self._text
        count = text.value(f"arith.addi {position}, {text.index(self._tokens)} : index")
        absent, none = text.constant(_ABSENT, _EIGHT), text.constant(0.0, _EIGHT)
        buffers = [self._block.key_words, self._block.value_words, self._scores_type, self._weight_words]
        empty = [text.value(f"tensor.empty() : {kind}") for kind in buffers]
        names = ("%kw", "%vw", "%sc", "%ww")
        begun = [f"%acc={self._zeros(turned)}", *(f"{n}={e}" for n, e in zip(names, empty, strict=True))]
        begun += [f"%top{v}={absent}" for v in self._vectors] + [f"%sum{v}={none}" for v in self._vectors]
        vectors = len(self._vectors)
        kinds = ",".join([self._turned, *buffers, *[_EIGHT] * (2 * vectors)])
        zero, rows = text.index(0), text.index(_ROWS)
        text.line(f"%b:{5 + 2 * vectors} = scf.for %r = {zero} to {count} step {rows} iter_args({','.join(begun)})")
        text.line(f"-> ({kinds}) {{")
        left = text.value(f"arith.subi {count}, %r : index")
        there = text.value(f"arith.minui {left}, {rows} : index")
        step = text.index(_STEP)
        length = text.value(f"arith.muli {text.value(f'arith.ceildivui {there}, {step} : index')}, {step} : index")
        sizes = [self._block.largest(rows, there) for rows in cached]
        keys = self._block.keys(cached[0], sizes[0], length, "%kw")
        values = self._block.values(cached[1], sizes[1], length, "%vw")
        acc, scores, weights, tops, sums = "%acc", "%sc", "%ww", [], []
        factors = [self._block.factor(most) for most in sizes]
        for part in self._parts:
            of_keys = {v: text.value(f"arith.mulf {queries[1][v]}, {factors[0]} : {_EIGHT}") for v in part}
            scores, mine = self._scores(queries[0], keys, scores, of_keys, length, position)
            weights, made = self._weights(scores, weights, length, mine)
            fades, of_values = {}, {}
            for v in part:
                top = larger(text, f"%top{v}", mine[v])
                fades[v], own = (
                    power_of_two(text, text.value(f"arith.subf {some}, {top} : {_EIGHT}"))
                    for some in (f"%top{v}", mine[v])
                )
                faded = text.value(f"arith.mulf %sum{v}, {fades[v]} : {_EIGHT}")
                sums.append(text.value(f"math.fma {made[v]}, {own}, {faded} : {_EIGHT}"))
                of_values[v] = text.value(f"arith.mulf {own}, {factors[1]} : {_EIGHT}")
                tops.append(top)
            acc = self._values(values, weights, acc, length, fades, of_values)
        text.line(f"scf.yield {','.join((acc, keys, values, scores, weights, *tops, *sums))} : {kinds}\n}}")
        return "%b#0", [f"%b#{5 + vectors + v}" for v in self._vectors]

    def _zeros(self, turned: str) -> str:
        """Zeros in the place of the queries."""
        text = self._text
        nothing = text.constant(0.0, _EIGHT)
        zero, one, last = text.index(0), text.index(1), text.index(self._shape.width)
        text.line(f"%zt = scf.for %d = {zero} to {last} step {one} iter_args(%z0={turned}) -> ({self._turned}) {{")
        out = "%z0"
        for vector in self._vectors:
            out = self._put(nothing, out, self._turned, "%d", vector)
        text.line(f"scf.yield {out} : {self._turned}\n}}")
        return "%zt"

    def _scores(
        self, queries: str, keys: str, scores: str, factors: dict[int, str], length: str, position: str
    ) -> tuple[str, dict[int, str]]:
        """Products of queries and a block of keys, absent where a token does not see the row; the largest of each."""
        text, name = self._text, self._text.fresh()
        kinds, absent = ",".join([self._scores_type, *[_EIGHT] * len(factors)]), text.constant(_ABSENT, _EIGHT)
        begun = ",".join([f"{name}o={scores}", *(f"{name}m{v}={absent}" for v in factors)])
        zero, step, row = text.index(0), text.index(_STEP), f"{name}j"
        text.line(f"{name}:{1 + len(factors)} = scf.for {row} = {zero} to {length} step {step} iter_args({begun})")
        text.line(f"-> ({kinds}) {{")
        rows = [text.value(f"arith.addi {row}, {text.index(i)} : index") for i in range(_STEP)]
        places = [(f"{number},{{}}", v) for number in rows for v in factors]
        count = text.index(pairs_of(self._shape.width))
        sums = self._products(count, places, (keys, self._block.key_words), (queries, self._query_words))
        out, tops = f"{name}o", {v: f"{name}m{v}" for v in factors}
        for i, number in enumerate(rows):
            for at, v in enumerate(factors):
                real = text.value(f"arith.sitofp {sums[i * len(factors) + at]} : {_WORDS} to {_EIGHT}")
                seen = self._seen(number, position, v, text.value(f"arith.mulf {real}, {factors[v]} : {_EIGHT}"))
                out = self._put(seen, out, self._scores_type, number, at)
                tops[v] = larger(text, tops[v], seen)
        text.line(f"scf.yield {','.join((out, *tops.values()))} : {kinds}\n}}")
        return f"{name}#0", {v: f"{name}#{1 + at}" for at, v in enumerate(factors)}

    def _seen(self, column: str, position: str, vector: int, score: str) -> str:
        """Scores of a row, absent for tokens before it."""
        text = self._text
        row = text.value(f"arith.addi %r, {column} : index")
        ahead = text.value(f"arith.index_cast {text.value(f'arith.subi {row}, {position} : index')} : index to i32")
        spread = text.value(f"vector.broadcast {ahead} : i32 to {_WORDS}")
        tokens = ",".join(str((vector * _LANES + lane) // self._shape.group) for lane in range(_LANES))
        own = text.value(f"arith.constant dense<[{tokens}]> : {_WORDS}")
        seen = text.value(f"arith.cmpi sle, {spread}, {own} : {_WORDS}")
        return text.value(f"arith.select {seen}, {score}, {text.constant(_ABSENT, _EIGHT)} : vector<8xi1>, {_EIGHT}")

    def _products(
        self, count: str, places: list[tuple[str, int]], spread: tuple[str, str], vectors: tuple[str, str]
    ) -> list[str]:
        """Loops over pairs: words of one tensor, repeated, times vectors of queries of the other, added up.

        Args:
            count: of pairs.
            places: where a sum's words are in the one tensor, {} for the pair, and which vector of the other it is of.
            spread: the one tensor, and its type.
            vectors: the other, [pairs, queries], and its type.
        """
        text, name = self._text, self._text.fresh()
        kinds, nothing = ",".join([_WORDS] * len(places)), text.value(f"arith.constant dense<0> : {_WORDS}")
        ends = [f"{name}{i}" for i in range(len(places))]
        zero, step = text.index(0), text.index(_PAIRS_AT_ONCE)
        text.line(f"{_named(name, len(places))} = scf.for {name}x = {zero} to {count} step {step}")
        text.line(f"iter_args({','.join(f'{end}={nothing}' for end in ends)}) -> ({kinds}) {{")
        for part in range(_PAIRS_AT_ONCE):
            pair = text.value(f"arith.addi {name}x, {text.index(part)} : index")
            read: dict[int, str] = {}
            words: dict[str, str] = {}
            for i, (place, v) in enumerate(places):
                if v not in read:
                    read[v] = as_pairs(text, text.read(*vectors, (pair, text.index(v * _LANES)), _WORDS))
                if place not in words:
                    number = text.value(f"tensor.extract {spread[0]}[{place.format(pair)}] : {spread[1]}")
                    words[place] = as_pairs(text, text.value(f"vector.broadcast {number} : i32 to {_WORDS}"))
                made = multiplied(text, read[v], words[place])
                ends[i] = text.value(f"arith.addi {ends[i]}, {made} : {_WORDS}")
        text.line(f"scf.yield {','.join(ends)} : {kinds}\n}}")
        return _parts(name, len(places))

    def _weights(self, scores: str, weights: str, length: str, tops: dict[int, str]) -> tuple[str, dict[int, str]]:
        """Powers of scores as whole numbers, two rows' side by side, and the block's sums of them."""
        text, kind, name = self._text, self._weight_words, self._text.fresh()
        # The largest of a block is `LEVELS`: weights are as exact in blocks that hardly count as in those that do.
        more = text.constant(log2(LEVELS), _EIGHT)
        lower = [text.value(f"arith.subf {some}, {more} : {_EIGHT}") for some in tops.values()]
        kinds, nothing = ",".join([kind, *[_EIGHT] * len(tops)]), text.constant(0.0, _EIGHT)
        begun = ",".join([f"{name}o={weights}", *(f"{name}t{at}={nothing}" for at in range(len(tops)))])
        zero, two, row = text.index(0), text.index(2), f"{name}j"
        text.line(f"{name}:{1 + len(tops)} = scf.for {row} = {zero} to {length} step {two} iter_args({begun})")
        text.line(f"-> ({kinds}) {{")
        rows = [row, text.value(f"arith.addi {row}, {text.index(1)} : index")]
        to, out, sums = text.value(f"arith.divui {row}, {two} : index"), f"{name}o", []
        for at in range(len(tops)):
            total, numbers = f"{name}t{at}", []
            for number in rows:
                score = self._eight(scores, self._scores_type, number, at)
                weight = power_of_two(text, text.value(f"arith.subf {score}, {lower[at]} : {_EIGHT}"))
                total = text.value(f"arith.addf {total}, {weight} : {_EIGHT}")
                numbers.append(nearest(text, weight))
            sums.append(total)
            out = text.write(paired(text, numbers), _WORDS, out, kind, (to, text.index(at * _LANES)))
        text.line(f"scf.yield {','.join((out, *sums))} : {kinds}\n}}")
        return f"{name}#0", {v: f"{name}#{1 + at}" for at, v in enumerate(tops)}

    def _values(
        self, values: str, weights: str, acc: str, length: str, fades: dict[int, str], factors: dict[int, str]
    ) -> str:
        """Weighted values of a block added to the faded sums."""
        text, kind, name = self._text, self._turned, self._text.fresh()
        zero, last, step = text.index(0), text.index(self._shape.width), text.index(_STEP)
        pairs = text.value(f"arith.divui {length}, {text.index(2)} : index")
        text.line(f"{name} = scf.for {name}d = {zero} to {last} step {step} iter_args({name}o={acc}) -> ({kind}) {{")
        columns = [text.value(f"arith.addi {name}d, {text.index(i)} : index") for i in range(_STEP)]
        places = [(f"{{}},{column}", at) for column in columns for at in range(len(fades))]
        sums = self._products(pairs, places, (values, self._block.value_words), (weights, self._weight_words))
        out = f"{name}o"
        for i, column in enumerate(columns):
            for at, v in enumerate(fades):
                faded = text.value(f"arith.mulf {self._eight(out, kind, column, v)}, {fades[v]} : {_EIGHT}")
                real = text.value(f"arith.sitofp {sums[i * len(fades) + at]} : {_WORDS} to {_EIGHT}")
                out = self._put(text.value(f"math.fma {real}, {factors[v]}, {faded} : {_EIGHT}"), out, kind, column, v)
        text.line(f"scf.yield {out} : {kind}\n}}")
        return name

    def _turn_back(self, acc: str, sums: list[str]) -> str:
        """Averages of values, as queries lie: [tokens, heads, width]."""
        text = self._text
        one = text.constant(1.0, _EIGHT)
        inverses = [text.value(f"arith.divf {one}, {total} : {_EIGHT}") for total in sums]
        empty, zero = text.value(f"tensor.empty() : {self._mine}"), text.index(0)
        last, step = text.index(self._shape.width), text.index(_LANES)
        text.line(f"%ot = scf.for %d = {zero} to {last} step {step} iter_args(%o0={empty}) -> ({self._mine}) {{")
        rows = [text.value(f"arith.addi %d, {text.index(i)} : index") for i in range(_LANES)]
        out = "%o0"
        for vector in self._vectors:
            square = [text.read(acc, self._turned, (row, text.index(vector * _LANES)), _EIGHT) for row in rows]
            square = [text.value(f"arith.mulf {some}, {inverses[vector]} : {_EIGHT}") for some in square]
            for lane, whole in enumerate(_transposed(text, square)):
                out = text.write(whole, _EIGHT, out, self._mine, (*self._query(vector, lane), "%d"))
        text.line(f"scf.yield {out} : {self._mine}\n}}")
        return "%ot"

    def _put(self, value: str, target: str, kind: str, row: str, vector: int) -> str:
        return self._text.write(value, _EIGHT, target, kind, (row, self._text.index(vector * _LANES)))

    def _eight(self, source: str, kind: str, row: str, vector: int) -> str:
        return self._text.read(source, kind, (row, self._text.index(vector * _LANES)), _EIGHT)


def _named(name: str, count: int) -> str:
    return name if count == 1 else f"{name}:{count}"


def _parts(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}#{i}" for i in range(count)]


def _transposed(text: Text, square: list[str]) -> list[str]:
    """Eight vectors of eight, rows and columns exchanged, in shuffles that are one instruction each."""

    def mixed(pairs: list[tuple[str, str]], orders: tuple[str, str]) -> list[str]:
        return [
            text.value(f"vector.shuffle {one}, {other} [{order}] : {_EIGHT}, {_EIGHT}")
            for one, other in pairs
            for order in orders
        ]

    # Numbers of two rows in turn; then pairs of two such; then halves of registers.
    r = mixed(list(zip(square[::2], square[1::2], strict=True)), ("0,8,1,9,4,12,5,13", "2,10,3,11,6,14,7,15"))
    s = mixed([(r[0], r[2]), (r[1], r[3]), (r[4], r[6]), (r[5], r[7])], ("0,1,8,9,4,5,12,13", "2,3,10,11,6,7,14,15"))
    t = mixed(list(zip(s[:4], s[4:], strict=True)), ("0,1,2,3,8,9,10,11", "4,5,6,7,12,13,14,15"))
    return t[::2] + t[1::2]
