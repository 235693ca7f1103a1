"""Settings of the privileged helper, read once."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.node_agent.gpu.helper.backend import NVML
from tradewind.settings import ServiceSettings


class HelperSettings(ServiceSettings):
    """What the helper needs to know.

    Attributes:
        socket: path of its socket, in a folder that only its user can write.
        allowed_users: names or numbers of users that may connect, such as "tradewind,1001"; "" for its own only.
        group: group that may open the socket; "" for none but its own user.
        audit_log: file that each call is written to; "" for the service's own log only.
        backend: "nvml", or "simulated:h100-80x2" for a machine that is not there.
        call_limit_s: longest time for one call of the driver's library.
        state_dir: folder for leases; gone with a reboot is well.
    """

    model_config = SettingsConfigDict(env_prefix="TRADEWIND_GPU_HELPER_", frozen=True, extra="forbid")

    socket: Path = Path("/run/tradewind-gpu/helper.sock")
    state_dir: Path = Path("/run/tradewind-gpu")
    allowed_users: str = ""
    group: str = ""
    audit_log: Path | None = None
    backend: str = Field(default=NVML, pattern=r"^(nvml|simulated:[a-z0-9,-]+)$")
    call_limit_s: float = Field(default=10.0, gt=0, le=120)

    @property
    def allowed_uids(self) -> frozenset[int]:
        """Who may connect, as numbers.

        Raises:
            ValueError: no such user.
        """
        names = [name.strip() for name in self.allowed_users.split(",") if name.strip()]
        try:
            return frozenset({os.geteuid(), *(int(n) if n.isdigit() else pwd.getpwnam(n).pw_uid for n in names)})
        except KeyError as error:
            raise ValueError(f"TRADEWIND_GPU_HELPER_ALLOWED_USERS: {error.args[0]}") from error

    @property
    def gid(self) -> int | None:
        """Group of the socket.

        Raises:
            ValueError: no such group.
        """
        try:
            return grp.getgrnam(self.group).gr_gid if self.group else None
        except KeyError as error:
            raise ValueError(f"TRADEWIND_GPU_HELPER_GROUP: {error.args[0]}") from error
