"""Linear layers of several rows over packed weights: sums of four rows and two blocks of outputs stay in registers.

Lanes are outputs. A workgroup unpacks its weights onto the stack, two blocks and some groups of inputs at a time, and
goes over all rows with them: a vector of weights serves four rows, a broadcast of activations two blocks. Text only.
"""

from __future__ import annotations

from typing import Final

from services.compiler.kernels.few_rows import spread_step
from services.compiler.kernels.formats import BLOCK, GROUP
from services.compiler.kernels.rounding import rounded_types
from services.compiler.kernels.share import Share
from services.compiler.kernels.text import Text

# Rows and blocks that are multiplied together: 8 sums of whole numbers, and as many registers for what goes into them.
# Of 1 to 6 rows and 1 to 4 blocks this and 2 x 3 were fastest.
_TILES: Final = (4, 2, 1)
_WIDTHS: Final = (2, 1)
# Bytes of unpacked weights and scales. IREE refuses dispatches with more than 32 KiB on their stack, and they share as
# much L1 with the activations of four rows.
_SCRATCH_BYTES: Final = 24 << 10
# Steps written out in the innermost loop. All of a group's would be reordered by LLVM until they spill.
_STEPS_AT_ONCE: Final = 2
_EIGHT: Final = "vector<8xf32>"


