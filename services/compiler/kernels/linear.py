"""Linear layers over packed weights. Text only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.compiler.kernels.formats import BLOCK, GROUP, Format
from services.compiler.kernels.many_rows import ManyRows, takes, tiled_rounding_kernel, tiled_types
from services.compiler.kernels.rounding import round_rows, rounded_types, rounding_kernel
from services.compiler.kernels.text import Text, dispatch

# Rows whose sums stay in registers together; with 8 bits only one weight is held beside them.
_ROW_TILES: Final = {"w4": (4, 2, 1), "w8": (8, 4, 2, 1)}
# Inputs that a workgroup rounds again for itself. One row's cost less than another dispatch; with 4 rows of 1536 the
# dispatch that multiplies took 184 us so, and 65 us with the rounding in one of its own.
_ROUNDED_INSIDE: Final = 2_048
# More than the cores that a replica has, so that they end together; each costs about a microsecond.
_WORKGROUPS: Final = 16
# A workgroup with fewer blocks than this is not worth its start.
_LEAST_BLOCKS: Final = 6


@dataclass(frozen=True, slots=True)
class Linear:
    """Shape of a layer: f32 [rows, inputs] → f32 [rows, outputs]."""

    form: Format
    rows: int
    inputs: int
    outputs: int

    @property
    def name(self) -> str:
        """Of its function."""
        return f"tradewind_linear_{self.form.name}_{self.rows}x{self.inputs}x{self.outputs}"

    @property
    def groups(self) -> int:
        """Of inputs."""
        return self.inputs // GROUP

    @property
    def blocks(self) -> int:
        """Of outputs."""
        return self.outputs // BLOCK

    @property
    def rounds_inside(self) -> bool:
        """Whether each workgroup rounds the activations for itself."""
        return self.rows * self.inputs <= _ROUNDED_INSIDE

    @property
    def many_rows(self) -> bool:
        """Whether lanes are rows, see `many_rows`."""
        return not self.rounds_inside and takes(self.rows, self.inputs, self.form)

    @property
    def workgroups(self) -> int:
        """Equal shares of the blocks."""
        most = max(1, min(_WORKGROUPS, self.blocks // _LEAST_BLOCKS))
        return next(n for n in range(most, 0, -1) if self.blocks % n == 0)

    @property
    def row_tile(self) -> int:
        """Rows that are computed together."""
        return next(n for n in _ROW_TILES[self.form.name] if self.rows % n == 0)


def linear_kernels(shape: Linear) -> str:
    """Functions `shape.name`(x, weights, scales) → y, and what it calls."""
    inner = shape.name if shape.rounds_inside else f"{shape.name}_product"
    product = _product(shape, inner)
    if shape.rounds_inside:
        return product
    rounding = f"tradewind_round_{shape.form.name}_{shape.rows}x{shape.inputs}"
    kinds = ", ".join(_rounded(shape))
    x, weights, scales, y = _types(shape)
    write = tiled_rounding_kernel if shape.many_rows else rounding_kernel
    return f"""{write(rounding, shape.form, shape.rows, shape.inputs)}
{product}
util.func private @{shape.name}(%x: {x}, %w: {weights}, %s: {scales}) -> {y} {{
%q:3 = util.call @{rounding}(%x) : ({x}) -> ({kinds})
%y = util.call @{inner}(%q#0, %q#1, %q#2, %w, %s) : ({kinds}, {weights}, {scales}) -> {y}
util.return %y : {y}
}}"""


def _rounded(shape: Linear) -> tuple[str, str, str]:
    return (tiled_types if shape.many_rows else rounded_types)(shape.form, shape.rows, shape.inputs)


def _types(shape: Linear) -> tuple[str, str, str, str]:
    return (
        f"tensor<{shape.rows}x{shape.inputs}xf32>",
        f"tensor<{shape.blocks}x{shape.groups}x{shape.form.group_bytes}xi8>",
        f"tensor<{shape.blocks}x{shape.groups}x{shape.form.scales}xf16>",
        f"tensor<{shape.rows}x{shape.outputs}xf32>",
    )


def _product(shape: Linear, name: str) -> str:
    return _Product(shape).kernel(name)


class _Product:
    """The dispatch that multiplies, under way."""

    def __init__(self, shape: Linear) -> None:
        self._shape, self._text = shape, Text()
        self._share = shape.blocks // shape.workgroups
        form = shape.form
        self._weights_type = f"tensor<{self._share}x{shape.groups}x{form.group_bytes}xi8>"
        self._scales_type = f"tensor<{self._share}x{shape.groups}x{form.scales}xf16>"
        self._out_type = f"tensor<{shape.rows}x{self._share * BLOCK}xf32>"
        self._rounded = _rounded(shape)

    def kernel(self, name: str) -> str:
        shape, text = self._shape, self._text
        x, weights, scales, y = _types(shape)
        inputs = {"x": x} if shape.rounds_inside else dict(zip("qab", self._rounded, strict=True))
        activations = self._activations()
        first = text.value(f"arith.muli %wg0, {text.index(self._share)} : index")
        zero = text.index(0)
        part = (self._share, shape.groups)
        w = text.load("%w", weights, (first, zero, zero), (*part, shape.form.group_bytes), self._weights_type)
        s = text.load("%s", scales, (first, zero, zero), (*part, shape.form.scales), self._scales_type)
        out = self._blocks(w, s, activations)
        column = text.value(f"arith.muli {first}, {text.index(BLOCK)} : index")
        text.store(out, self._out_type, "%y", y, (zero, column), (shape.rows, self._share * BLOCK))
        return dispatch(name, {**inputs, "w": weights, "s": scales}, {"y": y}, (shape.workgroups,), text)

    def _activations(self) -> tuple[str, str, str]:
        shape, text = self._shape, self._text
        zero = text.index(0)
        if shape.rounds_inside:
            x = _types(shape)[0]
            whole = text.load("%x", x, (zero, zero), (shape.rows, shape.inputs), x)
            return round_rows(text, shape.form, whole, shape.rows, shape.inputs)
        sizes = [[int(size) for size in kind[7:-1].split("x")[:-1]] for kind in self._rounded]
        q, a, b = (
            text.load(f"%{key}", kind, [zero] * len(size), size, kind)
            for key, kind, size in zip("qab", self._rounded, sizes, strict=True)
        )
        return q, a, b

    def _blocks(self, weights: str, scales: str, activations: tuple[str, str, str]) -> str:
        """Loops over blocks of outputs and tiles of rows; the workgroup's part of the result."""
        shape, text, tile = self._shape, self._text, self._shape.row_tile
        if shape.many_rows:
            sizes = (shape.rows, shape.inputs, self._share)
            kinds = (self._weights_type, self._scales_type, self._out_type)
            return ManyRows(text, shape.form, sizes, kinds).write(weights, scales, activations)
        zero, one = text.index(0), text.index(1)
        start = text.value(f"tensor.empty() : {self._out_type}")
        rows, step, blocks = text.index(shape.rows), text.index(tile), text.index(self._share)
        text.line(f"%o = scf.for %n = {zero} to {blocks} step {one} iter_args(%o0={start}) -> ({self._out_type}) {{")
        text.line(f"%p = scf.for %m = {zero} to {rows} step {step} iter_args(%p0=%o0) -> ({self._out_type}) {{")
        sums = self._groups(weights, scales, activations)
        column = text.value(f"arith.muli %n, {text.index(BLOCK)} : index")
        out = "%p0"
        for row, total in enumerate(sums):
            out = text.write(total, "vector<8xf32>", out, self._out_type, (self._row(row), column))
        text.line(f"scf.yield {out} : {self._out_type}\n}}\nscf.yield %p : {self._out_type}\n}}")
        return "%o"

    def _groups(self, weights: str, scales: str, activations: tuple[str, str, str]) -> list[str]:
        """Loops over groups of inputs; a sum for each row of the tile."""
        shape, text, tile = self._shape, self._text, self._shape.row_tile
        kinds = ",".join(["vector<8xf32>"] * tile)
        zero, one, groups = text.index(0), text.index(1), text.index(shape.groups)
        start = text.constant(0.0, "vector<8xf32>")
        sums = [f"%t{row}" for row in range(tile)]
        started = ",".join(f"{name}={start}" for name in sums)
        head = "%u" if tile == 1 else f"%u:{tile}"
        text.line(f"{head} = scf.for %g = {zero} to {groups} step {one} iter_args({started}) -> ({kinds}) {{")
        vectors = shape.form.unpack(text, weights, self._weights_type, "%n", "%g")
        factors = self._factors(scales)
        products = shape.form.products(text, vectors, self._broadcaster(activations[0]), tile)
        ends = [self._scaled(products[row], factors, activations, row, total) for row, total in enumerate(sums)]
        text.line(f"scf.yield {','.join(ends)} : {kinds}\n}}")
        return ["%u"] if tile == 1 else [f"%u#{row}" for row in range(tile)]

    def _factors(self, scales: str) -> list[str]:
        """The group's scales and, where the format has them, offsets."""
        text, made = self._text, []
        for at in range(0, self._shape.form.scales, BLOCK):
            half = text.read(scales, self._scales_type, ("%n", "%g", text.index(at)), "vector<8xf16>")
            made.append(text.value(f"arith.extf {half} : vector<8xf16> to vector<8xf32>"))
        return made

    def _scaled(
        self, products: str, factors: list[str], activations: tuple[str, str, str], row: int, total: str
    ) -> str:
        text, at = self._text, self._row(row)
        _, scales, sums = activations
        real = text.value(f"arith.sitofp {products} : vector<8xi32> to vector<8xf32>")
        both = text.value(f"arith.mulf {factors[0]}, {self._spread(scales, at)} : vector<8xf32>")
        total = text.value(f"math.fma {real}, {both}, {total} : vector<8xf32>")
        if self._shape.form.has_offset:
            total = text.value(f"math.fma {factors[1]}, {self._spread(sums, at)}, {total} : vector<8xf32>")
        return total

    def _broadcaster(self, numbers: str) -> Callable[[int, int], str]:
        """Writes what a row's activations of a step are, repeated for every output: vector<8xi32>."""
        text, form = self._text, self._shape.form
        group = text.value(f"arith.muli %g, {text.index(GROUP)} : index")
        kind = f"vector<{form.step_inputs}x{form.activation}>"

        def write(row: int, step: int) -> str:
            at = text.value(f"arith.addi {group}, {text.index(step * form.step_inputs)} : index")
            some = text.read(numbers, self._rounded[0], (self._row(row), at), kind)
            word = text.value(f"vector.bitcast {some} : {kind} to vector<1xi32>")
            word = text.value(f"vector.extract {word}[0] : i32 from vector<1xi32>")
            return text.value(f"vector.broadcast {word} : i32 to vector<8xi32>")

        return write

    def _spread(self, tensor: str, row: str) -> str:
        one = self._text.value(f"tensor.extract {tensor}[{row},%g] : {self._rounded[1]}")
        return self._text.value(f"vector.broadcast {one} : f32 to vector<8xf32>")

    def _row(self, row: int) -> str:
        return self._text.value(f"arith.addi %m, {self._text.index(row)} : index")
