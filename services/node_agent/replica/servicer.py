"""InferenceService of one replica: requests into the engine, outcomes out as a stream. No scheduling."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np

from services.node_agent.core.energy import Rate
from services.node_agent.replica.engine import Engine
from services.node_agent.replica.latencies import Latencies
from services.node_agent.replica.limits import choice_of, output_limit, prompt_of, salt_of
from services.node_agent.replica.request import Logprob, Outcome, Request
from services.node_agent.replica.warmup import CANARY_SEQUENCE
from tradewind.domain.errors import NotFound, NotImplementedYet
from tradewind.domain.manifest import VariantManifest
from tradewind.v1 import common_pb2, inference_pb2, inference_pb2_grpc

# Trailing metadata with the energy of both phases, which the contract's Usage sums up; for measurements.
PHASES_KEY: Final = "tradewind-phases"


class Mailbox:
    """Outcomes on their way from the engine's thread to one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outcomes: deque[Outcome] = deque()
        self._arrived = asyncio.Event()

    def put(self, _request: Request, outcome: Outcome) -> None:
        """Called on the engine's thread."""
        self._outcomes.append(outcome)
        # A loop that is closed has no callers any more.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def take(self) -> list[Outcome]:
        """All that is there, at least one."""
        await self._arrived.wait()
        self._arrived.clear()
        taken = []
        while self._outcomes:
            taken.append(self._outcomes.popleft())
        return taken


class ReplicaInference(inference_pb2_grpc.InferenceServiceServicer):
    """Generates tokens.

    Args:
        replica_id: whom it speaks for.
        manifest: of the variant that the engine runs.
        engine: running.
        rate: what CPU time costs, until told otherwise.
        latencies: told of each finished request.
    """

    def __init__(
        self, replica_id: str, manifest: VariantManifest, engine: Engine, rate: Rate, latencies: Latencies
    ) -> None:
        self._replica_id, self._manifest, self._engine = replica_id, manifest, engine
        self._variant_id = manifest.variant_id
        self.rate = rate
        self._latencies = latencies
        self._ids = itertools.count(CANARY_SEQUENCE + 1)
        self._eos = frozenset(manifest.eos_token_ids)

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """See the contract."""
        mailbox = Mailbox(asyncio.get_running_loop())
        work = self._request(request, mailbox)
        self._engine.submit(work)
        # The callback comes as soon as the client is gone, also while the stream below waits to be written.
        context.add_done_callback(lambda _: self._engine.cancel(work.sequence_id))
        first = True
        while True:
            outcomes = await mailbox.take()
            response = self._response(work, outcomes)
            if response is None:
                continue
            if first:
                response.replica_id, response.variant_id = self._replica_id, self._variant_id
                first = False
            if response.finish_reason:
                context.set_trailing_metadata(((PHASES_KEY, self._phases(work)),))
                yield response
                return
            yield response

    async def Infer(self, request: inference_pb2.InferRequest, context: Any) -> inference_pb2.InferResponse:
        """Not of this variant: it generates."""
        raise NotImplementedYet("this model generates tokens; ask it by Generate")

    def _request(self, request: inference_pb2.GenerateRequest, mailbox: Mailbox) -> Request:
        if request.replica_id and request.replica_id != self._replica_id:
            raise NotFound("replica", request.replica_id, f"this is {self._replica_id}")
        sampling, manifest = request.sampling, self._manifest
        prompt = prompt_of(request, manifest.vocabulary_size)
        limit = output_limit(len(prompt), sampling.max_tokens, manifest.context_tokens)
        choice = choice_of(sampling, secrets.randbits(64))
        stop_ids = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else self._eos)
        ids = np.array(prompt, np.int64)
        return Request(next(self._ids), ids, limit, choice, stop_ids, mailbox.put, salt_of(sampling))

    def _response(self, work: Request, outcomes: list[Outcome]) -> inference_pb2.GenerateResponse | None:
        response = inference_pb2.GenerateResponse()
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            if outcome.token is not None:
                response.token_ids.append(outcome.token)
            if outcome.logprob is not None:
                response.logprobs.append(_logprob_message(outcome.logprob))
            if outcome.finish is not None:
                response.finish_reason = inference_pb2.FinishReason.ValueType(outcome.finish)
                response.usage.CopyFrom(self._usage(work))
                self._latencies.finished(work.ttft_s, work.tpot_s if work.tokens > 1 else None, work.sent)
        return response if response.token_ids or response.finish_reason else None

    def _usage(self, work: Request) -> inference_pb2.Usage:
        energy = self.rate.charge(work.account.core_s)
        message = common_pb2.Energy(
            energy_mj=energy.energy_mj,
            source=common_pb2.FigureSource.ValueType(energy.source),
            method=energy.method,
        )
        message.window.FromNanoseconds(int((work.last_token_s - work.arrived_s) * 1e9))
        return inference_pb2.Usage(
            prompt_tokens=len(work.prompt),
            output_tokens=work.sent,
            energy=message,
            ttft_ms=work.ttft_s * 1e3,
            tpot_ms=work.tpot_s * 1e3,
            queue_ms=work.queue_s * 1e3,
            reused_prompt_tokens=work.reused,
        )

    def _phases(self, work: Request) -> str:
        prefill, decode = work.account.prefill_core_s, work.account.decode_core_s
        return json.dumps(
            {
                "prefill_mj": self.rate.charge(prefill).energy_mj,
                "decode_mj": self.rate.charge(decode).energy_mj,
                "decoded_tokens": max(0, work.tokens - 1),
            }
        )


def _logprob_message(logprob: Logprob) -> inference_pb2.TokenLogprob:
    top = [inference_pb2.TokenLogprob(token_id=token, logprob=value) for token, value in logprob.top]
    return inference_pb2.TokenLogprob(token_id=logprob.token, logprob=logprob.logprob, top=top)
