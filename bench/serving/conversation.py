"""What the turns of a conversation take when their replica holds the earlier ones, and when nothing is used again.

    python -m bench.serving.conversation http://127.0.0.1:PORT DEPLOYMENT [--turns 6] [--rounds 5]

A turn sends everything said so far and a new question. Both kinds are asked in turns, each conversation with an opening
of its own; the second kind sends another cache salt each time. Prints medians as JSON: time to the first token as the
client sees it, and the energy that the answer was charged.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import time
import uuid
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import openai

WORDS: Final = tuple(
    f"{first} {second}" for first in ("old", "calm", "long") for second in ("sea", "storm", "boat", "net")
)
OPENING_WORDS, QUESTION_WORDS, ANSWER_TOKENS = 60, 20, 24


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer: milliseconds, millijoules, tokens."""

    ttft_ms: float
    energy_mj: float
    prompt_tokens: int
    reused_tokens: int


def converse(client: openai.OpenAI, deployment: str, turns: int, fresh: bool, seed: int) -> list[Turn]:
    """One conversation; `fresh`: nothing of earlier turns is used again."""
    draw, talk, salt = random.Random(seed), list[Any](), uuid.uuid4().hex
    taken = []
    for turn in range(turns):
        words = draw.choices(WORDS, k=QUESTION_WORDS if turn else OPENING_WORDS)
        talk.append({"role": "user", "content": " ".join(words)})
        taken.append(_ask(client, deployment, talk, uuid.uuid4().hex if fresh else salt))
    return taken


def _ask(client: openai.OpenAI, deployment: str, talk: list[Any], salt: str) -> Turn:
    began_s, first_s, text, usage = time.monotonic(), 0.0, "", None
    pieces: Any = client.chat.completions.create(
        model=deployment,
        messages=talk,
        max_tokens=ANSWER_TOKENS,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"cache_salt": salt, "ignore_eos": True},
    )
    for piece in pieces:
        if piece.choices and piece.choices[0].delta.content:
            first_s = first_s or time.monotonic() - began_s
            text += piece.choices[0].delta.content
        usage = piece.usage or usage
    talk.append({"role": "assistant", "content": text})
    assert usage is not None
    reused = usage.prompt_tokens_details.cached_tokens
    return Turn(first_s * 1e3, usage.model_extra["energy_mj"] or 0.0, usage.prompt_tokens, reused)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("deployment")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    client = openai.OpenAI(base_url=f"{options.url}/v1", api_key="none")
    converse(client, options.deployment, 2, fresh=True, seed=0)
    kinds = {"kept": False, "fresh": True}
    seen: dict[str, list[list[Turn]]] = {kind: [] for kind in kinds}
    for number in range(options.rounds):
        for kind in sorted(kinds, reverse=bool(number % 2)):
            seen[kind].append(converse(client, options.deployment, options.turns, kinds[kind], number + 1))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(
        json.dumps(
            {
                "commit": commit.stdout.strip(),
                "machine": f"{platform.machine()}, {platform.processor()}",
                "rounds": options.rounds,
                "turns": [_turn(seen, turn) for turn in range(options.turns)],
            },
            indent=1,
        )
    )


def _turn(seen: dict[str, list[list[Turn]]], turn: int) -> dict[str, Any]:
    def middle(kind: str, name: str) -> float:
        return round(float(median(getattr(talk[turn], name) for talk in seen[kind])), 1)

    names = ("ttft_ms", "energy_mj", "prompt_tokens", "reused_tokens")
    figures: dict[str, Any] = {kind: {name: middle(kind, name) for name in names} for kind in seen}
    for name in names[:2]:
        figures[f"{name}_ratio"] = round(figures["kept"][name] / max(figures["fresh"][name], 1e-9), 3)
    return {"turn": turn + 1, **figures}


if __name__ == "__main__":
    main()
