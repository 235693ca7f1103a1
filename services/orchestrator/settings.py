"""Settings of the orchestrator, from TRADEWIND_ORCHESTRATOR_*."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tradewind.settings import ServiceSettings


class OrchestratorSettings(ServiceSettings):
    """What the orchestrator needs to know.

    Attributes:
        advertise_address: "host:port" where agents and other orchestrators reach this one; "" for its own listen.
        compiler_address: "host:port" of the compiler.
        profiler_address: "host:port" of the profiler.
        suspect_after_s: silence after which a node gets no new work.
        lost_after_s: silence after which its work is placed elsewhere.
        catalog_poll_s: how often models, variants and profiles are read.
    """

    model_config = SettingsConfigDict(env_prefix="TRADEWIND_ORCHESTRATOR_")

    listen: str = "127.0.0.1:7401"
    advertise_address: str = ""
    compiler_address: str = "127.0.0.1:7402"
    profiler_address: str = "127.0.0.1:7403"
    suspect_after_s: float = Field(default=6.0, gt=0)
    lost_after_s: float = Field(default=20.0, gt=0)
    catalog_poll_s: float = Field(default=3.0, gt=0)
