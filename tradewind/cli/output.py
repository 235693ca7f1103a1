"""Where words go: results on stdout, progress and notes on stderr; with --json, stdout is pure JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Cell = str | Text
# Width where there is no terminal to ask: logs, pipes, recorded runs.
PLAIN_WIDTH: Final = 100


class Output:
    """Prints for a person or for a program.

    Attributes:
        json: whether stdout is for a program.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._stdout, self._stderr = _console(sys.stdout), _console(sys.stderr)

    @property
    def live(self) -> bool:
        """Whether progress can be drawn in place, on stderr."""
        return self._stderr.is_terminal

    @property
    def screen(self) -> Console:
        """Where results go; for live views."""
        return self._stdout

    @property
    def progress_console(self) -> Console:
        """Where progress goes."""
        return self._stderr

    def show(self, *parts: RenderableType) -> None:
        """A result for a person; nothing with --json."""
        if not self.json:
            for part in parts:
                if isinstance(part, Text) and part.no_wrap:
                    # rich joins texts before it prints them and forgets on the way that one must not be broken.
                    self._stdout.print(part, no_wrap=True, overflow=part.overflow)
                else:
                    self._stdout.print(part)

    def stream(self, text: str) -> None:
        """A piece of text without a line's end, at once; nothing with --json."""
        if not self.json:
            self._stdout.file.write(text)
            self._stdout.file.flush()

    def note(self, text: str) -> None:
        """Something by the way, on stderr."""
        self._stderr.print(text, highlight=False, soft_wrap=True)

    def document(self, value: Message | Mapping[str, Any]) -> None:
        """The result for a program: a message of the contract or a mapping; nothing without --json."""
        if self.json:
            ready = to_json(value) if isinstance(value, Message) else value
            self._stdout.file.write(json.dumps(ready, indent=2, ensure_ascii=False) + "\n")
            self._stdout.file.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]], empty: str) -> None:
        """A table for a person, or a line that says why there is none. "^Name" is a right-aligned column."""
        if rows:
            self.show(table_of(columns, rows))
        else:
            self.show(empty)


def table_of(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """A table without frames. "^Name" is right-aligned; "Name…" may be broken over lines, others keep to one."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            column.strip("^…"),
            justify="right" if column.startswith("^") else "left",
            no_wrap=not column.endswith("…"),
            overflow="fold" if column.endswith("…") else "ellipsis",
        )
    for row in rows:
        table.add_row(*row)
    return table


def lined(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], notes: Sequence[str | Text], indent: int = 2
) -> list[RenderableType]:
    """A table whose rows carry a note on a line of its own, for words that no column has room for.

    Args:
        columns: as for `table_of`.
        rows: cells.
        notes: one for each row; an empty one takes no line.
        indent: of the notes.
    """
    cells = [[Text.from_markup(f"[bold]{column.strip('^…')}[/]") for column in columns]]
    cells += [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    widths = [max(row[i].cell_len for row in cells) for i in range(len(columns))]
    lines: list[RenderableType] = []
    for number, row in enumerate(cells):
        line = Text(no_wrap=True, overflow="ellipsis")
        for cell, width, column in zip(row, widths, columns, strict=True):
            gap = " " * (width - cell.cell_len)
            line.append_text(Text(gap) + cell if column.startswith("^") else cell + Text(gap))
            line.append("  ")
        line.rstrip()
        lines.append(line)
        if number == 0:
            lines.append(Text("─" * (sum(widths) + 2 * (len(widths) - 1)), style="dim", no_wrap=True, overflow="crop"))
        elif note := notes[number - 1]:
            lines.append(Padding(Text(note, style="dim") if isinstance(note, str) else note, (0, 0, 0, indent)))
    return lines


def to_json(message: Message) -> dict[str, Any]:
    """Proto JSON with the contract's field names; unset fields are there with their defaults."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def to_json_list(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Several messages."""
    return [to_json(m) for m in messages]


def _console(file: Any) -> Console:
    terminal = file.isatty()
    return Console(file=file, width=None if terminal else PLAIN_WIDTH, highlight=False, emoji=False)
