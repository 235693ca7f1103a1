"""Linear layers of many rows over packed weights: lanes are rows, and a weight is unpacked once for all of them.

With few rows lanes are outputs, and each activation is broadcast for 8 of them. With many, activations lie in memory as
the instructions take them, and what is broadcast is a weight, for several tiles of rows. Text only.
"""

from __future__ import annotations

from typing import Final

from services.compiler.kernels.formats import BLOCK, GROUP, W4, Format, add_products_w4, group_sum_w4
from services.compiler.kernels.rounding import round_group
from services.compiler.kernels.text import Text, dispatch

# Rows of a tile: the f32 lanes of an AVX2 register.
TILE: Final = 8
# Tiles whose sums stay in registers together: 4 sums of 16 bits and 4 of f32, of 16 registers. Two outputs and two
# tiles would load less, but LLVM then spills what it loaded.
_TILES: Final = 4
# Groups of inputs that are multiplied before the next are looked at: 32 rows of them stay in 32 KiB of L1.
_CHUNK_GROUPS: Final = 20
# Bytes for the unpacked weights of a block; IREE refuses dispatches with more than 32 KiB on their stack.
_SCRATCH_BYTES: Final = 24 << 10
_EIGHT: Final = "vector<8xf32>"


def takes(rows: int, inputs: int, form: Format) -> bool:
    """Whether a layer of this shape has enough rows, and its unpacked block enough room."""
    # An output takes a word for each step of inputs, and two numbers for each group.
    words = inputs // form.step_inputs + 2 * (inputs // GROUP)
    # Weights of 8 bits have twice the steps: there the sums of few rows are faster.
    return form is W4 and rows % (TILE * _TILES) == 0 and words * BLOCK * 4 <= _SCRATCH_BYTES


def tiled_types(form: Format, rows: int, inputs: int) -> tuple[str, str, str]:
    """Types of activations rounded and laid out in tiles of rows, their scales, and the sums of each group."""
    tiles, groups = rows // TILE, inputs // GROUP
    return (
        f"tensor<{tiles}x{inputs // form.step_inputs}x{TILE}xi32>",
        f"tensor<{tiles}x{groups}x{TILE}xf32>",
        f"tensor<{tiles}x{groups}x{TILE}xf32>",
    )


