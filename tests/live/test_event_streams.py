"""Answers whose text holds U+2028 or U+0085: to an event stream these are text, not ends of lines."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from services.simulator.live.generator import play
from services.simulator.trace import Trace
from tradewind.client.gateway import Answer, GatewayClient

TEXT = "a\u2028b\u0085c"


class Told(BaseHTTPRequestHandler):
    """Streams one piece of text, in the form that was asked for, and the figures."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "text": TEXT, "delta": {"content": TEXT}, "finish_reason": None}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "energy_mj": 1.0, "energy_source": "modelled"}
        pieces = [{"choices": [choice]}, {"choices": [], "usage": usage}]
        lines = "".join(f"data: {json.dumps(p, ensure_ascii=False)}\n\n" for p in pieces) + "data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(lines.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Told)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_load_generator_takes_them_as_text(url: str) -> None:
    (answer,) = asyncio.run(play(url, "d", Trace("t", (0.0,), (3,), (2,))))
    assert (answer.error, answer.output_tokens, answer.energy_source) == ("", 2, "modelled")


def test_the_chat_client_takes_them_as_text(url: str) -> None:
    client = GatewayClient(url)
    assert "".join(client.chat("d", [{"role": "user", "content": "hi"}], Answer("d"))) == TEXT
    client.close()
