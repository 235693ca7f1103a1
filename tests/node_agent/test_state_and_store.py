"""What the agent keeps on disk: its folder and its artifacts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.node_agent.artifacts.store import RESERVE_BYTES, ArtifactStore
from services.node_agent.obedience import Obedience
from services.node_agent.settings import NodeAgentSettings
from services.node_agent.state_folder import StateFolder
from tradewind.domain.errors import ArtifactRejected, InUse, InvalidField, NoSpace
from tradewind.domain.manifest import digest_of
from tradewind.v1 import node_pb2


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path / "a")
    first = folder.node_id("")
    assert folder.node_id("mine") == "mine"
    folder.close()
    again = StateFolder.open(tmp_path / "a")
    assert again.node_id("") == first
    again.close()


def test_a_folder_has_one_holder(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path)
    with pytest.raises(InUse, match=str(os.getpid())):
        StateFolder.open(tmp_path)
    folder.close()
    StateFolder.open(tmp_path).close()


def test_a_kept_target_survives_and_a_damaged_one_is_ignored(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path)
    assert folder.load_target() is None
    kept = node_pb2.NodeTarget(node_id="n", generation=4, fencing=2)
    folder.save_target(kept)
    assert folder.load_target() == kept
    file = tmp_path / "target"
    data = bytearray(file.read_bytes())
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        file.write_bytes(bytes(changed))
        assert folder.load_target() is None
    file.write_bytes(bytes(data[:5]))
    assert folder.load_target() is None
    folder.close()


def test_a_target_is_on_disk_before_it_is_followed(tmp_path: Path) -> None:
    folder = StateFolder.open(tmp_path)
    followed: list[int] = []

    def follow(target: object) -> None:
        kept = folder.load_target()
        assert kept is not None
        followed.append(kept.generation)

    obedience = Obedience("n", folder, follow)
    for generation in (1, 2, 2):
        obedience.obey(node_pb2.NodeTarget(node_id="n", generation=generation))
    assert followed == [1, 2]
    again = Obedience("n", folder, follow)
    again.recover()
    assert again.newest is not None and again.newest.generation == 2
    replica = node_pb2.ReplicaSpec(replica_id="r")
    with pytest.raises(InvalidField, match="SERVE or DRAIN"):
        obedience.obey(node_pb2.NodeTarget(node_id="n", generation=3, replicas=[replica]))
    folder.close()


def test_sockets_of_a_deep_folder_lie_elsewhere_and_private(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    folder = StateFolder.open(deep)
    assert len(str(folder.sockets)) < 90
    assert folder.sockets.stat().st_mode & 0o077 == 0
    folder.close()
    assert not folder.sockets.exists()


def put(store: ArtifactStore, data: bytes) -> str:
    digest = digest_of(data)
    store.append(digest, data[:3])
    store.append(digest, data[3:])
    store.finish(digest)
    return digest


def test_an_artifact_is_whole_or_absent(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, 1 << 20)
    digest = digest_of(b"0123456789")
    store.append(digest, b"01234")
    assert store.partial_bytes(digest) == 5 and not store.has(digest, 10) and store.digests() == []
    store.append(digest, b"56789")
    assert store.finish(digest).read_bytes() == b"0123456789"
    assert store.has(digest, 10) and store.digests() == [digest]
    assert store.partial_bytes(digest) == 0
    store.append(digest_of(b"x"), b"y")
    with pytest.raises(ArtifactRejected, match="thrown away"):
        store.finish(digest_of(b"x"))
    assert store.partial_bytes(digest_of(b"x")) == 0


def test_what_changed_on_disk_is_thrown_away(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, 1 << 20)
    good, bad = put(store, b"good one"), put(store, b"bad one!")
    store.path_of(bad).chmod(0o644)
    store.path_of(bad).write_bytes(b"bad onf!")
    assert store.recheck([good, bad]) == [bad]
    assert store.digests() == [good]
    store.path_of(good).chmod(0o644)
    store.path_of(good).write_bytes(b"short")
    assert not store.has(good, 8)


def test_room_is_made_of_what_nobody_needs_oldest_first(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, limit_bytes=30)
    digests = [put(store, f"artifact {n}".encode()) for n in range(3)]
    for age, digest in enumerate(digests):
        os.utime(store.path_of(digest), (1000 + age, 1000 + age))
    assert store.has(digests[0], 0), "used just now"
    store.make_room(10, keep=[digests[1]])
    assert set(store.digests()) == {digests[0], digests[1]}


def test_no_space_is_said_with_figures(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, limit_bytes=1 << 60)
    with pytest.raises(NoSpace) as caught:
        store.make_room(1 << 59, keep=[])
    assert caught.value.metadata["needed_bytes"] == str(1 << 59)
    assert int(caught.value.metadata["free_bytes"]) > 0 and str(RESERVE_BYTES) in caught.value.message


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, 1 << 20)
    digest = digest_of(b"x")
    (tmp_path / f"{digest.removeprefix('sha256:')}.part").symlink_to("/dev/full")
    with pytest.raises(NoSpace):
        store.append(digest, b"x")


def test_names_that_are_no_digests_touch_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, 1 << 20)
    for wrong in ("../../etc/passwd", "sha256:../x", "sha256:" + "0" * 63, ""):
        with pytest.raises(InvalidField):
            store.path_of(wrong)


def test_settings() -> None:
    settings = NodeAgentSettings.read({"TRADEWIND_NODE_AGENT_LABELS": "rack=r1, zone=a"})
    assert settings.label_pairs() == {"rack": "r1", "zone": "a"}
    assert settings.keys == settings.state_dir / "trusted_keys"
    with pytest.raises(ValueError, match="rack=r1"):
        NodeAgentSettings.read({"TRADEWIND_NODE_AGENT_LABELS": "rack"}).label_pairs()
    with pytest.raises(ValueError, match="did you mean"):
        NodeAgentSettings.read({"TRADEWIND_NODE_AGENT_CPU_ID": "1"})
    with pytest.raises(ValueError, match="NODE_ID"):
        NodeAgentSettings.read({"TRADEWIND_NODE_AGENT_NODE_ID": "no spaces"})
