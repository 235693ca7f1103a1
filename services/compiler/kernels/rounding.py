"""Rounds activations to whole numbers with a scale for each group of inputs. Text only."""

from __future__ import annotations

from typing import Final

from services.compiler.kernels.formats import GROUP, Format
from services.compiler.kernels.rows import GATED, NORMED, RowReader, Rows
from services.compiler.kernels.text import Text, dispatch

_EIGHT: Final = "vector<8xf32>"
_WORDS: Final = "vector<8xi32>"
_LANES: Final = 8
# A group of zeros needs a scale too.
_LEAST: Final = 1e-30
# Of a gated row that is written down before it is rounded. A group's exponentials, largest number, scale and sum wait
# for each other, and are too many instructions for a core to begin the next group's meanwhile.
_ROW_BYTES: Final = 16 << 10
_ALL_BUT_SIGN: Final = 0x7FFFFFFF
# To the nearest whole number, halves to even ones.
_NEAREST: Final = '"llvm.x86.avx.cvt.ps2dq.256"'
_PACK_WORDS: Final = '"llvm.x86.avx2.packssdw"'
_PACK_HALVES: Final = '"llvm.x86.avx2.packsswb"'


def rounded_types(form: Format, rows: int, inputs: int) -> tuple[str, str, str]:
    """Types of rounded activations, their scales, and the sums of each group."""
    groups = inputs // GROUP
    return (
        f"tensor<{rows}x{inputs}x{form.activation}>",
        f"tensor<{rows}x{groups}xf32>",
        f"tensor<{rows}x{groups}xf32>",
    )


