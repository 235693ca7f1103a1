"""The front ends by form: each writes the store's form of a model and what its source answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.compiler.sources.detection import Form
from tradewind.domain.errors import BadModelSource

Say = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Import:
    """One import.

    Attributes:
        form: what `detect` found.
        source: what it found to read.
        output: folder to write the store's form into.
        reference: file to write the source's answers into.
        say: hears stage and share.
    """

    form: Form
    source: Path
    output: Path
    reference: Path
    say: Say


def _transformers(job: Import) -> dict[str, Any]:
    from services.compiler.sources.transformers_import import import_transformers

    return import_transformers(job.form, job.source, job.output, job.reference, job.say)


def _onnx(job: Import) -> dict[str, Any]:
    from services.compiler.sources.onnx.importing import import_onnx

    return import_onnx(job.source, job.output, job.reference, job.say)


def _saved_model(job: Import) -> dict[str, Any]:
    from services.compiler.sources.tensorflow.importing import import_saved_model

    return import_saved_model(job.source, job.output, job.reference, job.say)


def _keras(job: Import) -> dict[str, Any]:
    from services.compiler.sources.tensorflow.importing import import_keras

    return import_keras(job.source, job.output, job.reference, job.say)


def _pt2(job: Import) -> dict[str, Any]:
    from services.compiler.sources.torch_module import import_pt2

    return import_pt2(job.source, job.output, job.reference, job.say)


def _pytorch(job: Import) -> dict[str, Any]:
    from services.compiler.sources.torch_module import import_module

    return import_module(job.source, job.output, job.reference, job.say)


def _mlir(job: Import) -> dict[str, Any]:
    from services.compiler.sources.mlir_program import import_mlir

    return import_mlir(job.source, job.output, job.reference, job.say)


FRONT_ENDS: Final[dict[Form, Callable[[Import], dict[str, Any]]]] = {
    Form.HUGGING_FACE: _transformers,
    Form.GGUF: _transformers,
    Form.ONNX: _onnx,
    Form.TENSORFLOW: _saved_model,
    Form.KERAS: _keras,
    Form.PT2: _pt2,
    Form.PYTORCH: _pytorch,
    Form.MLIR: _mlir,
}


def bring(job: Import) -> dict[str, Any]:
    """Facts of the model, once it is written.

    Raises:
        BadModelSource, UnsupportedModel: see each front end.
    """
    try:
        return FRONT_ENDS[job.form](job)
    except (OSError, MemoryError) as error:
        raise BadModelSource(f"{job.source} cannot be read ({error}); fetch or export it again") from error
