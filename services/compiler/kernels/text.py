"""Writes MLIR line by line with a fresh name for each value. Pure; knows no kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# Of a dispatch whose work can be cut as one likes. IREE's workers take them one by one, and so end together, only while
# there are fewer than 8 for each worker; of more they take 8 at a time, which for two workers is one large share each.
# https://github.com/iree-org/iree/blob/main/runtime/src/iree/hal/drivers/local_task/block_processor.c
MOST_WORKGROUPS: Final = 15
_DISPATCH: Final = "!iree_tensor_ext.dispatch.tensor"


class Text:
    """Lines of MLIR under way."""

    def __init__(self) -> None:
        """Empty."""
        self._lines: list[str] = []
        self._count = 0

    def line(self, line: str) -> None:
        """Adds a line as it is."""
        self._lines.append(line)

    def value(self, expression: str) -> str:
        """Adds an operation with one result; the result's name."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"{name} = {expression}")
        return name

    def fresh(self) -> str:
        """A name that nothing has yet, for what is not made by `value`."""
        self._count += 1
        return f"%n{self._count}_"

    def index(self, number: int) -> str:
        """A constant index."""
        return self.value(f"arith.constant {number} : index")

    def constant(self, number: float, kind: str) -> str:
        """A constant float, or a vector of one repeated."""
        written = f"{number:.9e}"
        return self.value(f"arith.constant {f'dense<{written}>' if kind.startswith('vector') else written} : {kind}")

    def read(self, source: str, source_type: str, at: Sequence[str], vector: str) -> str:
        """A vector read from a tensor along its last dimension; all of it must lie inside."""
        element = vector.rstrip(">").split("x")[-1]
        zero = self.value(f"arith.constant {'0.0' if element.startswith('f') else '0'} : {element}")
        where = ",".join(at)
        return self.value(
            f"vector.transfer_read {source}[{where}], {zero} {{in_bounds=[true]}} : {source_type}, {vector}"
        )

    def write(self, vector: str, vector_type: str, target: str, target_type: str, at: Sequence[str]) -> str:
        """The tensor with a vector written along its last dimension."""
        where = ",".join(at)
        return self.value(
            f"vector.transfer_write {vector}, {target}[{where}] {{in_bounds=[true]}} : {vector_type}, {target_type}"
        )

    def load(self, source: str, whole: str, offsets: Sequence[str], sizes: Sequence[int], part: str) -> str:
        """A part of a dispatch's input."""
        return self.value(
            f"iree_tensor_ext.dispatch.tensor.load {source}, offsets=[{','.join(offsets)}], sizes={list(sizes)}, "
            f"strides={[1] * len(sizes)} : {_DISPATCH}<readonly:{whole}> -> {part}"
        )

    def store(
        self,
        part: str,
        part_type: str,
        target: str,
        whole: str,
        offsets: Sequence[str],
        sizes: Sequence[int],
        access: str = "writeonly",
    ) -> None:
        """Puts a part of a dispatch's output; access is "readwrite" for what it keeps."""
        self.line(
            f"iree_tensor_ext.dispatch.tensor.store {part}, {target}, offsets=[{','.join(offsets)}], "
            f"sizes={list(sizes)}, strides={[1] * len(sizes)} : {part_type} -> {_DISPATCH}<{access}:{whole}>"
        )

    def __str__(self) -> str:
        """All lines."""
        return "\n".join(self._lines)


def equal_shares(count: int, most: int) -> int:
    """Into how many equal shares some pieces of work are cut: no more than `most`, and at least one.

    Two workers, or four, would wait for the last of an odd number: the largest even one, unless that is far fewer.
    """
    shares = [n for n in range(max(1, min(count, most)), 0, -1) if count % n == 0]
    return next((n for n in shares if n % 2 == 0 and 3 * n >= 2 * shares[0]), shares[0])


def dispatch(
    name: str,
    inputs: dict[str, str],
    outputs: dict[str, str],
    workgroups: Sequence[int],
    body: Text,
    kept: dict[str, str] | None = None,
) -> str:
    """A function that runs one dispatch.

    Args:
        name: of the function.
        inputs: tensor types by the names under which the body sees them.
        outputs: the same.
        workgroups: how many, in up to three dimensions; the body sees %wg0, %wg1 …
        body: operations between its inputs and outputs.
        kept: tensors that come in behind the inputs, are changed in place and go out behind the outputs.
    """
    taken = inputs | (kept or {})
    arguments = ", ".join(f"%{key}_all: {kind}" for key, kind in taken.items())
    names = ", ".join(f"%{key}_all" for key in taken)
    made = [*outputs.values(), *(kept or {}).values()]
    results = ", ".join([*outputs.values(), *(f"%{key}_all" for key in kept or {})])
    seen = [f"%{key}: {_DISPATCH}<readonly:{kind}>" for key, kind in inputs.items()]
    seen += [f"%{key}: {_DISPATCH}<readwrite:{kind}>" for key, kind in (kept or {}).items()]
    seen += [f"%{key}: {_DISPATCH}<writeonly:{kind}>" for key, kind in outputs.items()]
    ids = "\n".join(f"%wg{d} = flow.dispatch.workgroup.id[{d}] : index" for d in range(len(workgroups)))
    counts = "\n".join(f"%n{d} = arith.constant {(*workgroups, 1, 1)[d]} : index" for d in range(3))
    given = ", ".join(f"%r#{i}" for i in range(len(made))) if len(made) > 1 else "%r"
    head = f"%r:{len(made)}" if len(made) > 1 else "%r"
    return f"""util.func private @{name}({arguments}) -> ({", ".join(made)}) {{
{head} = flow.dispatch.workgroups({names}) : ({", ".join(taken.values())}) -> ({results}) =
 ({", ".join(seen)}) {{
{ids}
{body}
flow.return
}} count() -> (index, index, index) {{
{counts}
flow.return %n0, %n1, %n2 : index, index, index
}}
util.return {given} : {", ".join(made)}
}}"""
