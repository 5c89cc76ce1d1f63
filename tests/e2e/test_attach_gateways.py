"""Attach mode as Envoy Gateway and Istio configure Envoy: `k8s/gateways`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.test_attach import ENVOY, ask, attached
from tests.test_gateways import ISTIO
from tests.test_k8s import only

EXT_PROC = "envoy.filters.http.ext_proc"
MANAGER = "envoy.filters.network.http_connection_manager"
TYPE = "type.googleapis.com/envoy"


def as_envoy_gateway_does(manager: dict[str, Any]) -> None:
    """No metadata of the gRPC call; the filter is off, and each route switches it on, also the one that answers 404."""
    [ours] = [one for one in manager["http_filters"] if one["name"] == EXT_PROC]
    del ours["typed_config"]["grpc_service"]["initial_metadata"]
    ours["disabled"] = True
    [host] = manager["route_config"]["virtual_hosts"]
    for route in host["routes"]:
        route["typed_per_filter_config"] = {EXT_PROC: {"@type": f"{TYPE}.config.route.v3.FilterConfig", "config": {}}}


def test_a_filter_that_routes_switch_on_guards_every_request(tmp_path: Path) -> None:
    with attached(tmp_path, as_envoy_gateway_does) as gateway:
        assert ask(gateway).headers["x-ai-provider"] == "openai"
        assert gateway.http.get(f"{gateway.url}/v1/models").json()["error"]["code"] == "missing_key"
        spoofed = {"x-extproc-provider": "local"}
        assert ask(gateway, key=None, headers=spoofed).status_code == 401
        assert ask(gateway, "llama", headers=spoofed).headers["x-ai-provider"] == "local"
        assert b"total_tokens" not in ask(gateway, stream=True).content
        assert gateway.last(lambda entry: entry.get("stream"))["usage_source"] == "provider"
        seen = dict(gateway.seen("openai")[0]["headers"])
        assert not [name for name in seen if name.startswith("x-extproc-")]


def test_envoy_accepts_the_patches_for_istio(tmp_path: Path) -> None:
    patches = only(ISTIO, "EnvoyFilter")["spec"]["configPatches"]
    cluster, ours, manager, listener, provider = (patch["patch"]["value"] for patch in patches)
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"},
    }
    theirs = {
        "stat_prefix": "istio",
        "route_config": {"virtual_hosts": [{"name": "x", "domains": ["*"], "routes": []}]},
        "http_filters": [ours, router],
        **manager["typed_config"],
    }
    tree = {
        "node": {"id": "x", "cluster": "x"},
        "static_resources": {
            "listeners": [
                {
                    "name": "x",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
                    "filter_chains": [{"filters": [{"name": MANAGER, "typed_config": theirs}]}],
                    **listener,
                }
            ],
            "clusters": [cluster, {"name": "outbound|443||api.openai.com", "type": "STRICT_DNS", **provider}],
        },
    }
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/openai.yaml").write_text('{"resources": []}')
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(tree).replace("/run/extproc/", f"{tmp_path}/"))
    command = [str(ENVOY), "--mode", "validate", "--use-dynamic-base-id", "--log-level", "error", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
