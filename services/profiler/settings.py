"""Settings of the profiler, from TRADEWIND_PROFILER_*."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from tradewind.settings import ServiceSettings


class ProfilerSettings(ServiceSettings):
    """What the profiler needs to know.

    Attributes:
        compiler_address: "host:port" of the compiler.
        orchestrator_address: "host:port" of the orchestrator, which knows the nodes.
    """

    model_config = SettingsConfigDict(env_prefix="TRADEWIND_PROFILER_")

    listen: str = "127.0.0.1:7403"
    compiler_address: str = "127.0.0.1:7402"
    orchestrator_address: str = "127.0.0.1:7401"
