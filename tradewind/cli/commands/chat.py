"""`tradewind chat`: talk to a deployment through the gateway's OpenAI endpoint."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from tradewind.cli.failures import EXIT_INTERRUPTED
from tradewind.cli.output import Output
from tradewind.cli.session import Session, command
from tradewind.domain.errors import InvalidField
from tradewind.domain.units import show_mj, show_ms

if TYPE_CHECKING:
    from tradewind.client.gateway import Answer, GatewayClient


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "chat", rich_help_panel=panel)(chat)


def chat(
    session: Session,
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name of the deployment.")],
    text: Annotated[
        str | None, typer.Argument(help="What to say; left out: a conversation, or what stdin holds.")
    ] = None,
    system: Annotated[str, typer.Option("--system", help="Instruction to begin with.")] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=0, help="0: as many as fit.")] = 0,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2, help="0: always the likeliest.")] = 0.0,
    seed: Annotated[int | None, typer.Option("--seed", help="Same seed, same answer.")] = None,
) -> None:
    """Ask a deployment, or hold a conversation with it."""
    options: dict[str, Any] = {"temperature": temperature}
    if max_tokens:
        options["max_tokens"] = max_tokens
    if seed is not None:
        options["seed"] = seed
    messages = [{"role": "system", "content": system}] if system else []
    gateway = session.client.gateway
    if text is None and sys.stdin.isatty() and not session.out.json:
        return _converse(session.out, gateway, deployment, messages, options)
    messages.append({"role": "user", "content": _stdin_text() if text is None else _utf8(text)})
    try:
        answer = _say(session.out, gateway, deployment, messages, options)
    except KeyboardInterrupt:
        session.out.stream("\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    session.out.document(
        {
            "model": answer.model,
            "content": answer.content,
            "finish_reason": answer.finish_reason,
            "usage": answer.usage,
            "ttft_ms": round(answer.ttft_ms, 3),
            "total_ms": round(answer.total_ms, 3),
        }
    )
    return None


def _converse(
    out: Output, gateway: GatewayClient, deployment: str, messages: list[dict[str, str]], options: dict[str, Any]
) -> None:
    out.note(f"[dim]talking to {deployment}; an empty line or Ctrl-D ends it, Ctrl-C stops an answer[/]")
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            out.stream("\n")
            return
        if not text:
            return
        messages.append({"role": "user", "content": _utf8(text)})
        answer = new_answer(deployment)
        try:
            _say(out, gateway, deployment, messages, options, answer)
        except KeyboardInterrupt:
            out.stream(" …\n")
        messages.append({"role": "assistant", "content": answer.content})


def _say(
    out: Output,
    gateway: GatewayClient,
    deployment: str,
    messages: list[dict[str, str]],
    options: dict[str, Any],
    answer: Answer | None = None,
) -> Answer:
    answer = answer or new_answer(deployment)
    for piece in gateway.chat(deployment, messages, answer, **options):
        out.stream(piece)
    out.stream("\n")
    if not out.json:
        out.note(f"[dim]{Text(_figures(answer)).plain}[/]")
    return answer


def new_answer(deployment: str) -> Answer:
    """An empty answer; imported here because the HTTP client below it would slow every other command's start."""
    from tradewind.client.gateway import Answer

    return Answer(deployment)


def _figures(answer: Answer) -> str:
    usage = answer.usage
    parts = [f"{usage.get('completion_tokens', '?')} tokens in {show_ms(answer.total_ms)}"]
    parts.append(f"first after {show_ms(answer.ttft_ms)}")
    energy, source = usage.get("energy_mj"), str(usage.get("energy_source") or "")
    if energy is not None:
        parts.append(f"{show_mj(float(energy))} ({source.replace('_', ' ') or 'no source'})")
    if answer.finish_reason == "length":
        parts.append("cut at the limit")
    return " · ".join(parts)


def _stdin_text() -> str:
    data = sys.stdin.buffer.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidField("stdin", f"is not UTF-8 text (byte {error.start}); convert it first") from error
    if not text.strip():
        raise InvalidField("text", 'is empty; say something: tradewind chat NAME "Hello"')
    return text


def _utf8(text: str) -> str:
    """The text, when it can be sent: arguments that are not UTF-8 arrive with stand-ins for their bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidField("text", f"is not UTF-8 (character {error.start}); convert it first") from error
    if not text.strip():
        raise InvalidField("text", 'is empty; say something: tradewind chat NAME "Hello"')
    return text
