"""docs/cli.md keeps up with the command line: every command and every key of a declaration is in it."""

from __future__ import annotations

from pathlib import Path

import typer.main
from pydantic import BaseModel

from tradewind.cli.declaration import Declaration
from tradewind.cli.main import build

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(app: object, path: str = "") -> list[str]:
    """Every command below a group, as people type it."""
    children = getattr(app, "commands", {})
    if not children:
        return [path]
    return [found for name, child in children.items() for found in commands(child, f"{path} {name}".strip())]


def keys(part: type[BaseModel]) -> list[str]:
    """Every key of a declaration."""
    found = []
    for name, field in part.model_fields.items():
        kind = field.annotation
        found += keys(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else [name]
    return found


def test_every_command_is_documented() -> None:
    found = commands(typer.main.get_command(build()))
    assert {"model import", "variant build", "profile run", "pareto", "deploy", "apply", "plan", "explain"} <= set(
        found
    )
    assert {"status", "nodes list", "chat", "up", "down"} <= set(found)
    assert [c for c in found if f"`{c}" not in TEXT] == []


def test_every_key_of_a_declaration_is_documented() -> None:
    found = keys(Declaration)
    assert {"source", "min_quality", "rate"} <= set(found)
    assert [k for k in found if f"{k}`" not in TEXT] == []