def round_rows(text: Text, form: Format, reader: RowReader, rows: int, inputs: int) -> tuple[str, str, str]:
    """Rounds what the reader gives, f32 [rows, inputs]; the tensors of `rounded_types`."""
    kinds = rounded_types(form, rows, inputs)
    starts = [text.value(f"tensor.empty() : {kind}") for kind in kinds]
    listed = ",".join(kinds)
    zero, one = text.index(0), text.index(1)
    last_row, last_group, group = text.index(rows), text.index(inputs // GROUP), text.index(GROUP)
    name = text.fresh()
    row, place = f"{name}m", f"{name}g"
    outer, inner = ([f"{name}{letter}" for letter in letters] for letters in ("abc", "def"))
    text.line(f"{name}:3 = scf.for {row} = {zero} to {last_row} step {one} iter_args({_begun(outer, starts)})")
    text.line(f"-> ({listed}) {{")
    reader.begin(row)
    text.line(f"{name}r:3 = scf.for {place} = {zero} to {last_group} step {one} iter_args({_begun(inner, outer)})")
    text.line(f"-> ({listed}) {{")
    at = text.value(f"arith.muli {place}, {group} : index")
    numbers, scale, total = round_group(text, form, reader.group(row, at))
    wide = f"vector<32x{form.activation}>"
    ends = (
        text.write(numbers, wide, inner[0], kinds[0], (row, at)),
        text.value(f"tensor.insert {scale} into {inner[1]}[{row},{place}] : {kinds[1]}"),
        text.value(f"tensor.insert {total} into {inner[2]}[{row},{place}] : {kinds[2]}"),
    )
    text.line(f"scf.yield {','.join(ends)} : {listed}\n}}")
    text.line(f"scf.yield {name}r#0,{name}r#1,{name}r#2 : {listed}\n}}")
    return f"{name}#0", f"{name}#1", f"{name}#2"


def _begun(names: list[str], values: list[str]) -> str:
    return ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def round_group(text: Text, form: Format, parts: list[str]) -> tuple[str, str, str]:
    """Numbers, scale, and scale times the sum of the numbers."""
    most = text.value(f"arith.maxnumf {_largest(text, parts)}, {text.constant(_LEAST, 'f32')} : f32")
    levels = text.constant(form.levels, "f32")
    inverse = text.value(f"arith.divf {levels}, {most} : f32")
    scale = text.value(f"arith.divf {most}, {levels} : f32")
    spread = text.value(f"vector.broadcast {inverse} : f32 to {_EIGHT}")
    scaled = [text.value(f"arith.mulf {part}, {spread} : {_EIGHT}") for part in parts]
    words = [text.value(f"llvm.call_intrinsic {_NEAREST}({part}) : ({_EIGHT}) -> {_WORDS}") for part in scaled]
    count = text.value(f"vector.reduction <add>, {_folded(text, 'addi', words)} : {_WORDS} into i32")
    count = text.value(f"arith.sitofp {count} : i32 to f32")
    return _narrowed(text, form, words), scale, text.value(f"arith.mulf {count}, {scale} : f32")


def _largest(text: Text, parts: list[str]) -> str:
    """Of all sizes: floats without their sign are ordered as whole numbers are, and those need no care for NaN."""
    unsigned = text.value(f"arith.constant dense<{_ALL_BUT_SIGN}> : {_WORDS}")
    bits = [text.value(f"vector.bitcast {part} : {_EIGHT} to {_WORDS}") for part in parts]
    sizes = [text.value(f"arith.andi {some}, {unsigned} : {_WORDS}") for some in bits]
    most = text.value(f"vector.reduction <maxsi>, {_folded(text, 'maxsi', sizes)} : {_WORDS} into i32")
    return text.value(f"arith.bitcast {most} : i32 to f32")


def _folded(text: Text, operation: str, parts: list[str]) -> str:
    first, second, third, fourth = parts
    pairs = [text.value(f"arith.{operation} {a}, {b} : {_WORDS}") for a, b in ((first, second), (third, fourth))]
    return text.value(f"arith.{operation} {pairs[0]}, {pairs[1]} : {_WORDS}")


def _narrowed(text: Text, form: Format, words: list[str]) -> str:
    """Four vectors of eight numbers as one in the format's type. Packing goes by halves of registers."""
    halves = [
        text.value(f"llvm.call_intrinsic {_PACK_WORDS}({a}, {b}) : ({_WORDS}, {_WORDS}) -> vector<16xi16>")
        for a, b in (words[:2], words[2:])
    ]
    if form.activation == "i16":
        return text.value(
            f"vector.shuffle {halves[0]}, {halves[1]} [{_order(4, 32, 16)}] : vector<16xi16>, vector<16xi16>"
        )
    kinds = "(vector<16xi16>, vector<16xi16>) -> vector<32xi8>"
    packed = text.value(f"llvm.call_intrinsic {_PACK_HALVES}({halves[0]}, {halves[1]}) : {kinds}")
    return text.value(f"vector.shuffle {packed}, {packed} [{_order(4, 32, 32)}] : vector<32xi8>, vector<32xi8>")


def _order(run: int, count: int, register: int) -> str:
    """Where packing put each number: runs of four, low halves of the registers packed before high ones."""
    half = register // 2
    places = []
    for number in range(count):
        at, inside = divmod(number % register, run)
        low = (at % 2) * half + (at // 2) * run
        places.append(str(number - number % register + low + inside))
    return ",".join(places)


def rounding_kernel(name: str, form: Format, rows: Rows) -> str:
    """Function of rows, and of the norm's gains where there is one: the tensors of `rounded_types`.

    A workgroup for each row.
    """
    text, inputs = Text(), {"x": rows.kind()}
    zero = text.index(0)
    source = text.load("%x", rows.kind(), ("%wg0", zero), (1, rows.columns), rows.kind(1))
    gain = ""
    if rows.made == NORMED:
        inputs["gain"] = rows.gain_kind
        gain = text.load("%gain", rows.gain_kind, (zero,), (rows.inputs,), rows.gain_kind)
    kinds, parts = rounded_types(form, rows.count, rows.inputs), rounded_types(form, 1, rows.inputs)
    reader = RowReader(text, rows, source, 1, gain)
    if rows.made == GATED and rows.inputs * 4 <= _ROW_BYTES:
        plain = Rows(rows.count, rows.inputs)
        reader = RowReader(text, plain, _made(text, reader, plain), 1, "")
    made = round_rows(text, form, reader, 1, rows.inputs)
    for key, value, kind, part in zip("qab", made, kinds, parts, strict=True):
        width = rows.inputs if key == "q" else rows.inputs // GROUP
        text.store(value, part, f"%{key}", kind, ("%wg0", zero), (1, width))
    return dispatch(name, inputs, dict(zip("qab", kinds, strict=True)), (rows.count,), text)


def _made(text: Text, reader: RowReader, rows: Rows) -> str:
    """One row of what the reader gives, written down: f32 [1, inputs]."""
    kind, zero = rows.kind(1), text.index(0)
    empty, name = text.value(f"tensor.empty() : {kind}"), text.fresh()
    last, step, column = text.index(rows.inputs), text.index(GROUP), f"{name}c"
    reader.begin(zero)
    text.line(f"{name} = scf.for {column} = {zero} to {last} step {step} iter_args({name}o={empty}) -> ({kind}) {{")
    out = f"{name}o"
    for number, eight in enumerate(reader.group(zero, column)):
        at = text.value(f"arith.addi {column}, {text.index(number * _LANES)} : index")
        out = text.write(eight, _EIGHT, out, kind, (zero, at))
    text.line(f"scf.yield {out} : {kind}\n}}")
    return name
