"""Asks one service whether it serves, for container health checks: `python -m tradewind.rpc.health_probe ADDRESS`.

ADDRESS is "host:port" or "unix:/path" of a gRPC server with the standard health service, or an http(s) URL that
answers 200. Exit 0: it serves; 1: it does not, with one line why; 2: no address. Must stay light: it is started
again and again.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import urllib.error
import urllib.request
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

# A healthy service on the same host answers in milliseconds; a busy one gets this long.
LIMIT_S: Final = 3.0


def main() -> None:
    """Probes the address of the command line and exits with what it found."""
    parser = argparse.ArgumentParser(prog="tradewind.rpc.health_probe")
    parser.add_argument("address", help='"host:port", "unix:/path" or an http URL')
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS", help="longest wait (%(default)s)")
    arguments = parser.parse_args()
    problem = probe(arguments.address, arguments.limit)
    if problem:
        print(f"{arguments.address}: {problem}", file=sys.stderr)
        sys.exit(1)


def probe(address: str, limit_s: float = LIMIT_S) -> str:
    """Why the service at `address` does not serve; "" when it does."""
    if address.startswith(("http://", "https://")):
        return _probe_http(address, limit_s)
    return _probe_grpc(address, limit_s)


def _probe_grpc(address: str, limit_s: float) -> str:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=limit_s)
        except grpc.RpcError as error:
            return str(error.details()) if isinstance(error, grpc.Call) else str(error)
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _probe_http(url: str, limit_s: float) -> str:
    # A health check asks this very host; a proxy of the environment would answer for itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=limit_s) as answer:
            return "" if answer.status == http.client.OK else f"status {answer.status}"
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


if __name__ == "__main__":
    main()
