"""Writes a report: a folder with report.html, report.json and journal.jsonl, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.simulator.outcome import Outcome
from services.simulator.report.page import page
from tradewind.domain.errors import InvalidField


def write_report(
    folder: Path,
    title: str,
    cases: Sequence[tuple[Mapping[str, Any], Sequence[Outcome]]],
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the three files and returns what report.json holds.

    Raises:
        InvalidField: the folder cannot be written.
    """
    document = {"title": title, "cases": [d for d, _ in cases], **origin}
    journal = "".join(
        json.dumps({"trace": d["trace"]["name"], "policy": o.policy, **line}, ensure_ascii=False) + "\n"
        for d, outcomes in cases
        for o in outcomes
        for line in o.journal
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _put(folder / "report.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        _put(folder / "journal.jsonl", journal)
        _put(folder / "report.html", page(title, cases, origin))
    except OSError as error:
        raise InvalidField("--out", f"{folder} cannot be written: {error}") from error
    return document


def write_live_report(
    folder: Path, document: Mapping[str, Any], html: str, answers: Sequence[Mapping[str, Any]]
) -> None:
    """Writes report.json, report.html and requests.jsonl of live runs.

    Raises:
        InvalidField: the folder cannot be written.
    """
    lines = "".join(json.dumps(dict(a), ensure_ascii=False) + "\n" for a in answers)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _put(folder / "report.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        _put(folder / "requests.jsonl", lines)
        _put(folder / "report.html", html)
    except OSError as error:
        raise InvalidField("--out", f"{folder} cannot be written: {error}") from error


def _put(path: Path, text: str) -> None:
    """Replaces a file in one step, so that nobody reads half of it."""
    fresh = path.with_name(path.name + ".part")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
