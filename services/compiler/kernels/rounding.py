"""Rounds activations to whole numbers with a scale for each group of inputs. Text only."""

from __future__ import annotations

from services.compiler.kernels.formats import GROUP, Format
from services.compiler.kernels.rows import NORMED, RowReader, Rows
from services.compiler.kernels.text import Text, dispatch


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
    text.line(f"%rq:3 = scf.for %rm = {zero} to {last_row} step {one} iter_args(%ra={starts[0]},%rb={starts[1]},")
    text.line(f"%rc={starts[2]}) -> ({listed}) {{")
    reader.begin("%rm")
    text.line(
        f"%rr:3 = scf.for %rg = {zero} to {last_group} step {one} iter_args(%rd=%ra,%re=%rb,%rf=%rc) -> ({listed}) {{"
    )
    at = text.value(f"arith.muli %rg, {group} : index")
    numbers, scale, total = round_group(text, form, reader.group("%rm", at))
    wide = f"vector<32x{form.activation}>"
    ends = (
        text.write(numbers, wide, "%rd", kinds[0], ("%rm", at)),
        text.value(f"tensor.insert {scale} into %re[%rm,%rg] : {kinds[1]}"),
        text.value(f"tensor.insert {total} into %rf[%rm,%rg] : {kinds[2]}"),
    )
    text.line(f"scf.yield {','.join(ends)} : {listed}\n}}\nscf.yield %rr#0,%rr#1,%rr#2 : {listed}\n}}")
    return "%rq#0", "%rq#1", "%rq#2"


def round_group(text: Text, form: Format, row: str) -> tuple[str, str, str]:
    """Numbers, scale, and scale times the sum of the numbers."""
    size = text.value(f"math.absf {row} : vector<32xf32>")
    most = text.value(f"vector.reduction <maxnumf>, {size} : vector<32xf32> into f32")
    # A group of zeros needs a scale too.
    most = text.value(f"arith.maxnumf {most}, {text.constant(1e-30, 'f32')} : f32")
    levels = text.constant(form.levels, "f32")
    inverse = text.value(f"arith.divf {levels}, {most} : f32")
    scale = text.value(f"arith.divf {most}, {levels} : f32")
    spread = text.value(f"vector.broadcast {inverse} : f32 to vector<32xf32>")
    scaled = text.value(f"arith.mulf {row}, {spread} : vector<32xf32>")
    whole = text.value(f"math.roundeven {scaled} : vector<32xf32>")
    words = text.value(f"arith.fptosi {whole} : vector<32xf32> to vector<32xi32>")
    numbers = text.value(f"arith.trunci {words} : vector<32xi32> to vector<32x{form.activation}>")
    count = text.value(f"vector.reduction <add>, {words} : vector<32xi32> into i32")
    count = text.value(f"arith.sitofp {count} : i32 to f32")
    return numbers, scale, text.value(f"arith.mulf {count}, {scale} : f32")


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
    made = round_rows(text, form, RowReader(text, rows, source, 1, gain), 1, rows.inputs)
    for key, value, kind, part in zip("qab", made, kinds, parts, strict=True):
        width = rows.inputs if key == "q" else rows.inputs // GROUP
        text.store(value, part, f"%{key}", kind, ("%wg0", zero), (1, width))
    return dispatch(name, inputs, dict(zip("qab", kinds, strict=True)), (rows.count,), text)
