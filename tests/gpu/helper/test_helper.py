"""The helper does its list and nothing else, for its users only, whatever comes over the socket or out of a driver."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.node_agent.core.mig.model import Placement
from services.node_agent.core.power import Setting
from services.node_agent.gpu.faults import (
    DriverTrouble,
    GpuError,
    HelperAway,
    InUse,
    InvalidRequest,
    NoPermission,
    NoRoom,
    NotThere,
)
from services.node_agent.gpu.helper.client import HelperClient
from services.node_agent.gpu.helper.frames import MAX_REQUEST_BYTES, parse
from services.node_agent.gpu.helper.server import listen
from services.node_agent.gpu.helper.verbs import VERBS
from services.node_agent.gpu.port import Activation
from tests.gpu.helper.process import Helper, until
from tradewind.domain.errors import InUse as PathInUse
from tradewind.domain.errors import InvalidField

# Promise 46.
WORKER_BACK_LIMIT_S = 2.0


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    # Folders of pytest are closed to other users; this one is not, so that only the helper itself keeps them out.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with Helper(Path(folder) / "run") as helper:
            yield helper


@pytest.fixture
def uuid(helper: Helper) -> str:
    return helper.client.boards()[0].uuid


def test_every_change_is_done_checked_and_audited(helper: Helper, uuid: str) -> None:
    client = helper.client
    assert client.set_mig_mode(uuid, True) is Activation.ACTIVE
    gi_id = client.create_gpu_instance(uuid, 9, Placement(4, 4))
    compute = client.create_compute_instance(uuid, gi_id)
    with pytest.raises(NoRoom, match="overlaps"):
        client.create_gpu_instance(uuid, 9, Placement(4, 4))
    assert [(one.gi_id, one.compute) for one in client.instances(uuid)] == [(gi_id, (compute,))]
    client.destroy_compute_instance(uuid, gi_id, compute.ci_id)
    client.destroy_gpu_instance(uuid, gi_id)
    with pytest.raises(NotThere):
        client.destroy_gpu_instance(uuid, gi_id)
    told = [(line["verb"], line["result"].partition(":")[0]) for line in helper.audited()[-7:]]
    assert told == [
        ("set_mig_mode", "done"),
        ("create_gpu_instance", "done"),
        ("create_compute_instance", "done"),
        ("create_gpu_instance", "NoRoom"),
        ("destroy_compute_instance", "done"),
        ("destroy_gpu_instance", "done"),
        ("destroy_gpu_instance", "NotThere"),
    ]
    assert all((line["uid"], line["pid"]) == (os.getuid(), os.getpid()) for line in helper.audited()[-7:])


@pytest.mark.parametrize(
    ("setting", "figures"),
    [
        (Setting(199_999, None), "200000 to 700000 mW"),
        (Setting(700_001, None), "200000 to 700000 mW"),
        (Setting(None, 209), "210 to 1980 MHz"),
        (Setting(300_000, 1981), "210 to 1980 MHz"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_boards_figures(
    helper: Helper, uuid: str, setting: Setting, figures: str
) -> None:
    before = helper.client.read(uuid).power_cap_mw
    with pytest.raises(InvalidRequest, match=figures):
        helper.client.hold_power(uuid, setting)
    assert helper.client.read(uuid).power_cap_mw == before


def test_a_setting_ends_with_its_lease_and_a_safety_cap_stays(helper: Helper) -> None:
    first, second = (board.uuid for board in helper.client.boards())
    agent = HelperClient(helper.socket)
    helper.client.close()
    agent.hold_power(first, Setting(300_000, 1200), lease_s=1.0)
    agent.hold_power(second, Setting(300_000), safety_cap_mw=500_000, lease_s=1.0)
    assert (agent.read(first).power_cap_mw, agent.read(first).sm_clock_mhz) == (300_000, 1200)
    agent.close()
    took_s = until(lambda: helper.client.read(first).power_cap_mw == 700_000, 10)
    assert took_s < 4
    until(lambda: helper.client.read(second).power_cap_mw == 500_000, 5)
    assert helper.client.read(first).sm_clock_mhz != 1200
    assert [line["by"] for line in helper.audited() if line["verb"] == "end_lease"] == ["helper"] * 2


def test_one_connection_changes_at_a_time(helper: Helper, uuid: str) -> None:
    helper.client.hold_power(uuid, Setting())
    other = HelperClient(helper.socket)
    with pytest.raises(InUse, match="one agent"):
        other.set_mig_mode(uuid, False)
    assert other.boards() == helper.client.boards()
    other.close()


def test_a_driver_that_kills_or_hangs_costs_one_call(helper: Helper) -> None:
    """A segmentation fault in the library, and a call that never ends: the next call is served by another worker."""
    client = helper.client
    worker = helper.worker
    worker.send_signal(signal.SIGSEGV)
    worker.wait(5)
    begun_s = time.monotonic()
    try:
        client.boards()
    except DriverTrouble:
        client.boards()
    assert time.monotonic() - begun_s < WORKER_BACK_LIMIT_S
    helper.worker.send_signal(signal.SIGSTOP)
    with pytest.raises(DriverTrouble, match="no answer from the driver in 1 s"):
        client.boards()
    begun_s = time.monotonic()
    client.boards()
    assert time.monotonic() - begun_s < WORKER_BACK_LIMIT_S


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_and_audited(helper: Helper, uuid: str) -> None:
    """The socket itself is closed to others; opened wide by mistake, the peer's uid still decides."""
    program = (
        "import os, sys, pathlib\n"
        "from services.node_agent.gpu.helper.client import HelperClient\n"
        "client = HelperClient(pathlib.Path(sys.argv[1]))\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try:\n    client.set_mig_mode(sys.argv[2], True)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    call = [sys.executable, "-c", program, str(helper.socket), uuid]
    closed = subprocess.run(call, capture_output=True, text=True, timeout=30)
    assert closed.stdout.startswith("HelperAway"), closed
    helper.socket.chmod(0o666)
    opened = subprocess.run(call, capture_output=True, text=True, timeout=30)
    assert opened.stdout.startswith(NoPermission.__name__), opened
    last = helper.audited()[-1]
    assert (last["uid"], last["verb"]) == (65534, "connect")
    assert last["result"].startswith("refused")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=4,
)
nearly = st.fixed_dictionaries(
    {"id": st.integers(-1, 9) | anything, "verb": st.sampled_from([*VERBS, "reboot", ""]) | anything},
    optional={
        "arguments": st.dictionaries(
            st.sampled_from(["uuid", "enabled", "profile_id", "start", "size", "gi_id", "ci_id", "cap_mw", "extra"]),
            anything | st.integers(0, 40) | st.just("GPU-1"),
            max_size=6,
        ),
        "root": anything,
    },
)


