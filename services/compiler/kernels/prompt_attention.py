"""Attention of tokens that follow each other in one slot: some tokens together, their queries in the lanes. Text only.

A workgroup takes the query heads of some tokens on one KV head. Keys and values of a block of rows are widened once for
all of them; scores, softmax and sums never go across lanes. Softmax is taken as blocks pass by, as in `attention`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.compiler.kernels.exponential import exponential, larger
from services.compiler.kernels.text import MOST_WORKGROUPS, Text, dispatch, equal_shares

if TYPE_CHECKING:
    from services.compiler.kernels.attention import Attention

_LANES: Final = 8
# Rows that pass by together, and of these the ones whose sums are in registers with up to three vectors of queries.
_ROWS: Final = 32
_STEP: Final = 4
_MOST_QUERIES: Final = 24
# IREE refuses dispatches with more than 32 KiB on their stack, and it is what L1 holds.
_SCRATCH_BYTES: Final = 28 << 10
_ABSENT: Final = -1e30
_EIGHT: Final = "vector<8xf32>"
_WORDS: Final = "vector<8xi32>"


def tokens_together(shape: Attention) -> int:
    """Tokens of a workgroup; 0 when this kernel does not take the shape."""
    if not shape.follows or shape.width % _LANES:
        return 0
    fitting = (n for n in range(_MOST_QUERIES // shape.group, 0, -1) if shape.tokens % n == 0)
    return next((n for n in fitting if n * shape.group % _LANES == 0 and _scratch(shape, n) <= _SCRATCH_BYTES), 0)


def _scratch(shape: Attention, tokens: int) -> int:
    """Bytes on the stack: queries and sums, a block of keys or values, its scores."""
    queries = tokens * shape.group
    return 4 * (2 * shape.width * queries + _ROWS * (shape.width + queries))


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
        self._mine = f"tensor<{self._tokens}x{shape.group}x{shape.width}xf32>"
        self._turned = f"tensor<{shape.width}x{queries}xf32>"
        self._block = f"tensor<{_ROWS}x{shape.width}xf32>"
        self._scores_type = f"tensor<{_ROWS}x{queries}xf32>"
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
        queries = self._turn(text.load("%q", self._queries, place, size, self._mine))
        slot, position = self._number("slots", zero), self._number("positions", first)
        rows = (1, 1, shape.rows, shape.width)
        keys, values = (
            text.load(f"%{key}", self._cache, (slot, "%wg1", zero, zero), rows, self._rows_type) for key in "kv"
        )
        out = self._turn_back(*self._blocks(queries, keys, values, position))
        text.store(out, self._mine, "%o", self._queries, place, size)

    def _number(self, which: str, at: str) -> str:
        text = self._text
        tensor = text.load(f"%{which}", self._numbers, (text.index(0),), (self._shape.tokens,), self._numbers)
        number = text.value(f"tensor.extract {tensor}[{at}] : {self._numbers}")
        return text.value(f"arith.index_cast {number} : i64 to index")

    def _turn(self, queries: str) -> str:
        """Scaled queries with a width's numbers of all of them side by side: [width, queries]."""
        text = self._text
        empty, zero = text.value(f"tensor.empty() : {self._turned}"), text.index(0)
        last, step, scale = text.index(self._shape.width), text.index(_LANES), text.constant(self._shape.scale, _EIGHT)
        text.line(f"%qt = scf.for %d = {zero} to {last} step {step} iter_args(%q0={empty}) -> ({self._turned}) {{")
        out = "%q0"
        for vector in self._vectors:
            square = [text.read(queries, self._mine, (*self._query(vector, i), "%d"), _EIGHT) for i in range(_LANES)]
            for i, column in enumerate(_transposed(text, square)):
                scaled = text.value(f"arith.mulf {column}, {scale} : {_EIGHT}")
                row = text.value(f"arith.addi %d, {text.index(i)} : index")
                out = self._put(scaled, out, self._turned, row, vector)
        text.line(f"scf.yield {out} : {self._turned}\n}}")
        return "%qt"

    def _query(self, vector: int, lane: int) -> tuple[str, str]:
        """Token and head of a lane."""
        token, head = divmod(vector * _LANES + lane, self._shape.group)
        return self._text.index(token), self._text.index(head)

    def _blocks(self, queries: str, keys: str, values: str, position: str) -> tuple[str, list[str]]:
        """Loops over blocks of rows: sums of weighted values [width, queries], and sums of weights."""
        text = self._text
        count = text.value(f"arith.addi {position}, {text.index(self._tokens)} : index")
        absent, none = text.constant(_ABSENT, _EIGHT), text.constant(0.0, _EIGHT)
        empty = [text.value(f"tensor.empty() : {kind}") for kind in (self._block, self._scores_type)]
        begun = [f"%acc={self._zeros()}", f"%rows={empty[0]}", f"%sc={empty[1]}"]
        begun += [f"%top{v}={absent}" for v in self._vectors] + [f"%sum{v}={none}" for v in self._vectors]
        vectors = len(self._vectors)
        kinds = ",".join([self._turned, self._block, self._scores_type, *[_EIGHT] * (2 * vectors)])
        zero, rows = text.index(0), text.index(_ROWS)
        text.line(f"%b:{3 + 2 * vectors} = scf.for %r = {zero} to {count} step {rows} iter_args({','.join(begun)})")
        text.line(f"-> ({kinds}) {{")
        left = text.value(f"arith.subi {count}, %r : index")
        length = text.value(f"arith.minui {left}, {rows} : index")
        step = text.index(_STEP)
        length = text.value(f"arith.muli {text.value(f'arith.ceildivui {length}, {step} : index')}, {step} : index")
        widened = self._widen("%wk", keys, "%rows", length)
        scores, tops = self._scores(queries, widened, length, position)
        fades = [exponential(text, text.value(f"arith.subf %top{v}, {tops[v]} : {_EIGHT}")) for v in self._vectors]
        scores, sums = self._weights(scores, length, tops, fades)
        widened = self._widen("%wv", values, widened, length)
        acc = self._values(widened, scores, length, fades)
        text.line(f"scf.yield {','.join((acc, widened, scores, *tops, *sums))} : {kinds}\n}}")
        return "%b#0", [f"%b#{3 + vectors + v}" for v in self._vectors]

    def _zeros(self) -> str:
        text = self._text
        empty, nothing = text.value(f"tensor.empty() : {self._turned}"), text.constant(0.0, _EIGHT)
        zero, one, last = text.index(0), text.index(1), text.index(self._shape.width)
        text.line(f"%zt = scf.for %d = {zero} to {last} step {one} iter_args(%z0={empty}) -> ({self._turned}) {{")
        out = "%z0"
        for vector in self._vectors:
            out = self._put(nothing, out, self._turned, "%d", vector)
        text.line(f"scf.yield {out} : {self._turned}\n}}")
        return "%zt"

    def _widen(self, name: str, cached: str, block: str, length: str) -> str:
        """A block's rows of the cache in f32; the cache's last row stands for those past it."""
        text, kind = self._text, self._block
        zero, one, last = text.index(0), text.index(1), text.index(self._shape.rows - 1)
        text.line(f"{name} = scf.for %j = {zero} to {length} step {one} iter_args(%w={block}) -> ({kind}) {{")
        row = text.value(f"arith.minui {text.value('arith.addi %r, %j : index')}, {last} : index")
        out = "%w"
        for at in range(0, self._shape.width, _LANES):
            half = text.read(cached, self._rows_type, (row, text.index(at)), "vector<8xf16>")
            out = text.write(
                text.value(f"arith.extf {half} : vector<8xf16> to {_EIGHT}"), _EIGHT, out, kind, ("%j", text.index(at))
            )
        text.line(f"scf.yield {out} : {kind}\n}}")
        return name

    def _scores(self, queries: str, keys: str, length: str, position: str) -> tuple[str, list[str]]:
        """Products of queries and a block of keys, absent where a token does not see the row; the largest of each."""
        text = self._text
        kinds = ",".join([self._scores_type, *[_EIGHT] * len(self._vectors)])
        begun = ",".join(["%s0=%sc", *(f"%m{v}=%top{v}" for v in self._vectors)])
        zero, step = text.index(0), text.index(_STEP)
        text.line(f"%s:{1 + len(self._vectors)} = scf.for %j = {zero} to {length} step {step} iter_args({begun})")
        text.line(f"-> ({kinds}) {{")
        rows = [text.value(f"arith.addi %j, {text.index(i)} : index") for i in range(_STEP)]
        nothing = text.constant(0.0, _EIGHT)
        places = [(i, v) for i in range(_STEP) for v in self._vectors]
        sums = self._products("%pk", [nothing] * len(places), self._shape.width, rows, (keys, queries))
        out, tops = "%s0", [f"%m{v}" for v in self._vectors]
        for (i, v), score in zip(places, sums, strict=True):
            seen = self._seen(rows[i], position, v, score)
            out = self._put(seen, out, self._scores_type, rows[i], v)
            tops[v] = larger(text, tops[v], seen)
        text.line(f"scf.yield {','.join((out, *tops))} : {kinds}\n}}")
        return "%s#0", [f"%s#{1 + v}" for v in self._vectors]

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
        self, name: str, begun: list[str], count: int | str, rows: list[str], factors: tuple[str, str]
    ) -> list[str]:
        """Loops over a dimension: numbers of one factor, repeated, times vectors of queries of the other, added up.

        Keys [rows, width] and queries [width, queries] go by width; values [rows, width] and weights [rows, queries] by
        rows, then `rows` are places in the width.
        """
        text = self._text
        by_rows = isinstance(count, str)
        last = count if isinstance(count, str) else text.index(count)
        kind = self._scores_type if by_rows else self._turned
        kinds = ",".join([_EIGHT] * len(begun))
        names = [f"{name}{i}" for i in range(len(begun))]
        listed = ",".join(f"{one}={value}" for one, value in zip(names, begun, strict=True))
        zero, unrolled = text.index(0), 2
        text.line(f"{name}:{len(begun)} = scf.for %x = {zero} to {last} step {text.index(unrolled)}")
        text.line(f"iter_args({listed}) -> ({kinds}) {{")
        ends = list(names)
        for part in range(unrolled):
            at = text.value(f"arith.addi %x, {text.index(part)} : index")
            vectors = [text.read(factors[1], kind, (at, text.index(v * _LANES)), _EIGHT) for v in self._vectors]
            for i, row in enumerate(rows):
                place = f"{at},{row}" if by_rows else f"{row},{at}"
                number = text.value(f"tensor.extract {factors[0]}[{place}] : {self._block}")
                spread = text.value(f"vector.broadcast {number} : f32 to {_EIGHT}")
                for v, vector in enumerate(vectors):
                    sum_ = i * len(vectors) + v
                    ends[sum_] = text.value(f"math.fma {spread}, {vector}, {ends[sum_]} : {_EIGHT}")
        text.line(f"scf.yield {','.join(ends)} : {kinds}\n}}")
        return [f"{name}#{i}" for i in range(len(begun))]

    def _weights(self, scores: str, length: str, tops: list[str], fades: list[str]) -> tuple[str, list[str]]:
        """Exponentials in place of scores, and sums of all so far."""
        text = self._text
        kinds = ",".join([self._scores_type, *[_EIGHT] * len(self._vectors)])
        faded = [text.value(f"arith.mulf %sum{v}, {fades[v]} : {_EIGHT}") for v in self._vectors]
        begun = ",".join([f"%e0={scores}", *(f"%t{v}={faded[v]}" for v in self._vectors)])
        zero, one = text.index(0), text.index(1)
        text.line(f"%e:{1 + len(self._vectors)} = scf.for %j = {zero} to {length} step {one} iter_args({begun})")
        text.line(f"-> ({kinds}) {{")
        out, sums = "%e0", []
        for v in self._vectors:
            score = text.read(out, self._scores_type, ("%j", text.index(v * _LANES)), _EIGHT)
            weight = exponential(text, text.value(f"arith.subf {score}, {tops[v]} : {_EIGHT}"))
            sums.append(text.value(f"arith.addf %t{v}, {weight} : {_EIGHT}"))
            out = self._put(weight, out, self._scores_type, "%j", v)
        text.line(f"scf.yield {','.join((out, *sums))} : {kinds}\n}}")
        return "%e#0", [f"%e#{1 + v}" for v in self._vectors]

    def _values(self, values: str, weights: str, length: str, fades: list[str]) -> str:
        """Weighted values of a block added to the faded sums."""
        text, kind = self._text, self._turned
        zero, last, step = text.index(0), text.index(self._shape.width), text.index(_STEP)
        text.line(f"%a = scf.for %d = {zero} to {last} step {step} iter_args(%a0=%acc) -> ({kind}) {{")
        columns = [text.value(f"arith.addi %d, {text.index(i)} : index") for i in range(_STEP)]
        places = [(column, v) for column in columns for v in self._vectors]
        old = [text.read("%a0", kind, (column, text.index(v * _LANES)), _EIGHT) for column, v in places]
        faded = [text.value(f"arith.mulf {o}, {fades[v]} : {_EIGHT}") for o, (_, v) in zip(old, places, strict=True)]
        out = "%a0"
        sums = self._products("%pv", faded, length, columns, (values, weights))
        for total, (column, v) in zip(sums, places, strict=True):
            out = self._put(total, out, kind, column, v)
        text.line(f"scf.yield {out} : {kind}\n}}")
        return "%a"

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
