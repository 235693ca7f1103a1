"""From a source path to a model in the store. Parses nothing itself: a child process does."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict

from services.compiler.infer.shapes import InferShapes
from services.compiler.jobs.keyed import KeyedLocks
from services.compiler.jobs.places import Places
from services.compiler.jobs.runner import PEAK, JobRunner, Report
from services.compiler.quality.stored_tokenizer import TOKENIZER
from services.compiler.sources.architectures import Task
from services.compiler.sources.detection import RUNS_CODE, Form, detect, file_of
from services.compiler.store.blobs import BlobStore, digest_of_file
from services.compiler.store.index import Index, key_of
from services.compiler.toolchain import toolchain_versions
from tradewind.domain.errors import BadModelSource, UntrustedSource
from tradewind.v1 import compiler_pb2

# Files of a source that say what the model is; what else lies in a folder (READMEs, pictures) does not.
_SOURCE_SUFFIXES: Final = frozenset(
    {".json", ".safetensors", ".gguf", ".jinja", ".model", ".txt", ".onnx", ".onnx_data", ".data", ".pb", ".py"}
)
# Files that gateways may fetch, and files only builds read.
_SERVED: Final = (TOKENIZER, "chat_template.jinja")
_BUILT_FROM: Final = ("config.json", "model.safetensors", "graph.onnx", "program.mlir", "program.irpa")
# The normalised model is in f32 and may be four times its source (8-bit blocks); 4-bit blocks make it eight times.
_MOST_GROWTH: Final = {Form.GGUF: 8}
_USUAL_GROWTH: Final = 2
_FORMAT: Final = {
    Form.HUGGING_FACE: compiler_pb2.MODEL_FORMAT_HUGGING_FACE,
    Form.GGUF: compiler_pb2.MODEL_FORMAT_GGUF,
    Form.ONNX: compiler_pb2.MODEL_FORMAT_ONNX,
    Form.TENSORFLOW: compiler_pb2.MODEL_FORMAT_TENSORFLOW,
    Form.PT2: compiler_pb2.MODEL_FORMAT_PT2,
    Form.MLIR: compiler_pb2.MODEL_FORMAT_MLIR,
    Form.KERAS: compiler_pb2.MODEL_FORMAT_KERAS,
    Form.PYTORCH: compiler_pb2.MODEL_FORMAT_PYTORCH,
}
_TASK: Final = {
    Task.GENERATE: compiler_pb2.MODEL_TASK_GENERATE,
    Task.INFER: compiler_pb2.MODEL_TASK_INFER,
}


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model in the store.

    Attributes:
        model: as the contract describes it; the name is left empty.
        build_files: digests of the files that builds read, by name.
        reference: digest of the source framework's answers.
        program: functions of a model that is kept as a program of fixed sizes; None for one whose sizes recipes choose.
    """

    model: compiler_pb2.Model
    build_files: dict[str, str]
    reference: str
    program: InferShapes | None = None

    def to_dict(self) -> dict[str, Any]:
        """For the index."""
        model = MessageToDict(self.model, preserving_proto_field_name=True)
        program = asdict(self.program) if self.program else None
        return {"model": model, "build_files": self.build_files, "reference": self.reference, "program": program}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> StoredModel:
        """From the index."""
        model = ParseDict(content["model"], compiler_pb2.Model())
        sizes = content["program"]
        program = InferShapes(tuple(sizes["batches"]), tuple(sizes["lengths"]), sizes["fixed"]) if sizes else None
        return cls(model, dict(content["build_files"]), str(content["reference"]), program)

    @property
    def asked_files(self) -> dict[str, str]:
        """Digests of the files that it takes to ask the source about text, by name."""
        return self.build_files | {file.name: file.digest for file in self.model.files if file.name == TOKENIZER}

    @property
    def digests(self) -> tuple[str, ...]:
        """Every blob it needs."""
        return (*self.build_files.values(), self.reference, *(file.digest for file in self.model.files))


