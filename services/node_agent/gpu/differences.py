"""Where a board's own table differs from what such boards are known to offer. Told, never acted upon."""

from __future__ import annotations

from services.node_agent.core.mig.model import DeviceTable, GiProfile
from services.node_agent.gpu.known_boards import known_board


def differences(device_class: str, table: DeviceTable) -> tuple[str, ...]:
    """What differs, in words; empty when nothing does, or when no such board is known.

    Args:
        device_class: for instance "gpu:h100-80".
        table: as the board reports it.
    """
    board = known_board(device_class)
    if board is None:
        return ()
    known = {profile.name: profile for profile in board.table.profiles}
    told = {profile.name: profile for profile in table.profiles}
    found = [f"{name} is not offered" for name in known if name not in told]
    found += [f"{name} is new" for name in told if name not in known]
    for name in known:
        if name in told:
            inferred = name in board.inferred_memory
            found += [f"{name}: {words}" for words in _of_profile(known[name], told[name], inferred)]
    return tuple(found)


def _of_profile(known: GiProfile, told: GiProfile, inferred_memory: bool) -> list[str]:
    pairs = [
        ("id", known.profile_id, told.profile_id),
        ("compute slices", known.compute_slices, told.compute_slices),
        ("most instances", known.instance_limit, told.instance_limit),
        ("placements", _places(known), _places(told)),
        ("engines", known.engines, told.engines),
    ]
    if known.multiprocessor_count:
        pairs.append(("multiprocessors", known.multiprocessor_count, told.multiprocessor_count))
    found = [f"{what} {theirs}, known as {ours}" for what, ours, theirs in pairs if ours != theirs]
    # Known sizes were rounded to hundredths of a GiB by those who wrote them down.
    if not inferred_memory and abs(known.memory_bytes - told.memory_bytes) > known.memory_bytes / 20:
        found.append(f"memory {told.memory_bytes >> 20} MiB, known as {known.memory_bytes >> 20}")
    return found


def _places(profile: GiProfile) -> list[str]:
    return [f"{place.start}:{place.size}" for place in profile.placements]
