"""Settings of a service: one frozen, typed value, read once from the environment; an unknown key is an error.

A service's settings subclass `ServiceSettings` and set `env_prefix`, for instance "TRADEWIND_COMPILER_". Keys that all
services share (database_url, redis_url, log_format, log_level) may also be given once with the prefix "TRADEWIND_".
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tradewind.logs import LogFormat

SHARED_KEYS: Final = ("database_url", "redis_url", "log_format", "log_level")
EXIT_MISUSE: Final = 2

S = TypeVar("S", bound="ServiceSettings")


class ServiceSettings(BaseSettings):
    """What every service needs to know.

    Attributes:
        listen: "host:port" of its gRPC server; port 0 takes a free one.
        metrics_listen: "host:port" of /metrics; "" for none.
        state_dir: folder for its files.
        database_url: "postgresql://…" of the metadata database.
        redis_url: "redis://…" or "unix://…" of the live state.
        log_format: "json" or "text".
        log_level: least level shown.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    listen: str = "127.0.0.1:0"
    metrics_listen: str = ""
    state_dir: Path = Path(".tradewind")
    database_url: str = "postgresql://localhost/tradewind"
    redis_url: str = "redis://localhost:6379/0"
    log_format: LogFormat = "text"
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Settings from environment variables.

        Raises:
            ValueError: an unknown key with this service's prefix, or a value that does not fit; one line for a person.
        """
        environment = os.environ if environment is None else environment
        prefix = cls.model_config.get("env_prefix") or "TRADEWIND_"
        values: dict[str, str] = {}
        for key in SHARED_KEYS:
            if (shared := environment.get(f"TRADEWIND_{key.upper()}")) is not None:
                values[key] = shared
        for variable, value in environment.items():
            if variable.startswith(prefix):
                key = variable[len(prefix) :].lower()
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(key, cls.model_fields, n=1)
                    hint = f"; did you mean {prefix}{near[0].upper()}?" if near else ""
                    raise ValueError(f"unknown setting {variable}{hint}")
                values[key] = value
        try:
            return cls.model_validate({key: _decode(value) for key, value in values.items()})
        except ValidationError as error:
            lines = [f"{prefix}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors() if e["loc"]]
            raise ValueError("; ".join(lines) or str(error)) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Only `read` looks at the environment, so that it sees unknown keys.
        return (init_settings,)

    def effective(self) -> dict[str, str]:
        """Every value in force, for the log at start; passwords in URLs hidden."""
        return {key: _hide_password(str(value)) for key, value in self.model_dump().items()}


def read_or_exit(cls: type[S]) -> S:
    """Settings from the environment; a mistake ends the process with one line and code 2."""
    try:
        return cls.read()
    except ValueError as error:
        print(f"settings: {error}", file=sys.stderr)
        sys.exit(EXIT_MISUSE)


def _decode(value: str) -> object:
    """Lists and tables are written as JSON; everything else is the text itself."""
    if value.strip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _hide_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    scheme, colon, credentials = head.partition("://")
    if not at or not colon or ":" not in credentials:
        return url
    return f"{scheme}://{credentials.partition(':')[0]}:***@{tail}"
