"""Signed envelopes: DSSE (github.com/secure-systems-lab/dsse, protocol v1.0.2) with Ed25519. Pure.

A compiler signs manifests with its private key; a node agent holds the public keys it trusts and opens nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tradewind.domain.errors import ArtifactRejected

PAYLOAD_TYPE: Final = "application/vnd.tradewind.variant+json"


def seal(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The envelope of a payload, as JSON bytes. Deterministic: Ed25519 signatures are."""
    signature = key.sign(_pre_authentication(payload))
    return json.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}],
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()


def open_envelope(envelope: bytes, trusted: Iterable[Ed25519PublicKey]) -> bytes:
    """The payload, when one of the trusted keys signed it.

    Raises:
        ArtifactRejected: not an envelope, or no trusted key signed it.
    """
    try:
        parts = json.loads(envelope)
        payload = base64.b64decode(parts["payload"], validate=True)
        signatures = {s["keyid"]: base64.b64decode(s["sig"], validate=True) for s in parts["signatures"]}
        if parts["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"payload of type {parts['payloadType']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactRejected(f"not a signed manifest: {error}") from error
    for key in trusted:
        signature = signatures.get(key_id(key))
        if signature is not None:
            try:
                key.verify(signature, _pre_authentication(payload))
            except InvalidSignature as error:
                raise ArtifactRejected("the manifest's signature does not match; build the variant again") from error
            return payload
    raise ArtifactRejected(
        "the manifest is not signed by a trusted compiler; add the compiler's public key to the agent's trusted keys",
        {"signed_by": ",".join(sorted(signatures))},
    )


def key_id(key: Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the raw public key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _pre_authentication(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
