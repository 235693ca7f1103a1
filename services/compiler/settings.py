"""Settings of the compiler, from TRADEWIND_COMPILER_*."""

from __future__ import annotations

import os

import psutil
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.compiler.jobs.limits import JobLimits
from tradewind.settings import ServiceSettings

# Share of the machine's memory that all jobs together may take when nothing is said: serving goes on beside them.
_MEMORY_SHARE = 0.75
# An export of a small model takes under 2 GiB; more jobs at once than memory holds would all be killed.
_LEAST_JOB_BYTES = 4 << 30


class CompilerSettings(ServiceSettings):
    """What the compiler needs to know.

    Attributes:
        parallel_jobs: child processes at once; 0 means one for each core, as far as memory allows.
        job_time_s: longest time of one child process.
        job_memory_mb: most memory of one child process and its descendants; 0 means an equal share of 3/4 of what the
            machine has.
        orchestrator_address: "host:port" of the orchestrator whose nodes time candidates; "" for none.
    """

    model_config = SettingsConfigDict(env_prefix="TRADEWIND_COMPILER_")

    listen: str = "127.0.0.1:7402"
    parallel_jobs: int = Field(default=0, ge=0, le=64)
    job_time_s: int = Field(default=1800, ge=1, le=86_400)
    job_memory_mb: int = Field(default=0, ge=0)
    orchestrator_address: str = ""

    @property
    def places(self) -> int:
        """Child processes at once."""
        fitting = int(psutil.virtual_memory().total * _MEMORY_SHARE // _LEAST_JOB_BYTES)
        return self.parallel_jobs or max(1, min(len(os.sched_getaffinity(0)), fitting))

    @property
    def job_limits(self) -> JobLimits:
        """Limits of one child process."""
        share = int(psutil.virtual_memory().total * _MEMORY_SHARE) // self.places
        return JobLimits(self.job_time_s, (self.job_memory_mb << 20) or share)
