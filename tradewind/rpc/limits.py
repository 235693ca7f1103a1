"""Limits and channel options that servers and clients must agree on."""

from __future__ import annotations

from typing import Final

# Artifact pieces are 1 MiB; whole node reports of 1,000 slices stay under 2 MiB. Four times that is room enough.
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
# A dead peer is noticed within 30 s on an idle stream; servers allow pings this often, else they answer GOAWAY.
KEEPALIVE_MS: Final = 20_000
KEEPALIVE_TIMEOUT_MS: Final = 10_000
# More calls at once than this are refused at once with RESOURCE_EXHAUSTED, which bounds memory.
MAX_CONCURRENT_CALLS: Final = 2_000
# Deadlines beyond a day are as good as none and are refused alike.
LONGEST_DEADLINE_S: Final = 86_400.0
# Metadata (headers) of a call.
MAX_METADATA_BYTES: Final = 16 * 1024

SHARED_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
)
