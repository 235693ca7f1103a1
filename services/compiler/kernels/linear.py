"""Linear layers over packed weights, with what is done to their rows and what their result is added to. Text only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.compiler.kernels import few_rows
from services.compiler.kernels.few_rows import FewRows, spread_step
from services.compiler.kernels.formats import BLOCK, GROUP, Format
from services.compiler.kernels.rounding import round_rows, rounded_types, rounding_kernel
from services.compiler.kernels.rows import GATED, NORMED, PLAIN, ROUNDED, RowReader, Rows
from services.compiler.kernels.several_rows import SeveralRows
from services.compiler.kernels.share import Share
from services.compiler.kernels.text import MOST_WORKGROUPS, Text, dispatch, equal_shares

# Inputs that a workgroup rounds again for itself. One row's cost less than another dispatch; with 4 rows of 1536 the
# dispatch that multiplies took 184 us so, and 65 us with the rounding in one of its own.
_ROUNDED_INSIDE: Final = 2_048
# A workgroup with fewer blocks than this is not worth its start.
_LEAST_BLOCKS: Final = 6
_EIGHT: Final = "vector<8xf32>"


@dataclass(frozen=True, slots=True)
class Linear:
    """Shape of a layer: what is made of rows [rows, inputs] → f32 [rows, outputs].

    Attributes:
        form: of the weights.
        read: the rows.
        outputs: of the layer.
        added: whether the result is added to f32 [rows, outputs].
        gated: what silu(first half) · second half of the result is rounded for; None for the result itself.
    """

    form: Format
    read: Rows
    outputs: int
    added: bool = False
    gated: Format | None = None

    @property
    def name(self) -> str:
        """Of its function."""
        shape = f"{self.read.count}x{self.read.inputs}x{self.outputs}{self.read.suffix}"
        end = f"_gated_{self.gated.name}" if self.gated else "_added" if self.added else ""
        return f"tradewind_linear_{self.form.name}_{shape}{end}"

    @property
    def rows(self) -> int:
        """How many."""
        return self.read.count

    @property
    def groups(self) -> int:
        """Of inputs."""
        return self.read.inputs // GROUP

    @property
    def blocks(self) -> int:
        """Of outputs."""
        return self.outputs // BLOCK

    @property
    def rounds_inside(self) -> bool:
        """Whether each workgroup makes and rounds the rows for itself; a gate's exponentials cost too much for that."""
        return self.read.made in (PLAIN, NORMED) and self.rows * self.read.inputs <= _ROUNDED_INSIDE

    @property
    def workgroups(self) -> int:
        """Equal shares of the blocks, or of groups of gated ones."""
        pieces = self.outputs // 2 // GROUP if self.gated else self.blocks
        return equal_shares(pieces, min(MOST_WORKGROUPS, self.blocks // _LEAST_BLOCKS))

    @property
    def rounded(self) -> tuple[str, str, str]:
        """Types of the rounded rows."""
        return rounded_types(self.form, self.rows, self.read.inputs)

    @property
    def weights(self) -> tuple[str, str]:
        """Types of the weights and their scales."""
        part = f"tensor<{self.blocks}x{self.groups}"
        return f"{part}x{self.form.group_bytes}xi8>", f"{part}x{self.form.scales}xf16>"

    @property
    def result(self) -> str:
        """Type of the result, and of what it is added to."""
        return f"tensor<{self.rows}x{self.outputs}xf32>"

    @property
    def results(self) -> dict[str, str]:
        """Types of what its function gives."""
        if self.gated is None:
            return {"y": self.result}
        return dict(zip(("yq", "ya", "yb"), rounded_types(self.gated, self.rows, self.outputs // 2), strict=True))

    @property
    def arguments(self) -> dict[str, str]:
        """Types of what its function takes, in order; it has a gain only of a norm, and `added` only to add to it."""
        weights, scales = self.weights
        whole = self.read.made == ROUNDED
        rows = dict(zip("qab", self.rounded, strict=True)) if whole else {"x": self.read.kind()}
        gain = {"gain": self.read.gain_kind} if self.read.made == NORMED else {}
        added = {"added": self.result} if self.added else {}
        return rows | {"w": weights, "s": scales} | gain | added


def linear_kernels(shape: Linear) -> str:
    """Function `shape.name` of `shape.arguments` → `shape.results`, and what it calls."""
    if shape.rounds_inside or shape.read.made == ROUNDED:
        return _Product(shape).kernel()
    inner = replace(shape, read=Rows(shape.rows, shape.read.inputs, ROUNDED))
    rounding = f"tradewind_round_{shape.form.name}_{shape.rows}x{shape.read.inputs}{shape.read.suffix}"
    kinds, results = ", ".join(shape.rounded), ", ".join(shape.results.values())
    source = {key: kind for key, kind in shape.arguments.items() if key in ("x", "gain")}
    others = {key: kind for key, kind in shape.arguments.items() if key not in source}
    listed = ", ".join(f"%{key}: {kind}" for key, kind in shape.arguments.items())
    count = len(shape.results)
    given = ", ".join(f"%y#{i}" for i in range(count))
    return f"""{rounding_kernel(rounding, shape.form, shape.read)}
{_Product(inner).kernel()}
util.func private @{shape.name}({listed}) -> ({results}) {{
%q:3 = util.call @{rounding}({_names(source)}) : ({", ".join(source.values())}) -> ({kinds})
%y:{count} = util.call @{inner.name}(%q#0, %q#1, %q#2, {_names(others)})
 : ({kinds}, {", ".join(others.values())}) -> ({results})
util.return {given} : {results}
}}"""


def _names(arguments: dict[str, str]) -> str:
    return ", ".join(f"%{key}" for key in arguments)


class _Product:
    """The dispatch that multiplies, under way."""

    def __init__(self, shape: Linear) -> None:
        self._shape, self._text, self._added = shape, Text(), ""
        self._share = self._plain_share()

    def _plain_share(self) -> Share:
        shape = self._shape
        blocks = shape.blocks // shape.workgroups
        part, form = f"tensor<{blocks}x{shape.groups}", shape.form
        kinds = f"{part}x{form.group_bytes}xi8>", f"{part}x{form.scales}xf16>"
        return Share(form, shape.rows, shape.read.inputs, blocks, *kinds)

    def kernel(self) -> str:
        shape, text = self._shape, self._text
        activations = self._activations()
        if shape.gated:
            self._multiply_gated(activations, shape.gated)
        else:
            self._multiply(activations)
        return dispatch(shape.name, shape.arguments, shape.results, (shape.workgroups,), text)

    def _multiply(self, activations: tuple[str, str, str]) -> None:
        shape, text, share = self._shape, self._text, self._share
        first = text.value(f"arith.muli %wg0, {text.index(share.blocks)} : index")
        zero, weights = text.index(0), self._weights(first, share.blocks)
        column = text.value(f"arith.muli {first}, {text.index(BLOCK)} : index")
        place, size = (zero, column), (shape.rows, share.blocks * BLOCK)
        if shape.added:
            self._added = text.load("%added", shape.result, place, size, share.out_type)
        out = self._blocks(*weights, activations)
        text.store(out, share.out_type, "%y", shape.result, place, size)

    def _multiply_gated(self, activations: tuple[str, str, str], form: Format) -> None:
        """Loops over groups of the workgroup's gated columns, so that what waits to be gated is small."""
        shape, text = self._shape, self._text
        zero, one, count = text.index(0), text.index(1), shape.outputs // 2 // GROUP // shape.workgroups
        before = text.value(f"arith.muli %wg0, {text.index(count)} : index")
        text.line(f"scf.for %part = {zero} to {text.index(count)} step {one} {{")
        group = text.value(f"arith.addi {before}, %part : index")
        first = text.value(f"arith.muli {group}, {text.index(GROUP // BLOCK)} : index")
        sizes = shape.form, shape.rows, shape.read.inputs, 2 * GROUP // BLOCK
        self._share = Share(*sizes, *shape.weights, first, shape.blocks // 2)
        self._gate(self._blocks(*self._weights(zero, shape.blocks), activations), group, form)
        text.line("}")

    def _weights(self, first: str, blocks: int) -> tuple[str, str]:
        """The tensors of the share's types: some blocks of the layer's weights, and of their scales."""
        shape, text, share = self._shape, self._text, self._share
        zero, kinds = text.index(0), (share.weights_type, share.scales_type)
        w, s = (
            text.load(f"%{key}", whole, (first, zero, zero), (blocks, shape.groups, last), kind)
            for key, whole, last, kind in zip(
                "ws", shape.weights, (shape.form.group_bytes, shape.form.scales), kinds, strict=True
            )
        )
        return w, s

    def _gate(self, out: str, group: str, form: Format) -> None:
        """Gates a group's columns and stores them rounded."""
        shape, text = self._shape, self._text
        reader = RowReader(text, Rows(shape.rows, GROUP, GATED), out, shape.rows, "")
        made, parts = round_rows(text, form, reader, shape.rows, GROUP), rounded_types(form, shape.rows, GROUP)
        column = text.value(f"arith.muli {group}, {text.index(GROUP)} : index")
        places = ((column, GROUP), (group, 1), (group, 1))
        for (key, kind), value, part, (place, width) in zip(shape.results.items(), made, parts, places, strict=True):
            text.store(value, part, f"%{key}", kind, (text.index(0), place), (shape.rows, width))

    def _activations(self) -> tuple[str, str, str]:
        shape, text, read = self._shape, self._text, self._shape.read
        zero = text.index(0)
        if shape.rounds_inside:
            whole = text.load("%x", read.kind(), (zero, zero), (read.count, read.columns), read.kind())
            gain = ""
            if read.made == NORMED:
                gain = text.load("%gain", read.gain_kind, (zero,), (read.inputs,), read.gain_kind)
            return round_rows(text, shape.form, RowReader(text, read, whole, read.count, gain), read.count, read.inputs)
        sizes = [[int(size) for size in kind[7:-1].split("x")[:-1]] for kind in shape.rounded]
        q, a, b = (
            text.load(f"%{key}", kind, [zero] * len(size), size, kind)
            for key, kind, size in zip("qab", shape.rounded, sizes, strict=True)
        )
        return q, a, b

    def _blocks(self, weights: str, scales: str, activations: tuple[str, str, str]) -> str:
        """Loops over blocks of outputs; the workgroup's part of the result."""
        shape, text, share = self._shape, self._text, self._share
        if shape.rows > 1:
            kernel = FewRows if few_rows.takes(shape.rows) else SeveralRows
            return kernel(text, share).write(weights, scales, activations, self._added)
        zero, one, blocks = text.index(0), text.index(1), text.index(share.blocks)
        start = text.value(f"tensor.empty() : {share.out_type}")
        text.line(f"%o = scf.for %n = {zero} to {blocks} step {one} iter_args(%o0={start}) -> ({share.out_type}) {{")
        column = text.value(f"arith.muli %n, {text.index(BLOCK)} : index")
        total = self._sum(weights, scales, activations, column, share.block(text, "%n"))
        out = text.write(total, _EIGHT, "%o0", share.out_type, (zero, column))
        text.line(f"scf.yield {out} : {share.out_type}\n}}")
        return "%o"

    def _sum(self, weights: str, scales: str, activations: tuple[str, str, str], column: str, block: str) -> str:
        """Loops over groups of inputs; a block's products of the one row, on top of what they are added to."""
        shape, text, form = self._shape, self._text, self._shape.form
        zero, one, groups = text.index(0), text.index(1), text.index(shape.groups)
        start = text.constant(0.0, _EIGHT)
        if shape.added:
            start = text.read(self._added, self._share.out_type, (zero, column), _EIGHT)
        text.line(f"%u = scf.for %g = {zero} to {groups} step {one} iter_args(%t={start}) -> ({_EIGHT}) {{")
        first, products = text.value(f"arith.muli %g, {text.index(GROUP)} : index"), ""
        for step, vector in enumerate(form.unpack(text, weights, self._share.weights_type, block, "%g")):
            at = text.value(f"arith.addi {first}, {text.index(step * form.step_inputs)} : index")
            spread = spread_step(text, form, activations[0], shape.rounded[0], (zero, at))
            products = form.add_products(text, vector, spread, products)
        real = text.value(f"arith.sitofp {form.group_sum(text, products)} : vector<8xi32> to {_EIGHT}")
        scale, *offset = self._factors(scales, block)
        both = text.value(f"arith.mulf {scale}, {self._spread(activations[1])} : {_EIGHT}")
        total = text.value(f"math.fma {real}, {both}, %t : {_EIGHT}")
        if offset:
            total = text.value(f"math.fma {offset[0]}, {self._spread(activations[2])}, {total} : {_EIGHT}")
        text.line(f"scf.yield {total} : {_EIGHT}\n}}")
        return "%u"

    def _factors(self, scales: str, block: str) -> list[str]:
        """The group's scales and, where the format has them, offsets."""
        text, made = self._text, []
        for at in range(0, self._shape.form.scales, BLOCK):
            half = text.read(scales, self._share.scales_type, (block, "%g", text.index(at)), "vector<8xf16>")
            made.append(text.value(f"arith.extf {half} : vector<8xf16> to {_EIGHT}"))
        return made

    def _spread(self, tensor: str) -> str:
        one = self._text.value(f"tensor.extract {tensor}[{self._text.index(0)},%g] : {self._shape.rounded[1]}")
        return self._text.value(f"vector.broadcast {one} : f32 to {_EIGHT}")
