"""Who may use the data path: anyone, or holders of an API key when keys are configured."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import grpc

from services.gateway.openai.refusal import Refusal


class ApiKeys:
    """Checks keys in constant time.

    Args:
        keys: the valid ones; none lets everyone in.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def allow(self, header: str | None) -> bool:
        """Whether an Authorization header ("Bearer KEY") lets its bearer in."""
        if not self._digests:
            return True
        scheme, _, key = (header or "").partition(" ")
        shown = hashlib.sha256(key.strip().encode()).digest()
        # Every key is compared, so that the time does not tell which one was near.
        matches = [hmac.compare_digest(shown, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)

    def require_http(self, header: str | None) -> None:
        """Refuses an HTTP request without a valid key.

        Raises:
            Refusal: 401.
        """
        if not self.allow(header):
            raise Refusal(
                401,
                "invalid_request_error",
                "invalid_api_key",
                'missing or wrong API key; send "Authorization: Bearer KEY" with a key configured for this gateway',
            )

    async def require_grpc(self, context: grpc.aio.ServicerContext[object, object]) -> None:
        """Ends a gRPC call without a valid key with UNAUTHENTICATED."""
        metadata = dict(context.invocation_metadata() or ())
        header = metadata.get("authorization")
        if not self.allow(header if isinstance(header, str) else None):
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                'missing or wrong API key; send metadata "authorization: Bearer KEY"',
            )
