"""The text side of every model served: fetched from the compiler once, kept on disk by digest, in memory while used."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Executor
from typing import Final, TypeVar

import structlog
from google.protobuf.message import DecodeError

from services.gateway.limits import CALL_WAIT_S, FETCH_WAIT_S, MAX_MODEL_FILE_BYTES, MAX_MODELS_IN_MEMORY
from services.gateway.text.artifact_cache import ArtifactCache
from services.gateway.text.tokenizer import TextModel
from tradewind.domain.errors import ArtifactRejected, BadModelSource, InvalidField, TradewindError
from tradewind.rpc.errors import translated
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc

R = TypeVar("R")

TOKENIZER: Final = "tokenizer.json"
TEMPLATE: Final = "chat_template.jinja"


class ModelLibrary:
    """Gives the text side of models by id.

    A model id is the digest of the model's source, so what is known of it never goes stale: disk comes before the
    compiler, and a model once served is served on while the compiler is away.

    Args:
        compiler: where files come from.
        cache: where they are kept.
        threads: where parsing and disk reads run.
    """

    def __init__(
        self, compiler: compiler_pb2_grpc.CompilerServiceAsyncStub, cache: ArtifactCache, threads: Executor
    ) -> None:
        self._compiler, self._cache, self._threads = compiler, cache, threads
        self._loaded: OrderedDict[str, TextModel] = OrderedDict()
        self._loading: dict[str, asyncio.Task[TextModel]] = {}
        self._asking: dict[str, asyncio.Task[compiler_pb2.Model]] = {}
        self._log = structlog.get_logger("library")

    async def get(self, model_id: str) -> TextModel:
        """The text side of a model; concurrent callers share one load.

        Raises:
            ServiceUnavailable: it is not here and the compiler does not answer.
            RemoteError: the compiler refuses, for instance because it does not know the model.
            BadModelSource: the model has no usable tokenizer.
            ArtifactRejected: what came has another digest.
        """
        if (model := self._loaded.get(model_id)) is not None:
            self._loaded.move_to_end(model_id)
            return model
        return await _once(self._loading, model_id, self._load)

    async def warm(self, model_ids: Collection[str]) -> None:
        """Loads models before anyone asks for them; those that cannot be loaded now are left for the first request."""
        for model_id in sorted(model_ids)[:MAX_MODELS_IN_MEMORY]:
            if model_id in self._loaded:
                continue
            try:
                if (await self.facts(model_id)).task != compiler_pb2.MODEL_TASK_INFER:
                    await self.get(model_id)
            except TradewindError as error:
                self._log.warning("model text cannot be loaded yet", model_id=model_id, error=error.message)

    async def close(self) -> None:
        """Ends loads under way."""
        tasks = [*self._loading.values(), *self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, model_id: str) -> TextModel:
        facts = await self.facts(model_id)
        if facts.task == compiler_pb2.MODEL_TASK_INFER:
            raise InvalidField(
                "model", f"{facts.name or model_id} maps tensors to tensors; ask it by ModelInfer or Infer"
            )
        files = {file.name: file for file in facts.files}
        if TOKENIZER not in files:
            raise BadModelSource(f"model {facts.name or model_id} has no {TOKENIZER}; import it again with one")
        tokenizer = await self._content(files[TOKENIZER])
        template = await self._content(files[TEMPLATE]) if TEMPLATE in files else None
        model = await self._thread(_parse, tokenizer, template, tuple(facts.eos_token_ids))
        self._loaded[model_id] = model
        while len(self._loaded) > MAX_MODELS_IN_MEMORY:
            self._loaded.popitem(last=False)
        self._log.info("model text loaded", model=facts.name, model_id=model_id, template=template is not None)
        return model

    async def facts(self, model_id: str) -> compiler_pb2.Model:
        """What the compiler says of a model.

        Raises:
            ServiceUnavailable, RemoteError: as `get`.
        """
        return await _once(self._asking, model_id, self._ask)

    async def _ask(self, model_id: str) -> compiler_pb2.Model:
        note = await self._thread(self._cache.read_note, model_id)
        if note is not None:
            try:
                return compiler_pb2.Model.FromString(note)
            except DecodeError:
                self._log.warning("a note on disk is damaged and fetched again", model_id=model_id)
        with translated("compiler"):
            answer = await self._compiler.GetModel(compiler_pb2.GetModelRequest(model=model_id), timeout=CALL_WAIT_S)
        await self._thread(self._cache.write_note, model_id, answer.model.SerializeToString())
        return answer.model

    async def _content(self, file: compiler_pb2.ArtifactRef) -> bytes:
        kept: bytes | None = await self._thread(self._cache.read, file.digest)
        if kept is not None:
            return kept
        if file.size_bytes > MAX_MODEL_FILE_BYTES:
            raise BadModelSource(f"{file.name} has {file.size_bytes} bytes; at most {MAX_MODEL_FILE_BYTES} are taken")
        content = bytearray()
        request = compiler_pb2.FetchArtifactRequest(digest=file.digest)
        with translated("compiler"):
            async for piece in self._compiler.FetchArtifact(request, timeout=FETCH_WAIT_S):
                content += piece.data
                if len(content) > MAX_MODEL_FILE_BYTES:
                    raise ArtifactRejected(f"{file.name} is longer than {MAX_MODEL_FILE_BYTES} bytes")
        await self._thread(self._cache.write, file.digest, bytes(content))
        return bytes(content)

    async def _thread(self, call: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


async def _once(under_way: dict[str, asyncio.Task[R]], key: str, work: Callable[[str], Coroutine[None, None, R]]) -> R:
    """What the work on a key gives, done once for all who ask while it is under way."""
    task = under_way.get(key)
    if task is None:
        task = under_way[key] = asyncio.create_task(work(key), name=f"{work.__name__} {key}")
        task.add_done_callback(lambda _: under_way.pop(key, None))
    # A caller that gives up must not end what others wait for.
    return await asyncio.shield(task)


def _parse(tokenizer: bytes, template: bytes | None, eos_token_ids: tuple[int, ...]) -> TextModel:
    try:
        return TextModel(tokenizer.decode(), None if template is None else template.decode(), eos_token_ids)
    except UnicodeDecodeError as error:
        raise BadModelSource(f"tokenizer.json or chat_template.jinja is not UTF-8: {error}") from error
