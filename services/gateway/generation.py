"""A generation as text: a replica's tokens through detokeniser and stop texts, with its figures at the end."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import structlog

from services.gateway.core.energy_estimate import EnergyEstimates
from services.gateway.core.stop_matcher import StopMatcher
from services.gateway.metrics import Finished, GatewayMetrics
from services.gateway.routing.dispatcher import ReplicaStream
from services.gateway.text.tokenizer import TextModel
from tradewind.domain.errors import TradewindError, reason_of
from tradewind.domain.routes import ReplicaRoute
from tradewind.v1 import inference_pb2


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new.

    Attributes:
        token_ids: tokens whose text cannot be part of a stop text any more.
        logprobs: one for each of them, when asked for.
        finish_reason: set in the last one.
        usage: set in the last one.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[inference_pb2.TokenLogprob, ...] = ()
    finish_reason: inference_pb2.FinishReason.ValueType = inference_pb2.FINISH_REASON_UNSPECIFIED
    usage: inference_pb2.Usage | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a request came in.

    Attributes:
        interface: for metrics, for instance "chat".
        at_s: when, on the monotonic clock.
    """

    interface: str
    deployment: str
    at_s: float


class Account:
    """Reports one request to the metrics, once, whatever becomes of it."""

    def __init__(self, metrics: GatewayMetrics, estimates: EnergyEstimates, arrival: Arrival) -> None:
        self.metrics, self.estimates, self.arrival = metrics, estimates, arrival
        self._open = True
        self._log = structlog.get_logger("requests")
        metrics.begun(arrival.deployment)

    def asked(self, prompt_tokens: int) -> None:
        """Its prompt is known."""
        self.metrics.asked(self.arrival.deployment, prompt_tokens)

    def end(self, code: str) -> None:
        """Over, with "OK", "CANCELLED" or an error's reason; later calls change nothing."""
        if not self._open:
            return
        self._open = False
        self.metrics.ended(self.arrival.interface, self.arrival.deployment, code)
        ms = round((time.monotonic() - self.arrival.at_s) * 1e3, 1)
        self._log.info(
            "request", interface=self.arrival.interface, deployment=self.arrival.deployment, code=code, ms=ms
        )


class TextGeneration:
    """Iterate to the end or `close`; closing frees the replica's slot at once.

    Args:
        stream: the replica's.
        model: for text.
        stops: stop texts.
        prompt_tokens: for the figures of a generation that ends at the gateway.
        account: told how it ends.
    """

    def __init__(
        self, stream: ReplicaStream, model: TextModel, stops: Sequence[str], prompt_tokens: int, account: Account
    ) -> None:
        self._stream, self.model, self._account = stream, model, account
        self._detokenizer = model.detokenizer()
        self._matcher = StopMatcher(stops)
        self._prompt_tokens = prompt_tokens
        self._ids: list[int] = []
        self._logprobs: list[inference_pb2.TokenLogprob] = []
        self._released = 0
        self._count = 0
        self._first_s: float | None = None
        self._last_s = 0.0

    @property
    def replica(self) -> ReplicaRoute:
        """Who answers."""
        return self._stream.replica

    async def __aiter__(self) -> AsyncGenerator[Delta]:
        try:
            async for response in self._stream:
                delta = self._take(response)
                if delta.text or delta.token_ids or delta.finish_reason:
                    yield delta
                if delta.finish_reason:
                    self._account.end("OK")
                    return
        except TradewindError as error:
            self._account.end(reason_of(error))
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Ends the generation if it is still at work. Idempotent."""
        self._stream.close()
        self._account.end("CANCELLED")

    def _take(self, response: inference_pb2.GenerateResponse) -> Delta:
        text = ""
        if response.token_ids:
            self._last_s = time.monotonic()
            if self._first_s is None:
                self._first_s = self._last_s
        for index, token_id in enumerate(response.token_ids):
            self._count += 1
            self._ids.append(token_id)
            if index < len(response.logprobs):
                self._logprobs.append(response.logprobs[index])
            text += self._matcher.push(self._detokenizer.push(token_id))
            if self._matcher.stopped:
                return self._stop_here(text)
            if not self._matcher.held_chars:
                self._released = len(self._ids)
        if response.finish_reason:
            return self._finish(text, response)
        return Delta(text, *self._release())

    def _release(self) -> tuple[tuple[int, ...], tuple[inference_pb2.TokenLogprob, ...]]:
        """Tokens whose text is out. While text is held back its tokens are, too: they would tell what it hides."""
        ids, logprobs = tuple(self._ids[: self._released]), tuple(self._logprobs[: self._released])
        del self._ids[: self._released]
        del self._logprobs[: self._released]
        self._released = 0
        return ids, logprobs

    def _stop_here(self, text: str) -> Delta:
        """A stop text is complete: the replica's own last message will never come."""
        self._stream.close()
        usage = inference_pb2.Usage(prompt_tokens=self._prompt_tokens, output_tokens=self._count)
        usage.energy.CopyFrom(
            self._account.estimates.estimate(self.replica.variant_id, self._prompt_tokens, self._count)
        )
        usage.ttft_ms = self._ttft_s() * 1e3
        usage.tpot_ms = (self._tpot_s() or 0.0) * 1e3
        self._report(usage)
        return Delta(text, *self._release(), inference_pb2.FINISH_REASON_STOP, usage)

    def _finish(self, text: str, response: inference_pb2.GenerateResponse) -> Delta:
        text += self._matcher.push(self._detokenizer.finish())
        reason = response.finish_reason
        if self._matcher.stopped:
            reason = inference_pb2.FINISH_REASON_STOP
        else:
            text += self._matcher.finish()
            self._released = len(self._ids)
        self._account.estimates.learn(self.replica.variant_id, response.usage)
        self._report(response.usage)
        return Delta(text, *self._release(), reason, response.usage)

    def _report(self, usage: inference_pb2.Usage) -> None:
        arrival = self._account.arrival
        self._account.metrics.finished(
            Finished(
                arrival.deployment, self.replica.variant_name, usage, self._ttft_s(), self._tpot_s(), self._e2e_s()
            )
        )

    def _ttft_s(self) -> float:
        return (self._first_s or time.monotonic()) - self._account.arrival.at_s

    def _e2e_s(self) -> float:
        return (self._last_s or time.monotonic()) - self._account.arrival.at_s

    def _tpot_s(self) -> float | None:
        if self._first_s is None or self._count < 2:
            return None
        return (self._last_s - self._first_s) / (self._count - 1)