class Importer:
    """Imports models; knows those imported before."""

    def __init__(self, blobs: BlobStore, index: Index, runner: JobRunner, places: Places) -> None:
        """Over the service's store; `places` bounds how many imports are under way."""
        self._blobs, self._index, self._runner = blobs, index, runner
        self._places, self._locks = places, KeyedLocks()

    async def import_model(
        self, source: Path, report: Report, form: Form | None = None, trust: bool = False
    ) -> StoredModel:
        """Imports a model; at once when the same bytes were imported before.

        Args:
            source: file or folder.
            report: hears stage and share.
            form: which it must have; detected and not checked when None.
            trust: the source may run code of its own, inside the child.

        Raises:
            UntrustedSource: the source is code, and nobody said that it may run.
            BadModelSource, UnsupportedModel: the source; see `services.compiler.sources`.
            NoSpace: the store's disk is full.
            JobTimeout, JobOutOfMemory, CompileFailed: the child process.
        """
        report("looking at the source", 0.0)
        found, path = await asyncio.to_thread(_detect, source)
        if form is not None and found is not form:
            raise BadModelSource(f"{source} is {found}, not {form}; leave the format open to have it detected")
        if found in RUNS_CODE and not trust:
            raise UntrustedSource(
                f"{source} is {found}: reading it can run code of its maker; say --trust if you trust it, or give "
                "safetensors, ONNX or MLIR",
                {"form": found},
            )
        key = await asyncio.to_thread(_source_key, found, path)
        async with self._locks.of(key):
            known = self._index.get("sources", key)
            if known is not None and (stored := self.find(known["model_id"])) is not None:
                report("imported before", 1.0)
                return stored
            self._blobs.need(_MOST_GROWTH.get(found, _USUAL_GROWTH) * _size_of(path))
            async with self._places.one(key):
                stored = await self._import(found, path, report)
            self._index.put("models", stored.model.model_id, stored.to_dict())
            self._index.put("sources", key, {"model_id": stored.model.model_id})
        return stored

    def find(self, model_id: str) -> StoredModel | None:
        """A model imported before, when all its files are there."""
        content = self._index.get("models", model_id)
        if content is None:
            return None
        stored = StoredModel.from_dict(content)
        return stored if all(self._blobs.has(digest) for digest in stored.digests) else None

    async def _import(self, form: Form, path: Path, report: Report) -> StoredModel:
        async with self._runner.folder() as folder:
            output, reference = folder / "model", folder / "reference.safetensors"
            job = {"form": form, "source": str(path), "output": str(output), "reference": str(reference)}
            facts = await self._runner.work("import", job, folder, report)
            facts.pop(PEAK)
            report("storing the model", 0.95)
            names = [name for name in (*_BUILT_FROM, *_SERVED) if (output / name).exists()]
            program = facts.pop("program", None)
            task = _TASK[Task(facts.pop("task"))]
            sizes = {name: (output / name).stat().st_size for name in names}
            digests = {name: await asyncio.to_thread(self._blobs.adopt, output / name) for name in names}
            answers = await asyncio.to_thread(self._blobs.adopt, reference)
        model = compiler_pb2.Model(
            model_id=key_of("model", digests, facts),
            format=_FORMAT[form],
            task=task,
            files=[
                compiler_pb2.ArtifactRef(name=name, digest=digests[name], size_bytes=sizes[name])
                for name in names
                if name in _SERVED
            ],
            **facts,
        )
        model.create_time.GetCurrentTime()
        shapes = (
            InferShapes(tuple(program["batches"]), tuple(program["lengths"]), program["fixed"]) if program else None
        )
        return StoredModel(model, {name: digests[name] for name in _BUILT_FROM if name in digests}, answers, shapes)


def _detect(source: Path) -> tuple[Form, Path]:
    try:
        return detect(source.absolute())
    except OSError as error:
        raise BadModelSource(f"{source} cannot be read ({error.strerror}); check its permissions") from error


def _files_of(path: Path) -> list[Path]:
    """Files that say what the model is: the one named, or those of the folder and below it."""
    path = file_of(path)
    if path.is_file():
        # External data and tokenizers lie beside a graph.
        return (
            [path, *(p for p in _model_files(path.parent, deep=False) if p != path)] if _has_company(path) else [path]
        )
    return _model_files(path, deep=(path / "saved_model.pb").is_file())


def _has_company(path: Path) -> bool:
    return path.suffix in (".onnx", ".py")


def _model_files(folder: Path, *, deep: bool) -> list[Path]:
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(p for p in found if (deep or p.suffix in _SOURCE_SUFFIXES) and p.is_file())


def _size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in _files_of(path))


def _source_key(form: Form, path: Path) -> str:
    """Digest of a source's bytes and of what reads them."""
    try:
        found = _files_of(path)
        root = file_of(path) if file_of(path).is_dir() else file_of(path).parent
        names = {str(file.relative_to(root)).encode("utf-8", "surrogateescape").hex(): file for file in found}
        files = {name: digest_of_file(file) for name, file in names.items()}
    except OSError as error:
        raise BadModelSource(f"{error.filename} cannot be read ({error.strerror}); check its permissions") from error
    what = files if len(files) > 1 else sorted(files.values())
    return key_of("source", form, what, path.name.partition("::")[2], toolchain_versions())
