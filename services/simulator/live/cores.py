"""Which cores which node agent of a live run gets: further agents as asked, the instance's own the rest. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tradewind.domain.errors import InvalidField

_FIELD = "--agent-cores"


def rest_for_own(asked: Sequence[str], here: Collection[int]) -> str:
    """Cores that are left for the instance's own agent, as "0,2".

    Args:
        asked: cores of each further agent, such as "1" or "2-3".
        here: cores that this process may use.

    Raises:
        InvalidField: malformed, not here, asked for twice, or none is left.
    """
    taken = list[int]()
    for text in asked:
        cores = cores_of(text)
        if strange := sorted(set(cores) - set(here)):
            raise InvalidField(_FIELD, f"{text!r}: no core {strange[0]} here; there are {written(here)}")
        if twice := sorted(set(cores) & set(taken)):
            raise InvalidField(_FIELD, f"{text!r}: core {twice[0]} is another agent's already")
        taken += cores
    left = sorted(set(here) - set(taken))
    if not left:
        raise InvalidField(_FIELD, f"{', '.join(asked)} leave no core for the instance's own agent; ask for fewer")
    return written(left)


def cores_of(text: str) -> list[int]:
    """The cores of "1", "2-3" or "0,2-3".

    Raises:
        InvalidField: it is no such list.
    """
    cores: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InvalidField(_FIELD, f"{text!r} is no list of cores such as 1 or 2-3")
        cores += range(int(first), int(last or first) + 1)
    if not cores:
        raise InvalidField(_FIELD, f"{text!r} holds no core; write the lower one first")
    return cores


def written(cores: Collection[int]) -> str:
    """Cores as a list for a setting."""
    return ",".join(str(core) for core in sorted(cores))
