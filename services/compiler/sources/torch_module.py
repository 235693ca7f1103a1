"""PyTorch programs: an nn.Module out of a folder of Python code, and a .pt2 archive of torch.export.

Both run code of their maker when they are read. That happens here, in the sandboxed child and after --trust, once: what
is kept is MLIR and numbers.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from services.compiler.infer.edges import WideEdges
from services.compiler.infer.graph import DTYPES, Graph, describe
from services.compiler.sources.detection import INSIDE, file_of
from services.compiler.sources.program import keep_program
from tradewind.domain.errors import BadModelSource, UnsupportedModel
from tradewind.domain.tensors import BATCH, TensorSpec

Say = Callable[[str, float], None]
_EXAMPLES: Final = "example_inputs"


def import_module(source: Path, output: Path, reference: Path, say: Say) -> dict[str, Any]:
    """A module by "FOLDER::module:attribute"; facts of the model.

    The attribute is an nn.Module, or something to call without arguments that gives one. Its module, or it, has
    `example_inputs`: a tuple of tensors, or something to call that gives one.

    Raises:
        BadModelSource: there is no such thing, or its code raises.
        UnsupportedModel: it cannot be exported.
    """
    say("running the module's code", 0.05)
    name, _, attribute = source.name.partition(INSIDE)[2].partition(":")
    if not name or not attribute:
        raise BadModelSource(f"{source} names no attribute; give FOLDER{INSIDE}module:attribute")
    sys.path.insert(0, str(file_of(source)))
    try:
        code = importlib.import_module(name)
        found = getattr(code, attribute)
        module = found if isinstance(found, torch.nn.Module) else found()
        examples = getattr(module, _EXAMPLES, None) or getattr(code, _EXAMPLES, None)
        examples = examples() if callable(examples) else examples
    except Exception as error:  # the code is somebody else's and raises what it likes
        raise BadModelSource(f"{source}: its code raised {type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module):
        raise BadModelSource(f"{source} gives a {type(module).__name__}, not a torch.nn.Module")
    names = [*inspect.signature(module.forward).parameters]
    return _keep(module.eval(), names, examples, type(module).__name__, source, output, reference, say)


def import_pt2(path: Path, output: Path, reference: Path, say: Say) -> dict[str, Any]:
    """A .pt2 archive; facts of the model.

    Raises:
        BadModelSource: damaged.
        UnsupportedModel: it takes keyword arguments, or cannot be exported for the sizes wanted.
    """
    say("reading the program", 0.05)
    try:
        program = torch.export.load(path)
    except Exception as error:  # a damaged archive raises whatever unpickling it raises
        raise BadModelSource(f"{path} cannot be read as a torch.export archive ({error}); save it again") from error
    examples, named = program.example_inputs or ((), {})
    if named:
        raise UnsupportedModel(f"{path} takes arguments by name ({', '.join(named)}); export it with positions only")
    names = list(program.graph_signature.user_inputs)
    return _keep(program.module(), [str(n) for n in names], examples, "ExportedProgram", path, output, reference, say)


def _keep(
    module: torch.nn.Module,
    names: Sequence[str],
    examples: Any,
    architecture: str,
    source: Path,
    output: Path,
    reference: Path,
    say: Say,
) -> dict[str, Any]:
    if not isinstance(examples, tuple | list) or not all(isinstance(e, torch.Tensor) for e in examples) or not examples:
        raise BadModelSource(f"{source} has no {_EXAMPLES}; give a tuple of tensors that its forward takes")
    if len(names) < len(examples):
        raise BadModelSource(f"{source} has {len(examples)} {_EXAMPLES} and takes {len(names)}")
    for name, weight in module.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise BadModelSource(f"{source}: {name} holds values that are not finite numbers; the model is damaged")
    graph = _described(module, names, list(examples), source)
    return keep_program(graph, architecture, output, reference, say)


def _described(module: torch.nn.Module, names: Sequence[str], examples: list[torch.Tensor], source: Path) -> Graph:
    """With an open batch where the module takes one, with its examples' sizes where not."""
    integers = {
        name: int(example.max()) + 1
        for name, example in zip(names, examples, strict=False)
        if not example.is_floating_point() and example.dtype is not torch.bool
    }
    outputs = [f"output_{at}" for at in range(_count(module, examples, source))]
    if len({e.shape[0] for e in examples if e.dim()}) == 1 and all(e.dim() for e in examples):
        try:
            return describe(WideEdges(module), _specs(names, examples, batched=True), outputs, integers)
        except Exception:  # noqa: BLE001, S110  whatever a module says to another batch, it takes none
            pass
    return describe(WideEdges(module), _specs(names, examples, batched=False), outputs, integers)


def _count(module: torch.nn.Module, examples: list[torch.Tensor], source: Path) -> int:
    try:
        with torch.no_grad():
            answer = WideEdges(module)(*examples)
    except Exception as error:  # the code is somebody else's and raises what it likes
        raise UnsupportedModel(f"{source} cannot be asked its {_EXAMPLES} ({type(error).__name__}: {error})") from error
    if not all(isinstance(output, torch.Tensor) for output in answer):
        raise UnsupportedModel(f"{source} gives something else than tensors; give a module that returns tensors")
    return len(answer)


def _specs(names: Sequence[str], examples: list[torch.Tensor], *, batched: bool) -> list[TensorSpec]:
    return [
        TensorSpec(name, DTYPES[e.dtype], (BATCH, *e.shape[1:]) if batched else tuple(e.shape))
        for name, e in zip(names, examples, strict=False)
    ]
