"""Linear layers of two to eight rows over packed weights: all rows pass a vector of weights while it is in a register.

Lanes are outputs. Blocks of outputs are taken one by one, so that weights are read from first to last: two side by side
are 4 to 8 % quicker in cache, but memory is then read in short streams, which prefetching does not follow. Nothing is
unpacked onto the stack as `several_rows` does, because no second tile of rows would read it: two steps of weights are
unpacked, multiplied with every row, and forgotten. Text only.
"""

from __future__ import annotations

from typing import Final

from services.compiler.kernels.formats import BLOCK, GROUP, PAIR_BYTES, Format
from services.compiler.kernels.rounding import rounded_types
from services.compiler.kernels.share import Share
from services.compiler.kernels.text import Text

# Sums of whole numbers that are kept in registers; the other half is for what goes into them.
_SUMS: Final = 8
_EIGHT: Final = "vector<8xf32>"


def takes(rows: int) -> bool:
    """Whether this many rows are few."""
    return 1 < rows <= _SUMS


class FewRows:
    """What a workgroup does with its share of the blocks of outputs, under way.

    Args:
        text: to write to.
        share: what it has of the product.
    """

    def __init__(self, text: Text, share: Share) -> None:
        """Writes nothing yet."""
        self._text, self._share = text, share
        self._rounded = rounded_types(share.form, share.rows, share.inputs)

    def write(self, weights: str, scales: str, activations: tuple[str, str, str], added: str) -> str:
        """Loops over blocks of outputs; the workgroup's part of the result.

        Args:
            weights: the workgroup's.
            scales: theirs.
            activations: rounded.
            added: what the result is added to, of its type; "" for nothing.
        """
        text, kind = self._text, self._share.out_type
        zero, one, blocks = (text.index(n) for n in (0, 1, self._share.blocks))
        empty = text.value(f"tensor.empty() : {kind}")
        text.line(f"%o = scf.for %n = {zero} to {blocks} step {one} iter_args(%o0={empty}) -> ({kind}) {{")
        column = text.value(f"arith.muli %n, {text.index(BLOCK)} : index")
        places = [(text.index(row), column) for row in range(self._share.rows)]
        nothing = text.constant(0.0, _EIGHT)
        starts = [text.read(added, kind, place, _EIGHT) if added else nothing for place in places]
        out, block = "%o0", self._share.block(text, "%n")
        for total, place in zip(self._sums(weights, scales, activations, block, starts), places, strict=True):
            out = text.write(total, _EIGHT, out, kind, place)
        text.line(f"scf.yield {out} : {kind}\n}}")
        return "%o"

    def _sums(
        self, weights: str, scales: str, activations: tuple[str, str, str], block: str, starts: list[str]
    ) -> list[str]:
        """Loops over groups of inputs; what was begun, with the products added."""
        text = self._text
        zero, one, groups = text.index(0), text.index(1), text.index(self._share.inputs // GROUP)
        kinds, begun = _listed(_EIGHT, len(starts)), _begun("%t", starts)
        text.line(f"{_named('%u', len(starts))} = scf.for %g = {zero} to {groups} step {one} iter_args({begun})")
        text.line(f"-> ({kinds}) {{")
        ends = self._scaled(self._products(weights, activations[0], block), scales, activations, block)
        text.line(f"scf.yield {','.join(ends)} : {kinds}\n}}")
        return _parts("%u", len(starts))

    def _products(self, weights: str, rounded: str, block: str) -> list[str]:
        """Loops over a group's pairs of steps; their sums of whole numbers, vector<8xi32> for each row."""
        text, form, count = self._text, self._share.form, self._share.rows
        nothing = text.value(f"arith.constant dense<0> : {form.sums}")
        zero, last, step = text.index(0), text.index(form.group_bytes), text.index(PAIR_BYTES)
        sums, kinds = [f"%y{i}" for i in range(count)], _listed(form.sums, count)
        first = text.value(f"arith.muli %g, {text.index(GROUP)} : index")
        text.line(f"{_named('%z', count)} = scf.for %at = {zero} to {last} step {step}")
        text.line(f"iter_args({_begun('%y', [nothing] * count)}) -> ({kinds}) {{")
        passed = text.value(f"arith.divui %at, {text.index(PAIR_BYTES // (2 * form.step_inputs))} : index")
        begin = text.value(f"arith.addi {first}, {passed} : index")
        for part, vector in enumerate(form.pair(text, weights, self._share.weights_type, (block, "%g"), "%at")):
            at = text.value(f"arith.addi {begin}, {text.index(part * form.step_inputs)} : index")
            for row in range(count):
                spread = spread_step(text, form, rounded, self._rounded[0], (text.index(row), at))
                sums[row] = form.add_products(text, vector, spread, sums[row])
        text.line(f"scf.yield {','.join(sums)} : {kinds}\n}}")
        return [form.group_sum(text, total) for total in _parts("%z", count)]

    def _scaled(self, products: list[str], scales: str, activations: tuple[str, str, str], block: str) -> list[str]:
        """The sums so far with a group's products added."""
        text, ends = self._text, []
        scale, *offset = self._factors(scales, block)
        own = [[self._spread(tensor, row) for row in range(self._share.rows)] for tensor in activations[1:]]
        for row in range(self._share.rows):
            real = text.value(f"arith.sitofp {products[row]} : vector<8xi32> to {_EIGHT}")
            both = text.value(f"arith.mulf {scale}, {own[0][row]} : {_EIGHT}")
            total = text.value(f"math.fma {real}, {both}, %t{row} : {_EIGHT}")
            ends.append(text.value(f"math.fma {offset[0]}, {own[1][row]}, {total} : {_EIGHT}") if offset else total)
        return ends

    def _factors(self, scales: str, block: str) -> list[str]:
        """A block's scales and, where the format has them, offsets of the group at %g."""
        text, made = self._text, []
        for at in range(0, self._share.form.scales, BLOCK):
            half = text.read(scales, self._share.scales_type, (block, "%g", text.index(at)), "vector<8xf16>")
            made.append(text.value(f"arith.extf {half} : vector<8xf16> to {_EIGHT}"))
        return made

    def _spread(self, tensor: str, row: int) -> str:
        one = self._text.value(f"tensor.extract {tensor}[{self._text.index(row)},%g] : {self._rounded[1]}")
        return self._text.value(f"vector.broadcast {one} : f32 to {_EIGHT}")


def spread_step(text: Text, form: Format, numbers: str, numbers_type: str, at: tuple[str, str]) -> str:
    """A row's activations of one step, repeated for every output: vector<8xi32>."""
    kind = f"vector<{form.step_inputs}x{form.activation}>"
    some = text.read(numbers, numbers_type, at, kind)
    word = text.value(f"vector.bitcast {some} : {kind} to vector<1xi32>")
    return text.value(f"vector.broadcast {word} : vector<1xi32> to vector<8xi32>")


def _listed(kind: str, count: int) -> str:
    return ",".join([kind] * count)


def _begun(name: str, values: list[str]) -> str:
    return ",".join(f"{name}{i}={value}" for i, value in enumerate(values))


def _named(name: str, count: int) -> str:
    return name if count == 1 else f"{name}:{count}"


def _parts(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}#{i}" for i in range(count)]
