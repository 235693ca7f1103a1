"""deploy/docker-compose.yml as Docker Compose reads it with nothing set: anchors merged, defaults filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
_VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+)(?::?(?P<kind>[-?])(?P<text>[^}]*))?\}")


def read(name: str, given: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A file of deploy/, with `given` in place of an env file.

    Raises:
        ValueError: a variable that must be given is not.
    """
    document = yaml.safe_load((DEPLOY / name).read_text())
    assert isinstance(document, dict)
    return {key: _filled(value, given or {}) for key, value in document.items()}


def variables(name: str) -> dict[str, str]:
    """Variables that a file of deploy/ asks for, with their defaults."""
    text = (DEPLOY / name).read_text()
    return {found["name"]: found["text"] or "" for found in _VARIABLE.finditer(text)}


def _filled(value: Any, given: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part, given) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, given) for part in value]
    return _VARIABLE.sub(lambda found: _value(found, given), value) if isinstance(value, str) else value


def _value(found: re.Match[str], given: Mapping[str, str]) -> str:
    if found["name"] in given:
        return given[found["name"]]
    if found["kind"] == "?":
        raise ValueError(f"{found['name']}: {found['text']}")
    return found["text"] or ""
