"""A gateway from the gateway's tests, a compiled tensor model, and imports in real child processes."""

from __future__ import annotations

import pytest

from tests.frontends.tensor_variant import build_tensor_variant
from tests.gateway.conftest import gateway_settings, world
from tests.tiny_variant import TinyVariant

__all__ = ["gateway_settings", "world"]


@pytest.fixture(scope="session")
def tensor_variant() -> TinyVariant:
    """A tiny BERT, compiled for one and four samples of up to 32 tokens."""
    return build_tensor_variant()
