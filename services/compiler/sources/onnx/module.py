"""An ONNX graph as a PyTorch module: each node is run by the operator of its name. Knows no model.

Nodes whose inputs are all known (shapes, axes, masks made of shapes) are run by ONNX's own reference evaluator while
the graph is traced, so that they leave no trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from services.compiler.sources.onnx.elementwise import ELEMENTWISE, Operator
from services.compiler.sources.onnx.evaluator import Evaluator
from services.compiler.sources.onnx.numeric import NUMERIC
from services.compiler.sources.onnx.reading import STANDARD_DOMAINS
from services.compiler.sources.onnx.shaping import SHAPING, known_shape
from services.compiler.sources.onnx.values import Known, Value, tensor
from tradewind.domain.errors import UnsupportedModel

OPERATORS: Final[dict[str, Operator]] = {**ELEMENTWISE, **SHAPING, **NUMERIC}
# Handled here and not in the tables.
_BUILT_IN: Final = frozenset({"Shape", "Size", "Constant"})
# Weights of at most this many elements are numbers of the code: axes, epsilons, masks' fillers.
_SMALL: Final = 8


class OnnxModule(torch.nn.Module):
    """Runs a graph on tensors in the order of `inputs`; gives those of `outputs`."""

    def __init__(
        self,
        model: Any,
        weights: Mapping[str, Known],
        inputs: Sequence[str],
        dtype: torch.dtype = torch.float32,
        kept: torch.dtype | None = None,
    ) -> None:
        """Keeps the weights as parameters.

        Args:
            model: onnx.ModelProto.
            weights: initialisers by name.
            inputs: names of what a call gives.
            dtype: what is computed in.
            kept: type that matrices are kept in; `dtype` when None.

        Raises:
            UnsupportedModel: operators that are not known; names them all.
        """
        super().__init__()
        graph = model.graph
        names = {node.op_type for node in graph.node}
        if unknown := sorted(names - OPERATORS.keys() - _BUILT_IN):
            raise UnsupportedModel(
                f"operators {', '.join(unknown)} are not supported", {"operators": ", ".join(unknown)}
            )
        self._nodes = list(graph.node)
        self._opset = max(item.version for item in model.opset_import if item.domain in STANDARD_DOMAINS)
        self._dtype, self._kept = dtype, kept or dtype
        self._inputs = tuple(inputs)
        self._outputs = tuple(output.name for output in graph.output)
        self._known: dict[str, Known] = {}
        self._parameter_of: dict[str, str] = {}
        for name, array in weights.items():
            self._keep(name, array)

    def _keep(self, name: str, array: Known) -> None:
        if array.size <= _SMALL or array.dtype.kind == "b" or (array.dtype.kind in "iu" and array.dtype.itemsize > 1):
            self._known[name] = array
            return
        weight = torch.from_numpy(np.array(array))
        if weight.is_floating_point():
            weight = weight.to(self._kept if weight.dim() > 1 else self._dtype)
        attribute = f"w{len(self._parameter_of)}_" + re.sub(r"\W", "_", name)[-80:]
        self.register_parameter(attribute, torch.nn.Parameter(weight, requires_grad=False))
        self._parameter_of[name] = attribute

    @property
    def table_rows(self) -> dict[str, int]:
        """By input, rows of the smallest table that it points into: its integers must stay below."""
        rows: dict[str, int] = {}
        for node in self._nodes:
            source = self._source_of(node.input[1]) if node.op_type == "Gather" else ""
            if source and (count := self._table(node)):
                rows[source] = min(count, rows.get(source, count))
        return rows

    @property
    def longest(self) -> int:
        """Longest sample: rows of a table of positions, where there is one by that name; 0 when nothing says."""
        named = [n for n in self._nodes if n.op_type == "Gather" and "position" in n.input[0].lower()]
        return min((rows for node in named if (rows := self._table(node))), default=0)

    def _table(self, node: Any) -> int:
        place = self._parameter_of.get(node.input[0], "")
        return int(getattr(self, place).shape[0]) if place else 0

    def _source_of(self, name: str) -> str:
        """The input that a value is, perhaps in another type; "" when it is none."""
        by_output = {node.output[0]: node for node in self._nodes if node.op_type in ("Cast", "Identity")}
        while name in by_output:
            name = by_output[name].input[0]
        return name if name in self._inputs else ""

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs for inputs."""
        values: dict[str, Value] = dict(self._known)
        values.update({name: self._narrowed(getattr(self, place)) for name, place in self._parameter_of.items()})
        values.update(zip(self._inputs, map(self._narrowed, given), strict=True))
        for node in self._nodes:
            arguments = [values[name] if name else None for name in node.input]
            results = self._run(node, arguments)
            values.update((name, result) for name, result in zip(node.output, results, strict=False) if name)
        return tuple(tensor(values[name]) for name in self._outputs)

    def _narrowed(self, value: torch.Tensor) -> torch.Tensor:
        """A float in what is computed in."""
        return value.to(self._dtype) if value.is_floating_point() else value

    def _run(self, node: Any, arguments: list[Value]) -> Sequence[Value]:
        attributes = dict(_attributes_of(node))
        if node.op_type == "Shape":
            return (known_shape(attributes, arguments[0]),)
        if node.op_type == "Size":
            return (np.asarray(int(np.prod(known_shape({}, arguments[0]))), np.int64),)
        if not any(isinstance(argument, torch.Tensor) for argument in arguments):
            return self._fold(node, arguments)
        attributes.update(opset=self._opset, outputs=len(node.output), float_type=self._dtype)
        try:
            result = OPERATORS[node.op_type](attributes, *arguments)
        except UnsupportedModel as error:
            raise UnsupportedModel(f"node {node.name or node.output[0]!r} ({node.op_type}): {error.message}") from error
        return result if isinstance(result, tuple) else (result,)

    def _fold(self, node: Any, arguments: list[Value]) -> Sequence[Known]:
        from onnx import helper

        named = {name: np.asarray(value) for name, value in zip(node.input, arguments, strict=True) if name}
        described = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in named.items()
        ]
        results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "known", described, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])
        with disable_proxy_modes_tracing():
            found = Evaluator(model).run(named)
        filled = iter(found.values())
        return [np.asarray(next(filled)) if name else np.zeros(0) for name in node.output]


def _attributes_of(node: Any) -> Iterator[tuple[str, Any]]:
    from onnx import helper, numpy_helper

    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        yield attribute.name, numpy_helper.to_array(value) if attribute.HasField("t") else value
