"""What may be asked of the child that reads NVML, and the form of each answer. None of it changes anything."""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter

from services.node_agent.gpu.helper.verbs import VERBS, Kind
from services.node_agent.gpu.port import BoardReading, GpuReader, SliceReading

# Board and slices of one look together: an exchange between processes costs more than either reading.
LOOK: Final = "look"
# How long the driver waits for an event before it says that there was none.
EVENTS_S: Final = 1.0

Look = tuple[BoardReading, tuple[SliceReading, ...]]

QUESTIONS: Final[dict[str, TypeAdapter[Any]]] = {
    **{name: verb.answer for name, verb in VERBS.items() if verb.kind is Kind.READ},
    LOOK: TypeAdapter(Look),
}


def answer(reader: GpuReader, name: str, arguments: dict[str, Any]) -> Any:
    """The answer to one of the questions.

    Raises:
        GpuError: what the driver answered.
    """
    if name == "events":
        return reader.events(EVENTS_S)
    if name == LOOK:
        uuid = arguments["uuid"]
        return reader.read(uuid), reader.read_slices(uuid) if reader.mig_mode(uuid).current else ()
    return getattr(reader, name)(**arguments)
