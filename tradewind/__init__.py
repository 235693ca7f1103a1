"""Tradewind: language models under latency and energy SLOs."""

import os
from typing import Final

__version__ = "0.1.0"

# No forked child of ours goes on with gRPC: it execs. gRPC's handlers have it start a poller between fork and exec
# while Python closes its descriptors; one that is started with preexec_fn then aborts now and then (grpc/grpc#43055).
# Read when grpc is imported, which everything of ours does after this.
_FORK_SUPPORT: Final = "GRPC_ENABLE_FORK_SUPPORT"
os.environ.setdefault(_FORK_SUPPORT, "0")
