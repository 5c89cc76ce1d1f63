"""compose.yaml: its files are there, its commands and settings are accepted, dashboards and rules are provisioned."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
import yaml

from extproc import cli
from extproc.__main__ import main
from extproc.settings import config

ROOT = Path(__file__).parent.parent
FILES = ROOT / "k8s/compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FILES / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("render", "processor", "mock", "drain")


def test_services_depend_on_services_and_mount_what_is_there() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", ())) <= set(SERVICES), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (FILES / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), "published to everyone"
        assert ":" in service["image"]
        build = service.get("build")
        assert build is None or (FILES / build["context"] / build["dockerfile"]).exists()
    waits = {name: service for name, service in SERVICES.items() if isinstance(service.get("depends_on"), dict)}
    for service in waits.values():
        for needed, how in service["depends_on"].items():
            assert (how["condition"] == "service_healthy") == ("healthcheck" in SERVICES[needed])
    published = [port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(set(published)) == len(published)


def test_containers_of_the_gateway_are_restricted_and_share_a_user() -> None:
    for name in (*OURS, "envoy"):
        service = SERVICES[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
    user = SERVICES["envoy"]["user"]
    assert f"USER {user}" in (ROOT / "k8s/Dockerfile").read_text()
    uid, _, gid = user.partition(":")
    for name in ("run", "admin"):
        assert f"uid={uid},gid={gid}" in COMPOSE["volumes"][name]["driver_opts"]["o"]
    assert "run:/run/extproc" in SERVICES["envoy"]["volumes"], "Envoy makes a socket there: workers.private_socket"


def test_the_commands_parse_and_the_settings_fit_the_containers() -> None:
    for name in OURS:
        verb, *arguments = SERVICES[name]["command"]
        parser = argparse.ArgumentParser(exit_on_error=False)
        cli.module(verb).arguments(parser)
        parser.parse_args(arguments)
    settings = config.load(FILES / "settings/gateway.yaml")
    assert SERVICES["envoy"]["ports"] == [f"127.0.0.1:10000:{settings.listener.port}"]
    inside = [int(port.split(":")[2]) for port in SERVICES["processor"]["ports"]]
    assert inside == [settings.status.port, settings.admin.port]
    assert settings.processor.path.startswith("/run/extproc/")
    named = re.findall(r"env: ?([A-Z_]+)", (FILES / "settings/gateway.yaml").read_text())
    assert {*named, "EXTPROC_WORKERS"} == set(SERVICES["processor"]["environment"])
    url = settings.providers["sandbox"].url
    assert (url.hostname, f"--port={url.port}") == ("mock", SERVICES["mock"]["command"][2])


def test_prometheus_and_grafana_are_provisioned() -> None:
    mounts = {
        name: {volume.split(":")[1]: volume.split(":")[0] for volume in SERVICES[name]["volumes"]}
        for name in ("prometheus", "grafana")
    }
    scrape = yaml.safe_load((FILES / "prometheus.yml").read_text())
    [target] = scrape["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"processor:{config.load(FILES / 'settings/gateway.yaml').status.port}"
    assert mounts["prometheus"][f"/etc/prometheus/{scrape['rule_files'][0]}"] == "../monitoring/alerts.yaml"
    [source] = yaml.safe_load((FILES / "grafana/datasources.yaml").read_text())["datasources"]
    assert source["isDefault"]
    assert urlsplit(source["url"]).hostname in SERVICES
    [provider] = yaml.safe_load((FILES / "grafana/dashboards.yaml").read_text())["providers"]
    folder = FILES / mounts["grafana"][provider["options"]["path"]]
    assert {json.loads(path.read_text())["uid"] for path in folder.glob("*.json")} >= {"extproc-traffic"}
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (folder / home.name).exists()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    for file in (FILES / "prometheus.yml", ROOT / "k8s/monitoring/alerts.yaml"):
        shutil.copy(file, tmp_path)
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.e2e
def test_envoy_accepts_the_configuration_that_render_writes(tmp_path: Path) -> None:
    text = (FILES / "settings/gateway.yaml").read_text().replace("/run/extproc", str(tmp_path))
    (tmp_path / "gateway.yaml").write_text(text)
    places = {"/etc/extproc": tmp_path, "/run/extproc": tmp_path}
    command = [
        re.sub(r"/(etc|run)/extproc", lambda found: str(places[found[0]]), part)
        for part in SERVICES["render"]["command"]
    ]
    with mock.patch("sys.argv", ["extproc", *command]):
        assert main() == 0
    envoy = [
        str(Path(sys.executable).with_name("envoy")),
        "--mode",
        "validate",
        "--use-dynamic-base-id",
        "--log-level",
        "error",
    ]
    done = subprocess.run(
        [*envoy, "-c", str(tmp_path / "envoy.yaml")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
