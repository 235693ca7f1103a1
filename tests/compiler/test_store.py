"""Blobs, index, lock and key: whole or absent, found by content, one owner."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from services.compiler.store.blobs import RESERVE_BYTES, BlobStore
from services.compiler.store.index import Index, key_of
from services.compiler.store.lock import lock_folder
from services.compiler.store.signing import open_signing_key
from tradewind.domain.envelope import open_envelope, seal
from tradewind.domain.errors import ArtifactRejected, InUse, InvalidField, NoSpace, NotFound


def test_a_blob_is_found_by_its_digest_and_cannot_be_written_again(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    digest = blobs.put_bytes(b"hello")
    assert digest == "sha256:" + hashlib.sha256(b"hello").hexdigest()
    assert blobs.put_bytes(b"hello") == digest
    path = blobs.existing(digest)
    assert path.read_bytes() == b"hello"
    assert path.stat().st_mode & 0o222 == 0
    assert b"".join(blobs.read(digest, 2, 2)) == b"llo"
    with pytest.raises(InvalidField, match="past the end at 5"):
        list(blobs.read(digest, 6, 2))
    with pytest.raises(NotFound, match="build the variant again"):
        blobs.existing("sha256:" + "0" * 64)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "G" * 64, "../" * 20, "sha256:" + "0" * 65])
def test_what_is_no_digest_never_becomes_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(InvalidField):
        BlobStore(tmp_path).path_of(digest)


def test_a_file_is_moved_in_and_half_files_are_swept(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    (tmp_path / "made").write_bytes(b"made")
    digest = blobs.adopt(tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert blobs.has(digest)
    (tmp_path / "blobs" / "incoming" / "half").write_bytes(b"ha")
    blobs.sweep()
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_no_space_is_told_with_numbers_before_work_begins(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    free = shutil.disk_usage(tmp_path).free
    blobs.need(0)
    with pytest.raises(NoSpace, match="MiB free") as caught:
        blobs.need(free)
    assert int(caught.value.metadata["needed_bytes"]) == free + RESERVE_BYTES
    assert caught.value.metadata["path"] == str(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_writing_is_no_space(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    with pytest.raises(NoSpace), blobs._no_space(1), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")


def test_the_index_gives_back_what_it_was_given(tmp_path: Path) -> None:
    index = Index(tmp_path)
    key = key_of("a", {"b": 1})
    assert index.get("variants", key) is None
    index.put("variants", key, {"x": "é"})
    index.put("variants", key, {"x": "è"})
    assert Index(tmp_path).get("variants", key) == {"x": "è"}
    assert key_of("a", {"b": 2}) != key


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    held = lock_folder(tmp_path)
    with pytest.raises(InUse, match="give this compiler another state_dir") as caught:
        lock_folder(tmp_path)
    assert caught.value.metadata["holder"].isdigit()
    held.close()
    lock_folder(tmp_path).close()


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = open_signing_key(tmp_path / "keys")
    again = open_signing_key(tmp_path / "keys")
    envelope = seal(b"payload", key)
    assert open_envelope(envelope, [again.public_key()]) == b"payload"
    assert (tmp_path / "keys" / "compiler.key").stat().st_mode & 0o777 == 0o600
    assert b"PUBLIC KEY" in (tmp_path / "keys" / "compiler.pub").read_bytes()
    other = open_signing_key(tmp_path / "other")
    with pytest.raises(ArtifactRejected):
        open_envelope(envelope, [other.public_key()])
