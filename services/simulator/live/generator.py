"""Open-loop load: every request is sent at its time, whether earlier ones are answered or not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from services.simulator.trace import Trace

# Ids that are ordinary tokens of every vocabulary here; prompts differ so that no prefix could be reused.
_FIRST_TOKEN, _TOKENS = 100, 100
# A request that takes longer is counted as lost.
ANSWER_LIMIT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One request as its client saw it; times are seconds from the start of the run, negative when they never came.

    Attributes:
        late_s: how late it was sent; the generator's own fault.
        energy_mj: as the gateway told, 0 when it did not.
        error: in words, "" when it was answered.
    """

    number: int
    sent_s: float
    first_s: float = -1.0
    done_s: float = -1.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    late_s: float = 0.0
    energy_mj: float = 0.0
    energy_source: str = ""
    error: str = ""

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.first_s - self.sent_s

    @property
    def e2e_s(self) -> float:
        """Time to the last token."""
        return self.done_s - self.sent_s

    def within(self, ttft_s: float, tpot_s: float, e2e_s: float) -> bool:
        """Whether it was answered whole within every limit; an infinite one is none."""
        return not self.error and self.ttft_s <= ttft_s and self.tpot_s <= tpot_s and self.e2e_s <= e2e_s

    @property
    def tpot_s(self) -> float:
        """Mean time of a later token."""
        return (self.done_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else 0.0


async def play(
    url: str, deployment: str, trace: Trace, tell: Callable[[int], None] = lambda _: None
) -> tuple[Answer, ...]:
    """Sends a whole trace to a gateway and returns what came, in order of the trace.

    Args:
        url: of the gateway, "http://host:port".
        deployment: name that requests ask for.
        trace: answers are cut at its output tokens, and end no earlier.
        tell: is told how many requests are done.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    done = 0
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_LIMIT_S, limits=limits, trust_env=False) as client:
        began = time.monotonic()

        async def one(number: int) -> Answer:
            nonlocal done
            await asyncio.sleep(max(began + trace.arrival_s[number] - time.monotonic(), 0.0))
            answer = await _ask(client, deployment, trace, number, began)
            done += 1
            tell(done)
            return answer

        return tuple(await asyncio.gather(*(one(number) for number in range(len(trace)))))


async def _ask(client: httpx.AsyncClient, deployment: str, trace: Trace, number: int, began: float) -> Answer:
    wanted = trace.prompt_tokens[number]
    body = {
        "model": deployment,
        "prompt": [_FIRST_TOKEN + (number * 7 + i * 13) % _TOKENS for i in range(wanted)],
        "max_tokens": trace.output_tokens[number],
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sent_s = time.monotonic() - began
    first_s, usage, error = -1.0, dict[str, Any](), ""
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                error = (await response.aread()).decode(errors="replace")[:200]
            else:
                async for line in _lines(response):
                    piece = _piece(line)
                    if piece.get("choices") and first_s < 0.0:
                        first_s = time.monotonic() - began
                    usage = piece.get("usage") or usage
                    error = json.dumps(piece["error"])[:200] if "error" in piece else error
    except (httpx.HTTPError, ValueError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Answer(
        number=number,
        sent_s=sent_s,
        first_s=first_s,
        done_s=-1.0 if error or not usage else time.monotonic() - began,
        prompt_tokens=int(usage.get("prompt_tokens", wanted)),
        output_tokens=int(usage.get("completion_tokens", 0)),
        late_s=sent_s - trace.arrival_s[number],
        energy_mj=float(usage.get("energy_mj") or 0.0),
        energy_source=str(usage.get("energy_source", "")),
        error=error or ("" if usage else "the stream ended without its figures"),
    )


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Lines of an event stream, ended by LF only: text holds other separators, at which `aiter_lines` would cut it."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode()
    if rest:
        yield rest.decode()


def _piece(line: str) -> dict[str, Any]:
    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
    if not data or data == "[DONE]":
        return {}
    piece: dict[str, Any] = json.loads(data)
    return piece
