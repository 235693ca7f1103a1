"""Settings of the orchestrator, from TRADEWIND_ORCHESTRATOR_*."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from services.orchestrator.core.facts.change_bound import DEFAULT_BOUND, ChangeBound
from services.orchestrator.core.facts.policy import POLICIES
from tradewind.settings import ServiceSettings


class OrchestratorSettings(ServiceSettings):
    """What the orchestrator needs to know.

    Attributes:
        advertise_address: "host:port" where agents and other orchestrators reach this one; "" for its own listen, or
            the host's name when it listens on every interface.
        compiler_address: "host:port" of the compiler.
        profiler_address: "host:port" of the profiler.
        suspect_after_s: silence after which a node gets no new work.
        lost_after_s: silence after which its work is placed elsewhere.
        policy: how it goes about its work: energy, latency, static, … (`core/policy.py`); evaluations compare them.
        saving_share: share of all devices that changes for savings may touch within `saving_window_s`, at most; 1 is
            no bound.
        saving_least: devices that they may touch in any fleet.
        saving_window_s: length of that rolling window.
        catalog_poll_s: how often models, variants and profiles are read.
    """

    model_config = SettingsConfigDict(env_prefix="TRADEWIND_ORCHESTRATOR_")

    listen: str = "127.0.0.1:7401"
    advertise_address: str = ""
    compiler_address: str = "127.0.0.1:7402"
    profiler_address: str = "127.0.0.1:7403"
    suspect_after_s: float = Field(default=6.0, gt=0)
    lost_after_s: float = Field(default=20.0, gt=0)
    policy: str = "energy"
    saving_share: float = Field(default=DEFAULT_BOUND.share, gt=0, le=1)
    saving_least: int = Field(default=DEFAULT_BOUND.least, ge=1)
    saving_window_s: float = Field(default=DEFAULT_BOUND.window_s, gt=0)
    catalog_poll_s: float = Field(default=3.0, gt=0)

    @property
    def bound(self) -> ChangeBound:
        """How much of the fleet may change for savings."""
        return ChangeBound(self.saving_share, self.saving_least, self.saving_window_s)

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, name: str) -> str:
        # The oracle knows the future, which only a simulation has.
        known = [policy.name for policy in POLICIES.values() if not policy.foresees]
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
        return name
