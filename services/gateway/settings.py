"""Settings of the gateway, read once from TRADEWIND_GATEWAY_* variables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.gateway.limits import WAIT_READY_S
from tradewind.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """What the gateway needs to know.

    Attributes:
        listen: "host:port" of gRPC (InferenceService and Open Inference Protocol).
        http_listen: "host:port" of HTTP; /metrics is served there too.
        compiler_address: "host:port" of the compiler, for tokenizers and chat templates.
        orchestrator_address: "host:port" of the orchestrator, for the status page only.
        api_keys: keys that clients of the data path must show one of; none means that anyone may ask.
        wait_ready_s: how long a request waits while its deployment has no ready replica.
        request_limit_s: most seconds a request may take.
        drain_s: how long requests at work may go on after a signal to stop.
        notice_s: time between saying "not ready" and closing the door, so that balancers see it.
        reflection: whether gRPC tools may list services.
    """

    model_config = SettingsConfigDict(env_prefix="TRADEWIND_GATEWAY_", frozen=True, extra="forbid")

    listen: str = "127.0.0.1:7404"
    http_listen: str = "127.0.0.1:8080"
    compiler_address: str = "127.0.0.1:7402"
    orchestrator_address: str = "127.0.0.1:7401"
    api_keys: tuple[Annotated[str, Field(min_length=8)], ...] = Field(default=(), repr=False)
    wait_ready_s: float = Field(default=WAIT_READY_S, ge=0, le=600)
    request_limit_s: float = Field(default=600.0, gt=0, le=86_400)
    drain_s: float = Field(default=30.0, ge=0, le=3_600)
    notice_s: float = Field(default=0.0, ge=0, le=300)
    reflection: bool = True

    def effective(self) -> dict[str, str]:
        """Every value in force; keys are only counted."""
        return super().effective() | {"api_keys": f"{len(self.api_keys)} configured"}