def tiled_rounding_kernel(name: str, form: Format, rows: int, inputs: int) -> str:
    """f32 [rows, inputs] → the tensors of `tiled_types`, a workgroup for each tile of rows."""
    text = Text()
    whole, part = f"tensor<{rows}x{inputs}xf32>", f"tensor<{TILE}x{inputs}xf32>"
    kinds, parts = tiled_types(form, rows, inputs), tiled_types(form, TILE, inputs)
    zero, first = text.index(0), text.value(f"arith.muli %wg0, {text.index(TILE)} : index")
    source = text.load("%x", whole, (first, zero), (TILE, inputs), part)
    made = _round_tile(text, form, source, inputs, parts)
    for key, value, kind, small in zip("qab", made, kinds, parts, strict=True):
        sizes = (1, inputs // (form.step_inputs if key == "q" else GROUP), TILE)
        text.store(value, small, f"%{key}", kind, ("%wg0", zero, zero), sizes)
    return dispatch(name, {"x": whole}, dict(zip("qab", kinds, strict=True)), (rows // TILE,), text)


def _round_tile(text: Text, form: Format, source: str, inputs: int, kinds: tuple[str, str, str]) -> list[str]:
    """Loops over rows and groups; numbers of a step go side by side with those of the other rows."""
    listed, steps = ",".join(kinds), GROUP // form.step_inputs
    starts = [text.value(f"tensor.empty() : {kind}") for kind in kinds]
    zero, one = text.index(0), text.index(1)
    text.line(f"%rq:3 = scf.for %rm = {zero} to {text.index(TILE)} step {one}")
    text.line(f"iter_args(%ra={starts[0]},%rb={starts[1]},%rc={starts[2]}) -> ({listed}) {{")
    groups = text.index(inputs // GROUP)
    text.line(
        f"%rr:3 = scf.for %rg = {zero} to {groups} step {one} iter_args(%rd=%ra,%re=%rb,%rf=%rc) -> ({listed}) {{"
    )
    at = text.value(f"arith.muli %rg, {text.index(GROUP)} : index")
    row = text.read(source, f"tensor<{TILE}x{inputs}xf32>", ("%rm", at), "vector<32xf32>")
    numbers, scale, total = round_group(text, form, row)
    words = text.value(f"vector.bitcast {numbers} : vector<32x{form.activation}> to vector<{steps}xi32>")
    start, out, zeroth = text.value(f"arith.muli %rg, {text.index(steps)} : index"), "%rd", text.index(0)
    for step in range(steps):
        word = text.value(f"vector.extract {words}[{step}] : i32 from vector<{steps}xi32>")
        place = text.value(f"arith.addi {start}, {text.index(step)} : index")
        out = text.value(f"tensor.insert {word} into {out}[{zeroth},{place},%rm] : {kinds[0]}")
    scales = text.value(f"tensor.insert {scale} into %re[{zeroth},%rg,%rm] : {kinds[1]}")
    sums = text.value(f"tensor.insert {total} into %rf[{zeroth},%rg,%rm] : {kinds[2]}")
    text.line(f"scf.yield {out},{scales},{sums} : {listed}\n}}\nscf.yield %rr#0,%rr#1,%rr#2 : {listed}\n}}")
    return ["%rq#0", "%rq#1", "%rq#2"]


class ManyRows:
    """What a workgroup does with its share of the blocks of outputs, under way.

    Args:
        text: to write to.
        form: of the weights.
        sizes: rows, inputs, and blocks of the workgroup.
        kinds: types of the workgroup's weights, scales and result [rows, 8 · blocks].
    """

    def __init__(self, text: Text, form: Format, sizes: tuple[int, int, int], kinds: tuple[str, str, str]) -> None:
        """Writes nothing yet."""
        self._text, self._form = text, form
        self._rows, self._inputs, self._blocks = sizes
        self._weights_type, self._scales_type, self._out_type = kinds
        self._groups, self._steps = self._inputs // GROUP, GROUP // form.step_inputs
        self._chunk = next(n for n in range(_CHUNK_GROUPS, 0, -1) if self._groups % n == 0)
        self._tiled = tiled_types(form, self._rows, self._inputs)
        self._words_type = f"tensor<{self._groups}x{self._steps * BLOCK}xi32>"
        self._factors_type = f"tensor<{self._groups}x{2 * BLOCK}xf32>"
        self._tile_type = f"tensor<{BLOCK}x{_TILES * TILE}xf32>"

    def write(self, weights: str, scales: str, activations: tuple[str, str, str]) -> str:
        """Loops over blocks of outputs and over tiles of rows; the workgroup's part of the result."""
        text, kind = self._text, self._out_type
        zero, one, tiles = text.index(0), text.index(1), text.index(_TILES)
        empty = [text.value(f"tensor.empty() : {k}") for k in (kind, self._words_type, self._factors_type)]
        sums = text.value(f"tensor.empty() : {self._tile_type}")
        blocks, all_tiles = text.index(self._blocks), text.index(self._rows // TILE)
        listed = f"{kind},{self._words_type},{self._factors_type},{self._tile_type}"
        text.line(f"%o:4 = scf.for %n = {zero} to {blocks} step {one}")
        text.line(f"iter_args(%o0={empty[0]},%ow={empty[1]},%of={empty[2]},%os={sums}) -> ({listed}) {{")
        words, factors = self._unpack(weights, scales)
        text.line(f"%p:2 = scf.for %m = {zero} to {all_tiles} step {tiles} iter_args(%p0=%o0,%p1=%os)")
        text.line(f"-> ({kind},{self._tile_type}) {{")
        made = self._outputs(words, factors, activations)
        out = self._turn(made, "%p0")
        text.line(f"scf.yield {out},{made} : {kind},{self._tile_type}\n}}")
        text.line(f"scf.yield %p#0,{words},{factors},%p#1 : {listed}\n}}")
        return "%o#0"

    def _unpack(self, weights: str, scales: str) -> tuple[str, str]:
        """A block's weights as words to broadcast [groups, steps · 8], and its scales and offsets in f32."""
        text, form = self._text, self._form
        listed = f"{self._words_type},{self._factors_type}"
        zero, one, groups = text.index(0), text.index(1), text.index(self._groups)
        text.line(f"%q0:2 = scf.for %g = {zero} to {groups} step {one} iter_args(%qw=%ow,%qf=%of) -> ({listed}) {{")
        words, factors = "%qw", "%qf"
        for step, vector in enumerate(form.unpack(text, weights, self._weights_type, "%n", "%g")):
            word = text.value(f"vector.bitcast {vector} : vector<32xi8> to vector<8xi32>")
            words = text.write(word, "vector<8xi32>", words, self._words_type, ("%g", text.index(step * BLOCK)))
        for at in range(0, form.scales, BLOCK):
            half = text.read(scales, self._scales_type, ("%n", "%g", text.index(at)), "vector<8xf16>")
            wide = text.value(f"arith.extf {half} : vector<8xf16> to {_EIGHT}")
            factors = text.write(wide, _EIGHT, factors, self._factors_type, ("%g", text.index(at)))
        text.line(f"scf.yield {words},{factors} : {listed}\n}}")
        return "%q0#0", "%q0#1"

    def _outputs(self, words: str, factors: str, activations: tuple[str, str, str]) -> str:
        """Loops over chunks of inputs and a block's outputs; their sums for the tiles of rows, [outputs, rows]."""
        text, kind = self._text, self._tile_type
        zero, one, last, groups = (text.index(n) for n in (0, 1, BLOCK, self._groups))
        begun, nothing = "%p1", text.constant(0.0, _EIGHT)
        for output in range(BLOCK):
            for tile in range(_TILES):
                place = (text.index(output), text.index(tile * TILE))
                begun = text.write(nothing, _EIGHT, begun, kind, place)
        chunk = text.index(self._chunk)
        text.line(f"%e = scf.for %k = {zero} to {groups} step {chunk} iter_args(%e0={begun}) -> ({kind}) {{")
        end = text.value(f"arith.addi %k, {chunk} : index")
        text.line(f"%d = scf.for %c = {zero} to {last} step {one} iter_args(%d0=%e0) -> ({kind}) {{")
        places = [("%c", text.index(tile * TILE)) for tile in range(_TILES)]
        out = "%d0"
        starts = [text.read(out, kind, place, _EIGHT) for place in places]
        for total, place in zip(self._sums(words, factors, activations, (starts, end)), places, strict=True):
            out = text.write(total, _EIGHT, out, kind, place)
        text.line(f"scf.yield {out} : {kind}\n}}\nscf.yield %d : {kind}\n}}")
        return "%e"

    def _sums(
        self, words: str, factors: str, activations: tuple[str, str, str], begun: tuple[list[str], str]
    ) -> list[str]:
        """Loops over a chunk's groups, to the end given; what was begun, with their products added."""
        text, (starts, end) = self._text, begun
        kinds, one = ",".join([_EIGHT] * _TILES), text.index(1)
        started = ",".join(f"%t{i}={start}" for i, start in enumerate(starts))
        text.line(f"%u:{_TILES} = scf.for %g = %k to {end} step {one} iter_args({started}) -> ({kinds}) {{")
        tiles = [text.value(f"arith.addi %m, {text.index(i)} : index") for i in range(_TILES)]
        products = self._products(words, activations[0], tiles)
        pair = (self._factor(factors, 0), self._factor(factors, BLOCK))
        ends = [
            self._scaled(product, pair, activations, tile, f"%t{i}")
            for i, (product, tile) in enumerate(zip(products, tiles, strict=True))
        ]
        text.line(f"scf.yield {','.join(ends)} : {kinds}\n}}")
        return [f"%u#{i}" for i in range(_TILES)]

    def _products(self, words: str, numbers: str, tiles: list[str]) -> list[str]:
        """Sums of whole numbers of one group: vector<8xi32> for each tile."""
        text, sums = self._text, [""] * _TILES
        first = text.value(f"arith.muli %g, {text.index(self._steps)} : index")
        for step in range(self._steps):
            at = text.value(f"arith.addi {first}, {text.index(step)} : index")
            column = text.value(f"arith.addi %c, {text.index(step * BLOCK)} : index")
            word = text.value(f"tensor.extract {words}[%g,{column}] : {self._words_type}")
            weight = text.value(f"vector.broadcast {word} : i32 to vector<8xi32>")
            for i, tile in enumerate(tiles):
                row = text.read(numbers, self._tiled[0], (tile, at, text.index(0)), "vector<8xi32>")
                sums[i] = add_products_w4(text, weight, row, sums[i])
        return [group_sum_w4(text, total) for total in sums]

    def _factor(self, factors: str, part: int) -> str:
        text = self._text
        column = text.value(f"arith.addi %c, {text.index(part)} : index")
        one = text.value(f"tensor.extract {factors}[%g,{column}] : {self._factors_type}")
        return text.value(f"vector.broadcast {one} : f32 to {_EIGHT}")

    def _scaled(
        self, products: str, factors: tuple[str, str], activations: tuple[str, str, str], tile: str, total: str
    ) -> str:
        text, zero = self._text, self._text.index(0)
        _, scales, sums = activations
        real = text.value(f"arith.sitofp {products} : vector<8xi32> to {_EIGHT}")
        scale = text.read(scales, self._tiled[1], (tile, "%g", zero), _EIGHT)
        both = text.value(f"arith.mulf {factors[0]}, {scale} : {_EIGHT}")
        total = text.value(f"math.fma {real}, {both}, {total} : {_EIGHT}")
        counted = text.read(sums, self._tiled[2], (tile, "%g", zero), _EIGHT)
        return text.value(f"math.fma {factors[1]}, {counted}, {total} : {_EIGHT}")

    def _turn(self, made: str, out: str) -> str:
        """Puts [outputs, rows] into the result, which is [rows, outputs]."""
        text, square = self._text, "vector<8x8xf32>"
        none, column = text.constant(0.0, "f32"), text.value(f"arith.muli %n, {text.index(BLOCK)} : index")
        for tile in range(_TILES):
            at = f"{text.index(0)},{text.index(tile * TILE)}"
            read = f"vector.transfer_read {made}[{at}], {none} {{in_bounds=[true,true]}} : {self._tile_type}, {square}"
            turned = text.value(f"vector.transpose {text.value(read)}, [1,0] : {square} to {square}")
            row = text.value(f"arith.addi %m, {text.index(tile)} : index")
            row = text.value(f"arith.muli {row}, {text.index(TILE)} : index")
            out = text.value(
                f"vector.transfer_write {turned}, {out}[{row},{column}] {{in_bounds=[true,true]}} : "
                f"{square}, {self._out_type}"
            )
        return out
