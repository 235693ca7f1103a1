"""What fits a deployment's context, before any replica is asked."""

from __future__ import annotations

import pytest

from services.gateway.text_service import check_lengths
from tradewind.domain.errors import ContextExceeded
from tradewind.domain.routes import DeploymentRoute


def route(context_tokens: int) -> DeploymentRoute:
    return DeploymentRoute("d", "chat", "m", context_tokens, ())


def test_the_last_token_that_fits_fits() -> None:
    check_lengths(route(100), 90, 10, "prompt")
    with pytest.raises(ContextExceeded, match="context is 100 tokens; the request has 91 tokens"):
        check_lengths(route(100), 91, 10, "prompt")


def test_while_no_replica_is_ready_nothing_is_known_and_nothing_refused() -> None:
    check_lengths(route(0), 5_000, 10, "prompt")
