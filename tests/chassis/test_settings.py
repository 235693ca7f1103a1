"""Settings: frozen, unknown keys refused, secrets hidden; lifecycle: signals stop parts in reverse order."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pydantic
import pytest
from pydantic_settings import SettingsConfigDict

from tradewind.settings import ServiceSettings


class Example(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="TRADEWIND_EXAMPLE_")
    workers: int = 1
    labels: dict[str, str] = {}  # noqa: RUF012


def test_values_come_from_own_and_shared_keys() -> None:
    settings = Example.read(
        {"TRADEWIND_EXAMPLE_WORKERS": "3", "TRADEWIND_REDIS_URL": "redis://r", "TRADEWIND_EXAMPLE_LABELS": '{"a":"b"}'}
    )
    assert (settings.workers, settings.redis_url, settings.labels) == (3, "redis://r", {"a": "b"})


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="TRADEWIND_EXAMPLE_WORKRS; did you mean TRADEWIND_EXAMPLE_WORKERS"):
        Example.read({"TRADEWIND_EXAMPLE_WORKRS": "3"})


def test_a_value_that_does_not_fit_names_its_key() -> None:
    with pytest.raises(ValueError, match=r"TRADEWIND_EXAMPLE_WORKERS: .*integer"):
        Example.read({"TRADEWIND_EXAMPLE_WORKERS": "three"})


def test_settings_do_not_change_and_hide_passwords() -> None:
    settings = Example.read({"TRADEWIND_DATABASE_URL": "postgresql://me:secret@h/db"})
    with pytest.raises(pydantic.ValidationError):
        settings.workers = 4  # type: ignore[misc]
    assert settings.effective()["database_url"] == "postgresql://me:***@h/db"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_parts_in_reverse_order(number: signal.Signals) -> None:
    program = textwrap.dedent(
        """
        from tradewind import logs
        from tradewind.rpc.service import Lifecycle, run
        logs.configure("example")
        async def start(life: Lifecycle) -> None:
            async def say(word): print(word, flush=True)
            life.on_not_ready(lambda: say("not ready"))
            life.on_stop(lambda: say("stop 1"))
            life.on_stop(lambda: say("stop 2"))
            await say("ready")
        run("example", start)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    rest, _ = child.communicate(timeout=20)
    assert rest.split("\n")[:3] == ["not ready", "stop 2", "stop 1"]
    assert child.returncode == 0


def test_a_refusal_at_start_is_one_line_and_code_1() -> None:
    program = textwrap.dedent(
        """
        from tradewind.domain.errors import InUse
        from tradewind.rpc.service import run
        async def start(life): raise InUse("port 1 is taken")
        run("example", start)
        """
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert child.returncode == 1
    assert child.stderr.strip().splitlines()[-1] == "example: port 1 is taken"
    assert "Traceback" not in child.stderr