@given(nearly | anything)
@settings(max_examples=100, deadline=None)
def test_a_line_is_of_the_list_or_refused(body: object) -> None:
    """Whatever parses has exactly the fields of its verb, each within its bounds."""
    try:
        request = parse(json.dumps(body).encode())
    except InvalidRequest:
        return
    assert isinstance(body, dict)
    assert request.verb is VERBS[body["verb"]]
    assert set(body) == {"id", "verb", "arguments"}
    assert set(body["arguments"]) == set(request.verb.arguments.model_fields)


@given(lines=st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"")), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_changes_nothing_and_is_audited(helper: Helper, uuid: str, lines: list[bytes]) -> None:
    layout, refused = helper.client.instances(uuid), len(helper.audited())
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(helper.socket))
    raw.settimeout(5)
    raw.sendall(b"\n".join(lines) + b"\n")
    answer = raw.makefile("rb").readline()
    raw.close()
    assert json.loads(answer)["error"]["kind"] == "InvalidRequest"
    assert helper.client.instances(uuid) == layout
    assert [line["verb"] for line in helper.audited()[refused:]] == ["unreadable"]


def test_an_endless_line_is_cut_off(helper: Helper) -> None:
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(helper.socket))
    raw.settimeout(5)
    raw.sendall(b"x" * (MAX_REQUEST_BYTES * 4))
    assert b"too long" in raw.makefile("rb").readline()
    raw.close()
    assert len(helper.client.boards()) == 2


def test_no_helper_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(HelperAway, match="is the helper running"):
        HelperClient(tmp_path / "nobody").boards()


def test_paths_that_are_no_socket_of_ours_are_left_alone(tmp_path: Path) -> None:
    """A link, a file, a folder that others may write, and a helper that is there already."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(victim)
    for path in (link, victim):
        with pytest.raises(InvalidField, match="left alone"):
            listen(path, None)
    assert victim.read_text() == "precious"
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    with pytest.raises(InvalidField, match="nobody else can write"):
        listen(open_folder / "s", None)
    first = listen(tmp_path / "s", None)
    first.listen()
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    with pytest.raises(PathInUse, match="another helper"):
        listen(tmp_path / "s", None)
    first.close()
    listen(tmp_path / "s", None).close()


def test_all_errors_cross_the_socket(helper: Helper) -> None:
    with pytest.raises(GpuError, match="no board") as caught:
        helper.client.instances("GPU-0")
    assert (type(caught.value), caught.value.code) == (NotThere, 6)
