"""Pass "repeat-layer": one layer is traced and repeated; exporting thirty layers takes the time of one.

PyTorch's export spends about 0.8 s of CPU for each layer of each function. All decoder layers of a supported model run
the same code over different weights, so only the first is traced, between two edges, and its nodes are copied for the
others. The result is the graph that a whole export gives. Must not know any architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, OutputKind, OutputSpec

from services.compiler.export.decoder import Layers

# Part of a parameter's or buffer's path that names the layer which is traced.
_FIRST: Final = ".0."


@torch.library.custom_op("tradewind::layer_edge", mutates_args=())
def layer_edge(hidden: torch.Tensor) -> torch.Tensor:
    """Marks the hidden state at the edge of the traced layer; taken out of the graph again."""
    return hidden.clone()


@layer_edge.register_fake
def _layer_edge_shape(hidden: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(hidden)


@contextmanager
def only_first_layer(layers: Layers, beside: Any) -> Iterator[None]:
    """While open, the decoder runs its first layer only, between two edges.

    Args:
        layers: of the decoder.
        beside: a module whose `layers` hold what else there is for each layer.
    """
    whole, whole_beside = layers.modules, beside.layers
    first = whole[0]
    hooks = (
        first.register_forward_pre_hook(lambda _module, args: (layer_edge(args[0]), *args[1:])),
        first.register_forward_hook(lambda _module, _args, output: _edge(output)),
    )
    layers.put(torch.nn.ModuleList([first]))
    beside.layers = torch.nn.ModuleList([whole_beside[0]])
    try:
        yield
    finally:
        layers.put(whole)
        beside.layers = whole_beside
        for hook in hooks:
            hook.remove()


def _edge(output: Any) -> Any:
    """The edge behind a layer's hidden state, which some architectures give alone and some with more beside it."""
    return (layer_edge(output[0]), *output[1:]) if isinstance(output, tuple) else layer_edge(output)


def repeat_layer(program: Any, owner: torch.nn.Module, layer_count: int) -> Any:
    """The program of the whole model, from one traced with `only_first_layer`.

    Args:
        program: a decomposed `torch.export.ExportedProgram`.
        owner: module under whose names the program's state is found, whole again.
        layer_count: how many layers the model has.
    """
    return _Repetition(program, owner).run(layer_count)


class _Repetition:
    """One rewriting of a program."""

    def __init__(self, program: Any, owner: torch.nn.Module) -> None:
        self._program = program
        self._graph = program.graph
        self._state = dict(owner.state_dict(keep_vars=True))
        signature = program.graph_signature
        self._inputs: list[InputSpec] = list(signature.input_specs)
        self._outputs: list[OutputSpec] = list(signature.output_specs)
        placeholders = [node for node in self._graph.nodes if node.op == "placeholder"]
        self._spec_of = dict(zip(placeholders, self._inputs, strict=True))
        self._first_user_input = next(n for n, s in self._spec_of.items() if s.kind is InputKind.USER_INPUT)
        # Numbers written into the code are the same in every layer, whatever their path says.
        self._layer_inputs = [
            n
            for n, s in self._spec_of.items()
            if s.target and _FIRST in s.target and s.kind is not InputKind.CONSTANT_TENSOR
        ]
        self._returned = list(self._output_node.args[0])

    @property
    def _output_node(self) -> Any:
        return next(iter(reversed(self._graph.nodes)))

    def run(self, layer_count: int) -> Any:
        entry, leave = (node for node in self._graph.nodes if node.target is torch.ops.tradewind.layer_edge.default)
        body = self._body_between(entry, leave)
        hidden = leave.args[0]
        mutations = [
            (spec, node)
            for spec, node in zip(self._outputs, self._returned, strict=True)
            if spec.kind is OutputKind.BUFFER_MUTATION
        ]
        end = leave
        for layer in range(1, layer_count):
            copies = {entry: hidden, **self._new_inputs(layer)}
            for node in body:
                with self._graph.inserting_before(end):
                    copies[node] = self._graph.node_copy(node, lambda n, known=copies: known.get(n, n))
            hidden = copies[leave.args[0]]
            self._return_mutations(mutations, copies, layer)
        leave.replace_all_uses_with(hidden)
        self._graph.erase_node(leave)
        entry.replace_all_uses_with(entry.args[0])
        self._graph.erase_node(entry)
        return self._finished()

    def _body_between(self, entry: Any, leave: Any) -> list[Any]:
        """Nodes that follow from the layer's input or weights, up to its output, in order."""
        inside = {entry, *self._layer_inputs}
        body = []
        for node in self._graph.nodes:
            if node is not leave and node.op == "call_function" and any(n in inside for n in node.all_input_nodes):
                if any(n is leave for n in node.all_input_nodes):
                    continue
                inside.add(node)
                body.append(node)
        return body

    def _new_inputs(self, layer: int) -> dict[Any, Any]:
        made = {}
        for node in self._layer_inputs:
            spec = self._spec_of[node]
            target = _named(spec.target, layer)
            with self._graph.inserting_before(self._first_user_input):
                new = self._graph.placeholder(node.name.replace("_0_", f"_{layer}_", 1))
            new.meta = dict(node.meta)
            at = next(i for i, s in enumerate(self._inputs) if s.kind is InputKind.USER_INPUT)
            argument = torch.export.graph_signature.TensorArgument(name=new.name)
            self._inputs.insert(at, InputSpec(spec.kind, argument, target, spec.persistent))
            made[node] = new
        return made

    def _return_mutations(self, mutations: list[tuple[OutputSpec, Any]], copies: dict[Any, Any], layer: int) -> None:
        for spec, node in mutations:
            new = copies[node]
            at = next(i for i, s in enumerate(self._outputs) if s.kind is OutputKind.USER_OUTPUT)
            argument = torch.export.graph_signature.TensorArgument(name=new.name)
            self._outputs.insert(at, OutputSpec(spec.kind, argument, _named(spec.target or "", layer)))
            self._returned.insert(at, new)

    def _finished(self) -> Any:
        program = self._program
        self._output_node.args = (tuple(self._returned),)
        self._graph.lint()
        named = {spec.target for spec in self._inputs if spec.target}
        state = {name: tensor for name, tensor in self._state.items() if name in named}
        return torch.export.ExportedProgram(
            root=program.graph_module,
            graph=self._graph,
            graph_signature=ExportGraphSignature(self._inputs, self._outputs),
            state_dict=state,
            range_constraints=program.range_constraints,
            module_call_graph=program.module_call_graph,
            constants=program.constants,
            verifiers=program.verifiers,
        )


def _named(target: str, layer: int) -> str:
    """The name of another layer's tensor: the first ".0." of the path is the layer's number."""
    return target.replace(_FIRST, f".{layer}.", 1)
