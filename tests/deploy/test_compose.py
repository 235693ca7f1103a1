"""The compose file against what it deploys: services, settings, images, gates. Needs no Docker."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from services.compiler.settings import CompilerSettings
from services.gateway.settings import GatewaySettings
from services.node_agent.settings import NodeAgentSettings
from services.orchestrator.settings import OrchestratorSettings
from services.profiler.settings import ProfilerSettings
from tests.deploy.compose_file import DEPLOY, read, variables
from tradewind.client.endpoints import NAMES, find_endpoints
from tradewind.settings import ServiceSettings

ROOT = DEPLOY.parent
SETTINGS: dict[str, type[ServiceSettings]] = {
    "compiler": CompilerSettings,
    "gateway": GatewaySettings,
    "node-agent": NodeAgentSettings,
    "orchestrator": OrchestratorSettings,
    "profiler": ProfilerSettings,
}
STORES = {"postgres", "redis"}
ONE_SHOT = {"cli", "compiler-key"}
LOCAL = "127.0.0.1:"


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read("docker-compose.yml")["services"]
    return found


@pytest.fixture(scope="module")
def images() -> dict[str, list[str]]:
    """Lines of the Dockerfile by stage."""
    stages: dict[str, list[str]] = {}
    for line in (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        if line.startswith("FROM "):
            stages[line.split()[-1]] = []
        elif stages:
            next(reversed(stages.values())).append(line)
    return stages


def settings_of(name: str, service: dict[str, Any]) -> ServiceSettings:
    return SETTINGS[name].read(service["environment"])


def test_every_service_of_the_architecture_is_there_and_nothing_unknown(services: dict[str, Any]) -> None:
    folders = {f.parent.name.replace("_", "-") for f in (ROOT / "services").glob("*/__main__.py")}
    assert set(services) == folders | STORES | ONE_SHOT
    assert set(SETTINGS) == folders


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_ones_the_service_accepts(name: str, services: dict[str, Any]) -> None:
    environment = services[name]["environment"]
    settings = settings_of(name, services[name])
    prefix = f"TRADEWIND_{name.upper().replace('-', '_')}_"
    shared = {"TRADEWIND_DATABASE_URL", "TRADEWIND_REDIS_URL", "TRADEWIND_LOG_FORMAT", "TRADEWIND_LOG_LEVEL"}
    assert {key for key in environment if not key.startswith(prefix)} == shared
    assert "@postgres:5432/" in settings.database_url
    assert settings.redis_url == "redis://redis:6379/0"


def test_an_unknown_setting_would_be_seen(services: dict[str, Any]) -> None:
    environment = {**services["compiler"]["environment"], "TRADEWIND_COMPILER_LISTENS": "x"}
    with pytest.raises(ValueError, match="TRADEWIND_COMPILER_LISTENS"):
        CompilerSettings.read(environment)


@pytest.mark.parametrize("name", SETTINGS)
def test_addresses_lead_to_where_services_listen(name: str, services: dict[str, Any]) -> None:
    values = settings_of(name, services[name]).model_dump()
    addresses = {key: value for key, value in values.items() if key.endswith("_address")}
    addresses.pop("advertise_address", None)
    for key, address in addresses.items():
        host, _, port = address.partition(":")
        assert key == f"{host}_address"
        assert settings_of(host, services[host]).listen.endswith(f":{port}")


def test_the_agent_is_reached_by_its_name(services: dict[str, Any]) -> None:
    settings = settings_of("node-agent", services["node-agent"])
    assert isinstance(settings, NodeAgentSettings)
    assert settings.advertise_address == f"node-agent:{settings.listen.rpartition(':')[2]}"


def test_the_command_line_finds_every_service(services: dict[str, Any], tmp_path: Path) -> None:
    found = find_endpoints(tmp_path, services["cli"]["environment"])
    assert found.origin == "environment"
    for name in NAMES:
        host, _, port = getattr(found, name).removeprefix("http://").partition(":")
        settings = settings_of(host, services[host])
        listen = settings.http_listen if isinstance(settings, GatewaySettings) else settings.listen
        assert (host, listen.rpartition(":")[2]) == (name, port)


def test_every_lasting_service_is_probed_where_it_listens(services: dict[str, Any]) -> None:
    for name in set(services) - ONE_SHOT:
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    for name in SETTINGS:
        test = services[name]["healthcheck"]["test"]
        assert test[1:4] == ["python", "-m", "tradewind.rpc.health_probe"]
        settings = settings_of(name, services[name])
        listen = settings.http_listen if isinstance(settings, GatewaySettings) else settings.listen
        address = test[4].removeprefix("http://").partition("/")[0]
        assert address == LOCAL + listen.rpartition(":")[2]


def test_starts_are_gated_by_health_and_have_an_order(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, gate in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert gate == {"condition": wanted}, (name, other)
    order = list(TopologicalSorter({n: s.get("depends_on", {}) for n, s in services.items()}).static_order())
    assert order.index("postgres") < order.index("compiler") < order.index("compiler-key") < order.index("node-agent")
    for name in ("compiler", "orchestrator", "profiler"):
        assert set(services[name]["depends_on"]) >= STORES


def test_each_service_has_an_image_with_its_own_extra_and_starts_its_own_module(
    services: dict[str, Any], images: dict[str, list[str]]
) -> None:
    for name in [*SETTINGS, "cli"]:
        assert services[name]["build"]["target"] == name
        lines = images[name]
        assert "USER tradewind" in lines
        installed = {line.partition(" -r /requirements/")[2].removesuffix(".txt") for line in lines if " -r " in line}
        assert installed == ({name} if name in SETTINGS else set())
        if name in SETTINGS:
            assert f'CMD ["python", "-m", "services.{name.replace("-", "_")}"]' in lines
            port = settings_of(name, services[name]).listen.rpartition(":")[2]
            assert any(line.startswith("EXPOSE ") and port in line.split() for line in lines)


def test_requirements_come_from_pyproject_and_torch_is_the_compilers_alone(tmp_path: Path) -> None:
    script = DEPLOY / "image" / "requirements.py"
    subprocess.run([sys.executable, script, ROOT / "pyproject.toml", tmp_path], check=True, timeout=30)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"core": project["dependencies"], **project["optional-dependencies"]}
    assert {f.stem: f.read_text().splitlines() for f in tmp_path.iterdir()} == lists
    heavy = ("torch", "transformers", "iree-base-compiler", "iree-turbine")
    holders = {name for name, wanted in lists.items() if any(line.startswith(heavy) for line in wanted)}
    assert holders == {"compiler"}


def test_no_service_has_privileges(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "pid", "devices"} & set(service), name
        assert service.get("network_mode") in (None, "none"), name
        assert service.get("user", "") != "root", name
        assert "mem_limit" in service, name
        if name != "postgres":
            assert service["read_only"] is True, name
            assert service["init"] is True, name


def test_nothing_is_published_beyond_this_host_and_no_store_at_all(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == len({port.split(":")[1] for port in published}) == 5
    assert all(port.startswith(LOCAL) for port in published)
    assert not any(services[store].get("ports") for store in STORES)


def test_the_private_key_stays_with_the_compiler(services: dict[str, Any]) -> None:
    state = {name for name, s in services.items() if any(v.startswith("compiler-state:") for v in s.get("volumes", []))}
    assert state == {"compiler", "compiler-key"}
    assert services["compiler-key"]["network_mode"] == "none"
    settings = settings_of("node-agent", services["node-agent"])
    assert isinstance(settings, NodeAgentSettings)
    assert f"trusted-keys:{settings.keys}:ro" in services["node-agent"]["volumes"]


def test_compiler_jobs_fit_in_the_compilers_memory(services: dict[str, Any]) -> None:
    settings = settings_of("compiler", services["compiler"])
    assert isinstance(settings, CompilerSettings)
    limit = services["compiler"]["mem_limit"]
    assert limit.endswith("g")
    jobs = settings.places * settings.job_limits.memory_bytes
    assert jobs <= (int(limit[:-1]) - 2) << 30


def test_a_stop_leaves_time_to_drain(services: dict[str, Any]) -> None:
    for name, drain in (("gateway", "drain_s"), ("node-agent", "drain_limit_s")):
        grace_s = int(services[name]["stop_grace_period"].removesuffix("s"))
        assert getattr(settings_of(name, services[name]), drain) < grace_s


def test_models_are_at_the_same_read_only_place_for_those_who_name_them(services: dict[str, Any]) -> None:
    assert "./models:/models:ro" in services["compiler"]["volumes"]
    assert "./models:/models:ro" in services["cli"]["volumes"]


def test_the_offline_file_changes_how_each_image_is_built_and_nothing_else(services: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="WHEELS_DIR"):
        read("docker-compose.offline.yml")
    offline = read("docker-compose.offline.yml", {"WHEELS_DIR": "wheels"})
    assert set(offline["services"]) == {name for name, service in services.items() if "build" in service}
    for service in offline["services"].values():
        assert service == {"build": {"additional_contexts": {"wheels": "wheels"}, "secrets": ["ca"]}}


def test_the_example_of_settings_shows_every_variable_with_its_default() -> None:
    shown = [line[1:] for line in (DEPLOY / ".env.example").read_text().splitlines() if line.startswith("#")]
    example = dict(line.split("=", 1) for line in shown if "=" in line and line[0].isupper() and " " not in line)
    assert example == variables("docker-compose.yml")
