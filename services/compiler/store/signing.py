"""The compiler's signing key: made at first start, readable by its owner only, public half beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE_NAME: Final = "compiler.key"
PUBLIC_NAME: Final = "compiler.pub"


def open_signing_key(folder: Path) -> Ed25519PrivateKey:
    """The key of the folder, made when there is none; the public key file is written anew.

    Raises:
        ValueError: the file is there and holds no Ed25519 key.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = folder / PRIVATE_NAME
    if not private.exists():
        _create(private)
    key = serialization.load_pem_private_key(private.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{private} holds no Ed25519 key; move it away, and a new one is made at the next start")
    _write_public(key, folder / PUBLIC_NAME)
    return key


def _create(private: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    new = private.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    new.rename(private)


def _write_public(key: Ed25519PrivateKey, public: Path) -> None:
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if not public.exists() or public.read_bytes() != pem:
        new = public.with_suffix(f".{os.getpid()}")
        new.write_bytes(pem)
        new.rename(public)
