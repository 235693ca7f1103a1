"""Values of the core as text and back, exactly: what a decision was made from, kept so that it can be made again. Pure.

Every dataclass instance is an entry of one table and is named by its place, so that what several situations share (a
catalog, a node) is written once. Entries are in an order in which each names only earlier ones. Types come from the
annotations of the fields: nothing of the text chooses what is made.
"""

from __future__ import annotations

import json
import types
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

# A reference into the table; no value of the core is a dictionary with this key.
_AT: Final = "@"


class Unreadable(ValueError):
    """The text does not fit today's types: the core's vocabulary has changed since it was written."""


def to_text(value: object) -> str:
    """A dataclass instance, and everything it holds, as JSON."""
    table: list[list[object]] = []
    seen: dict[int, int] = {}

    def plain(part: object) -> object:
        if is_dataclass(part) and not isinstance(part, type):
            if id(part) not in seen:
                entry = [plain(getattr(part, field.name)) for field in fields(part)]
                seen[id(part)] = len(table)
                table.append(entry)
            return {_AT: seen[id(part)]}
        if isinstance(part, Enum):
            return part.value
        if isinstance(part, tuple | list):
            return [plain(item) for item in part]
        if isinstance(part, str | int | float) or part is None:
            return part
        raise TypeError(f"{type(part).__name__} is no value of the core")

    plain(value)
    return json.dumps(table, separators=(",", ":"))


def from_text(kind: type[T], text: str) -> T:
    """What `to_text` wrote.

    Raises:
        Unreadable: it does not fit `kind` as it is today.
    """
    try:
        table = json.loads(text)
        made: dict[tuple[int, type[Any]], object] = {}

        def value(hint: Any, part: Any) -> Any:
            if isinstance(part, dict):
                return entry(_dataclass_of(hint), part[_AT])
            if isinstance(part, list):
                return tuple(
                    value(item_hint, item) for item_hint, item in zip(_items(hint, len(part)), part, strict=True)
                )
            return _scalar(hint, part)

        def entry(of: type[Any], place: int) -> object:
            if (place, of) not in made:
                hints = _hints(cast(Hashable, of))
                names = [field.name for field in fields(of)]
                parts = zip(names, table[place], strict=True)
                made[place, of] = of(**{name: value(hints[name], part) for name, part in parts})
            return made[place, of]

        result = entry(kind, len(table) - 1)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise Unreadable(f"the inputs do not fit this version: {error}") from error
    assert isinstance(result, kind)
    return result


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _dataclass_of(hint: Any) -> type[Any]:
    found = [option for option in _options(hint) if isinstance(option, type) and is_dataclass(option)]
    if len(found) != 1:
        raise TypeError(f"{hint} is not one dataclass")
    return found[0]


def _items(hint: Any, count: int) -> list[Any]:
    tuples = [option for option in _options(hint) if get_origin(option) is tuple]
    if len(tuples) != 1:
        raise TypeError(f"{hint} is not one tuple")
    arguments = get_args(tuples[0])
    return [arguments[0]] * count if len(arguments) == 2 and arguments[1] is Ellipsis else list(arguments)


def _scalar(hint: Any, part: Any) -> Any:
    for option in _options(hint):
        if option is type(part):
            return part
        if isinstance(option, type) and issubclass(option, Enum) and part is not None:
            return option(part)
        if option is float and type(part) is int:
            return float(part)
    raise TypeError(f"{part!r} is no {hint}")