class SeveralRows:
    """What a workgroup does with its share of the blocks of outputs, under way.

    Args:
        text: to write to.
        share: what it has of the product.
    """

    def __init__(self, text: Text, share: Share) -> None:
        """Writes nothing yet."""
        self._text, self._share, form = text, share, share.form
        self._groups, self._steps = self._share.inputs // GROUP, GROUP // form.step_inputs
        self._tile = next(n for n in _TILES if self._share.rows % n == 0)
        self._width = next(n for n in _WIDTHS if self._share.blocks % n == 0)
        group_bytes = self._width * (self._steps * form.step_bytes + form.scales * 4)
        self._chunk = next(n for n in range(_SCRATCH_BYTES // group_bytes, 0, -1) if self._groups % n == 0)
        self._added = ""
        self._rounded = rounded_types(form, self._share.rows, self._share.inputs)
        self._words_type = f"tensor<{self._chunk}x{self._width}x{self._steps}x{form.step_shape}>"
        self._factors_type = f"tensor<{self._chunk}x{self._width}x{form.scales}xf32>"

    def write(self, weights: str, scales: str, activations: tuple[str, str, str], added: str) -> str:
        """Loops over blocks of outputs, chunks of inputs and tiles of rows; the workgroup's part of the result.

        Args:
            weights: the workgroup's.
            scales: theirs.
            activations: rounded, of all rows.
            added: what the result is added to, of its type; "" for nothing.
        """
        self._added = added
        text, kind = self._text, self._share.out_type
        zero, width, chunk, tile = (text.index(n) for n in (0, self._width, self._chunk, self._tile))
        empty = [text.value(f"tensor.empty() : {k}") for k in (kind, self._words_type, self._factors_type)]
        blocks, groups, rows = (text.index(n) for n in (self._share.blocks, self._groups, self._share.rows))
        listed = f"{kind},{self._words_type},{self._factors_type}"
        text.line(f"%o:3 = scf.for %n = {zero} to {blocks} step {width}")
        text.line(f"iter_args(%o0={empty[0]},%ow={empty[1]},%of={empty[2]}) -> ({listed}) {{")
        text.line(f"%p:3 = scf.for %k = {zero} to {groups} step {chunk}")
        text.line(f"iter_args(%p0=%o0,%pw=%ow,%pf=%of) -> ({listed}) {{")
        words, factors = self._unpack(weights, scales)
        text.line(f"%e = scf.for %m = {zero} to {rows} step {tile} iter_args(%e0=%p0) -> ({kind}) {{")
        out = self._outputs(words, factors, activations)
        text.line(f"scf.yield {out} : {kind}\n}}")
        text.line(f"scf.yield %e,{words},{factors} : {listed}\n}}")
        text.line(f"scf.yield %p#0,%p#1,%p#2 : {listed}\n}}")
        return "%o#0"

    def _unpack(self, weights: str, scales: str) -> tuple[str, str]:
        """A chunk's weights as the instructions take them, and its scales and offsets in f32."""
        text, form = self._text, self._share.form
        listed = f"{self._words_type},{self._factors_type}"
        zero, one, chunk = text.index(0), text.index(1), text.index(self._chunk)
        text.line(f"%q0:2 = scf.for %g = {zero} to {chunk} step {one} iter_args(%qw=%pw,%qf=%pf) -> ({listed}) {{")
        group = text.value("arith.addi %k, %g : index")
        words, factors = "%qw", "%qf"
        for block in range(self._width):
            at_block, n = text.index(block), text.value(f"arith.addi %n, {text.index(block)} : index")
            for step, vector in enumerate(form.unpack(text, weights, self._share.weights_type, n, group)):
                place = ("%g", at_block, text.index(step), zero)
                words = text.write(vector, form.step, words, self._words_type, place)
            for at in range(0, form.scales, BLOCK):
                half = text.read(scales, self._share.scales_type, (n, group, text.index(at)), "vector<8xf16>")
                wide = text.value(f"arith.extf {half} : vector<8xf16> to {_EIGHT}")
                factors = text.write(wide, _EIGHT, factors, self._factors_type, ("%g", at_block, text.index(at)))
        text.line(f"scf.yield {words},{factors} : {listed}\n}}")
        return "%q0#0", "%q0#1"

    def _outputs(self, words: str, factors: str, activations: tuple[str, str, str]) -> str:
        """The result with a tile of rows and the blocks at %n written, or added to when it is not the first chunk."""
        text, kind, out = self._text, self._share.out_type, "%e0"
        column = text.value(f"arith.muli %n, {text.index(BLOCK)} : index")
        columns = [text.value(f"arith.addi {column}, {text.index(b * BLOCK)} : index") for b in range(self._width)]
        places = [(row, c) for row in self._tile_rows() for c in columns]
        nothing = text.constant(0.0, _EIGHT)
        starts = [text.read(self._added, kind, place, _EIGHT) if self._added else nothing for place in places]
        if self._chunk < self._groups:
            first = text.value(f"arith.cmpi eq, %k, {text.index(0)} : index")
            known = [text.read(out, kind, place, _EIGHT) for place in places]
            starts = [
                text.value(f"arith.select {first}, {start}, {old} : {_EIGHT}")
                for start, old in zip(starts, known, strict=True)
            ]
        for total, place in zip(self._sums(words, factors, activations, starts), places, strict=True):
            out = text.write(total, _EIGHT, out, kind, place)
        return out

    def _tile_rows(self) -> list[str]:
        text = self._text
        return [text.value(f"arith.addi %m, {text.index(row)} : index") for row in range(self._tile)]

    def _sums(self, words: str, factors: str, activations: tuple[str, str, str], starts: list[str]) -> list[str]:
        """Loops over a chunk's groups; what was begun, with their products added."""
        text, count = self._text, len(starts)
        kinds = ",".join([_EIGHT] * count)
        started = ",".join(f"%t{i}={start}" for i, start in enumerate(starts))
        zero, one, chunk = text.index(0), text.index(1), text.index(self._chunk)
        head = "%u" if count == 1 else f"%u:{count}"
        text.line(f"{head} = scf.for %g = {zero} to {chunk} step {one} iter_args({started}) -> ({kinds}) {{")
        group = text.value("arith.addi %k, %g : index")
        rows = self._tile_rows()
        products = self._products(words, activations[0], rows, group)
        ends = self._scaled(products, factors, activations, rows, group)
        text.line(f"scf.yield {','.join(ends)} : {kinds}\n}}")
        return ["%u"] if count == 1 else [f"%u#{i}" for i in range(count)]

    def _products(self, words: str, numbers: str, rows: list[str], group: str) -> list[str]:
        """Loops over a group's steps; their sums of whole numbers, vector<8xi32> for each row and block."""
        text, form, count = self._text, self._share.form, len(rows) * self._width
        zero, first = text.index(0), text.value(f"arith.muli {group}, {text.index(GROUP)} : index")
        nothing = text.value(f"arith.constant dense<0> : {form.sums}")
        sums = [f"%y{i}" for i in range(count)]
        started, kinds = ",".join(f"{name}={nothing}" for name in sums), ",".join([form.sums] * count)
        head = "%z" if count == 1 else f"%z:{count}"
        text.line(f"{head} = scf.for %st = {zero} to {text.index(self._steps)} step {text.index(_STEPS_AT_ONCE)}")
        text.line(f"iter_args({started}) -> ({kinds}) {{")
        for part in range(_STEPS_AT_ONCE):
            step = text.value(f"arith.addi %st, {text.index(part)} : index")
            offset = text.value(f"arith.muli {step}, {text.index(form.step_inputs)} : index")
            at = text.value(f"arith.addi {first}, {offset} : index")
            weights = [
                text.read(words, self._words_type, ("%g", text.index(block), step, zero), form.step)
                for block in range(self._width)
            ]
            for i, row in enumerate(rows):
                activation = spread_step(text, form, numbers, self._rounded[0], (row, at))
                for block, weight in enumerate(weights):
                    number = i * self._width + block
                    sums[number] = form.add_products(text, weight, activation, sums[number])
        text.line(f"scf.yield {','.join(sums)} : {kinds}\n}}")
        made = ["%z"] if count == 1 else [f"%z#{i}" for i in range(count)]
        return [form.group_sum(text, total) for total in made]

    def _scaled(
        self, products: list[str], factors: str, activations: tuple[str, str, str], rows: list[str], group: str
    ) -> list[str]:
        text, ends = self._text, []
        parts = [
            [
                text.read(factors, self._factors_type, ("%g", text.index(block), text.index(at)), _EIGHT)
                for at in range(0, self._share.form.scales, BLOCK)
            ]
            for block in range(self._width)
        ]
        for i, row in enumerate(rows):
            own, counted = (self._spread(tensor, row, group) for tensor in activations[1:])
            for block, (scale, *offset) in enumerate(parts):
                number = i * self._width + block
                real = text.value(f"arith.sitofp {products[number]} : vector<8xi32> to {_EIGHT}")
                both = text.value(f"arith.mulf {scale}, {own} : {_EIGHT}")
                total = text.value(f"math.fma {real}, {both}, %t{number} : {_EIGHT}")
                ends.append(text.value(f"math.fma {offset[0]}, {counted}, {total} : {_EIGHT}") if offset else total)
        return ends

    def _spread(self, tensor: str, row: str, group: str) -> str:
        one = self._text.value(f"tensor.extract {tensor}[{row},{group}] : {self._rounded[1]}")
        return self._text.value(f"vector.broadcast {one} : f32 to {_EIGHT}")
