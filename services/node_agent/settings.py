"""Settings of the node agent, read once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tradewind.settings import ServiceSettings


class NodeAgentSettings(ServiceSettings):
    """What an agent needs to know.

    Attributes:
        node_id: identity; "" takes one from the host's name and keeps it in state_dir.
        advertise_address: "host:port" where others reach this agent; "" for its own listen.
        orchestrator_address: "host:port" of each orchestrator, separated by commas; the leader is found among them.
        compiler_address: "host:port"; where artifacts come from.
        trusted_keys: folder of public keys (*.pub, PEM) whose signatures count; "" for state_dir/trusted_keys.
        cpu_ids: logical CPUs to offer, such as "0,1" or "0-3"; "" for all this process may use.
        labels: failure domain labels, such as "rack=r1,zone=a".
        report_period_s: longest time between two reports.
        load_limit_s: how long a replica may take to load, warm up and answer its canary.
        drain_limit_s: how long requests in hand may take when the agent stops.
        cache_limit_bytes: most bytes of artifacts kept that no replica needs.
        gpus: "auto" offers NVIDIA boards where there are any; "off" leaves them alone.
        vulkan: "on" offers what IREE reaches through Vulkan; llvmpipe computes on the offered CPUs, too.
        simulated_machine: boards to simulate instead, such as "h100-80x2"; every figure of them says so.
        tdp_w: thermal design power of the processor, for modelled energy; 0 when not known.
        gpu_helper: socket of the privileged helper, through which boards are cut and their power is set; "" for none.
        adopt_unknown_slices: whether slices that somebody else made become ours; else they are left alone.
        idle_boost: "off" lets the clocks of a board fall while its replicas rest; "on" is the driver's default.
        gpu_power_budget_w: for all boards of this node together; 0 for none.
    """

    model_config = SettingsConfigDict(env_prefix="TRADEWIND_NODE_AGENT_", frozen=True, extra="forbid")

    listen: str = "127.0.0.1:7410"
    node_id: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,63}$")
    advertise_address: str = ""
    orchestrator_address: str = Field(default="127.0.0.1:7401", pattern=r"[^,\s]")
    compiler_address: str = "127.0.0.1:7402"
    trusted_keys: Path | None = None
    cpu_ids: str = ""
    labels: str = ""
    report_period_s: float = Field(default=2.0, gt=0, le=60)
    load_limit_s: float = Field(default=120.0, gt=0, le=3600)
    drain_limit_s: float = Field(default=30.0, ge=0, le=3600)
    cache_limit_bytes: int = Field(default=20 << 30, ge=0)
    gpus: Literal["auto", "off"] = "auto"
    vulkan: Literal["on", "off"] = "off"
    simulated_machine: str = ""
    tdp_w: float = Field(default=0.0, ge=0, le=2000)
    gpu_helper: str = ""
    adopt_unknown_slices: bool = False
    idle_boost: Literal["off", "on"] = "off"
    gpu_power_budget_w: float = Field(default=0.0, ge=0, le=100_000)

    @property
    def keys(self) -> Path:
        """Folder of trusted keys."""
        return self.trusted_keys or self.state_dir / "trusted_keys"

    def label_pairs(self) -> dict[str, str]:
        """Labels by name.

        Raises:
            ValueError: not pairs.
        """
        pairs = [part.partition("=") for part in self.labels.split(",") if part.strip()]
        if any(not name.strip() or not equals for name, equals, _ in pairs):
            raise ValueError(f"TRADEWIND_NODE_AGENT_LABELS: {self.labels!r} is not a list such as rack=r1,zone=a")
        return {name.strip(): value.strip() for name, _, value in pairs}
