from __future__ import annotations

from functools import cache
from typing import Any

import httpx
import pytest
import yaml

from extproc.envoy.envoy_config.examples import FOLDER, examples
from extproc.words import contract

NAMES = ["attach.snippet.yaml", "failover.envoy.yaml", "minimal.envoy.yaml"]
THEIRS = yaml.safe_load((FOLDER / "attach.envoy.yaml").read_text())


@cache
def texts() -> dict[str, str]:
    """The generated texts, made once, because that takes a second."""
    return {path.name: text for path, text in examples().items()}


def manager(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [item for item in items if item["name"] == name]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_are_up_to_date(name):
    again = "python -m extproc.envoy.envoy_config.examples"
    assert (FOLDER / name).read_text() == texts()[name], f"{name} has drifted; run: {again}"


def test_every_filter_yaml_has_its_configuration():
    assert sorted(texts()) == NAMES


def test_the_snippet_is_pasted_unchanged():
    ext_proc, cluster, log = yaml.safe_load(texts()["attach.snippet.yaml"])
    assert manager(THEIRS)["http_filters"][0] == ext_proc
    assert manager(THEIRS)["access_log"] == [log]
    assert named(THEIRS["static_resources"]["clusters"], "extproc") == cluster


@pytest.mark.e2e
def test_the_example_of_another_teams_envoy_runs(gateway, run_envoy, monkeypatch, certificate):
    """Their configuration, with other ports and with this test's processor and provider."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
    theirs = yaml.safe_load((FOLDER / "attach.envoy.yaml").read_text().replace(
        "/etc/ssl/certs/ca-certificates.crt", str(certificate[0])
    ))  # fmt: skip
    door = theirs["static_resources"]["listeners"][0]["address"]["socket_address"]
    door |= {"address": "127.0.0.1", "port_value": gateway.spare_port}
    clusters = theirs["static_resources"]["clusters"]
    openai = named(clusters, "openai") | {"type": "STATIC"}
    del openai["transport_socket"]
    clusters[1:] = [openai, named(clusters, "local") | {"type": "STATIC"}]
    for cluster, where in zip(
        clusters, ({"pipe": {"path": gateway.socket}}, gateway.address("a"), gateway.address("b")), strict=True
    ):
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = where

    url = f"http://127.0.0.1:{gateway.spare_port}/v1/chat/completions"
    client = {"authorization": "Bearer of-the-client", contract.PROVIDER: "local"}
    with run_envoy(theirs):
        assert httpx.post(url, json={}, headers=client).status_code == 404
        for name in ("openai", "local"):
            gateway.processor.plan.headers = {contract.PROVIDER: name, contract.ID: "1"}
            assert httpx.post(url, json={}, headers=client).status_code == 200
    (keyed,), (keyless,) = gateway.providers["a"].seen, gateway.providers["b"].seen
    assert keyed.headers["authorization"] == "Bearer sk-theirs"
    assert "authorization" not in keyless.headers
    assert not [name for name in (*keyed.headers, *keyless.headers) if name.startswith(contract.PREFIX)]
    assert gateway.processor.headers(contract.ATTACH, "request")[0]["authorization"] == "Bearer of-the-client"
