"""Where the services answer: environment, else endpoints.json of a state folder, else the default ports."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from tradewind.domain.errors import InvalidField

FILE_NAME: Final = "endpoints.json"
STATE_DIR_VARIABLE: Final = "TRADEWIND_STATE_DIR"
# Read whole; the file holds four addresses.
MAX_FILE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of the services, and where each was found.

    Attributes:
        compiler: "host:port", as for profiler and orchestrator.
        gateway: URL, "http://host:port".
        origin: where the addresses come from, for messages.
    """

    compiler: str = "127.0.0.1:7402"
    profiler: str = "127.0.0.1:7403"
    orchestrator: str = "127.0.0.1:7401"
    gateway: str = "http://127.0.0.1:8080"
    origin: str = "default ports"


NAMES: Final = tuple(f.name for f in fields(Endpoints) if f.name != "origin")


def default_state_dir(environment: Mapping[str, str], folder: Path, home: Path) -> Path:
    """The state folder: TRADEWIND_STATE_DIR, else `.tradewind` in a folder where it exists, else in the home folder."""
    if named := environment.get(STATE_DIR_VARIABLE):
        return Path(named)
    local = folder / ".tradewind"
    return local if local.is_dir() else home / ".tradewind"


def find_endpoints(state_dir: Path | None = None, environment: Mapping[str, str] | None = None) -> Endpoints:
    """Where the services answer.

    Each of TRADEWIND_COMPILER, TRADEWIND_PROFILER, TRADEWIND_ORCHESTRATOR and TRADEWIND_GATEWAY overrides what
    endpoints.json in the state folder says, and that overrides the default ports.

    Args:
        state_dir: state folder; None means `default_state_dir`.
        environment: None means that of the process.

    Raises:
        InvalidField: endpoints.json or an address is malformed.
    """
    environment = os.environ if environment is None else environment
    folder = state_dir or default_state_dir(environment, Path.cwd(), Path.home())
    file = folder / FILE_NAME
    found = _read(file)
    named = {n: environment[v] for n in NAMES if environment.get(v := f"TRADEWIND_{n.upper()}")}
    origins = ["environment"] * bool(named) + [str(file)] * bool(set(found) - set(named))
    if set(NAMES) - set(found) - set(named):
        origins.append("default ports")
    values = {name: _checked(name, value) for name, value in (found | named).items()}
    return Endpoints(**values, origin=", ".join(origins))


def _read(file: Path) -> dict[str, str]:
    try:
        with file.open("rb") as opened:
            raw = json.loads(opened.read(MAX_FILE_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidField(str(file), f"cannot be read ({error}); `tradewind up` writes it anew") from error
    if not isinstance(raw, dict):
        raise InvalidField(str(file), "is not a JSON object; `tradewind up` writes it anew")
    return {name: str(raw[name]) for name in NAMES if raw.get(name)}


def _checked(name: str, value: str) -> str:
    if name == "gateway":
        url = value if "://" in value else f"http://{value}"
        if not url.startswith(("http://", "https://")):
            raise InvalidField("TRADEWIND_GATEWAY", f"{value!r} is no URL; write http://host:port")
        return url.rstrip("/")
    port = value.rpartition(":")[2]
    if not value.startswith("unix:") and not (port.isdigit() and 0 < int(port) < 65536):
        raise InvalidField(f"TRADEWIND_{name.upper()}", f"{value!r} is no address; write host:port")
    return value
