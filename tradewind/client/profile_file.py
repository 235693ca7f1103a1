"""Profiles of a model as one file: `tradewind profile export` writes it, the simulator reads it. Proto JSON inside.

{"format": "tradewind-profiles@1", "model": {…}, "variants": [{…}], "profiles": [{…}], "devices": [{…}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from tradewind.domain.errors import InvalidField, ProfileMissing
from tradewind.v1 import compiler_pb2, node_pb2, orchestrator_pb2, profiler_pb2

FORMAT: Final = "tradewind-profiles@1"
# A profile is some kilobytes; a model with this much has thousands of them, or the file is another one.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredProfiles:
    """What the store knows of a model's costs.

    Attributes:
        devices: one of each class that a profile is of, with all its cores or the whole board.
    """

    model: compiler_pb2.Model
    variants: tuple[compiler_pb2.Variant, ...]
    profiles: tuple[profiler_pb2.Profile, ...]
    devices: tuple[node_pb2.Device, ...]

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {
            "format": FORMAT,
            "model": _dict(self.model),
            "variants": [_dict(v) for v in self.variants],
            "profiles": [_dict(p) for p in self.profiles],
            "devices": [_dict(d) for d in self.devices],
        }


def gathered(
    model: compiler_pb2.Model,
    variants: Iterable[compiler_pb2.Variant],
    profiles: Iterable[profiler_pb2.Profile],
    nodes: Iterable[orchestrator_pb2.Node],
) -> StoredProfiles:
    """What belongs together of what the services tell.

    Raises:
        ProfileMissing: nothing was measured, or no node that is connected has a device of a measured class.
    """
    kept = tuple(p for p in profiles if p.loads)
    if not kept:
        raise ProfileMissing(
            f"nothing of {model.name} is measured; `tradewind profile run {model.name}` does it", {"model": model.name}
        )
    classes, largest = {p.point.device_class for p in kept}, dict[str, node_pb2.Device]()
    for device in (d for node in nodes for d in node.report.devices if d.device_class in classes):
        known = largest.get(device.device_class)
        if known is None or len(device.cpu_ids) > len(known.cpu_ids):
            largest[device.device_class] = device
    if not largest:
        raise ProfileMissing(
            f"no connected node has a device of class {', '.join(sorted(classes))}, which {model.name} was measured "
            "on; start an agent there and export again",
            {"model": model.name},
        )
    here = tuple(p for p in kept if p.point.device_class in largest)
    measured = {p.point.variant_id for p in here}
    return StoredProfiles(
        model, tuple(v for v in variants if v.variant_id in measured), here,
        tuple(largest[name] for name in sorted(largest)),
    )  # fmt: skip


def read_profiles(path: Path) -> StoredProfiles:
    """Reads a file.

    Raises:
        InvalidField: no such file, too large, or not of this format.
    """
    how = "`tradewind profile export MODEL --out FILE` writes one"
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidField("profiles", f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MiB; {how}")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidField("profiles", f"{path} cannot be read ({error}); {how}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise InvalidField("profiles", f"{path.name} is not of the format {FORMAT}; {how}")
    try:
        return StoredProfiles(
            ParseDict(raw["model"], compiler_pb2.Model()),
            tuple(ParseDict(v, compiler_pb2.Variant()) for v in raw["variants"]),
            tuple(ParseDict(p, profiler_pb2.Profile()) for p in raw["profiles"]),
            tuple(ParseDict(d, node_pb2.Device()) for d in raw["devices"]),
        )
    except (KeyError, TypeError, ParseError) as error:
        raise InvalidField("profiles", f"{path.name} is malformed: {error}; {how}") from error


def _dict(message: Message) -> Mapping[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)
