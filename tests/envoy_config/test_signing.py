"""Requests to Amazon Bedrock: Envoy signs them as botocore does."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from extproc.envoy.envoy_config import bootstrap
from extproc.settings.config import parse
from extproc.words import contract

pytestmark = pytest.mark.e2e

KEY, SECRET, SESSION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session/token=="
MODELS = [
    "amazon.nova-lite-v1",
    "anthropic.claude-3-5-sonnet-20241022-v2:0",  # %3A, signed as %253A
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0",
]
BODIES = [b'{"messages": []}', b"", json.dumps({"text": "ü" * 200_000}, ensure_ascii=False).encode()]


@dataclass
class Arrived:
    path: str
    headers: dict[str, str]
    body: bytes


class Upstream(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.arrived.append(Arrived(self.path, headers, body))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_args: object) -> None:
        pass


def straight(tree: dict[str, Any], port: int, cluster: str) -> dict[str, Any]:
    """The configuration with a public listener that leads directly into a try, without a processor."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    network = "type.googleapis.com/envoy.extensions.filters.network"
    manager = {
        "@type": f"{network}.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    public = {
        "name": "public",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "per_connection_buffer_limit_bytes": 8 << 20,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    resources = tree["static_resources"]
    resources["listeners"] = [public, *(entry for entry in resources["listeners"] if entry["name"] != "public")]
    return tree


def signed_as_botocore_does(arrived: Arrived, auth: Any) -> str:
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\S+), ?SignedHeaders=(\S+), ?Signature=([0-9a-f]{64})",
        arrived.headers["authorization"],
    )
    assert found, arrived.headers["authorization"]
    names = found[2].split(";")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    assert not [name for name in names if name.startswith(("x-envoy-", "x-forwarded-", contract.PREFIX))]
    request = AWSRequest(
        "POST",
        f"http://{arrived.headers['host']}{arrived.path}",
        headers={name: arrived.headers[name] for name in names},
        data=arrived.body,
    )
    request.context["timestamp"] = arrived.headers["x-amz-date"]
    signer = auth.SigV4Auth(Credentials(KEY, SECRET, SESSION), "bedrock", "us-east-1")
    assert found[1] == signer.scope(request)
    told = signer.string_to_sign(request, signer.canonical_request(request))
    assert signer.signature(told, request) == found[3], signer.canonical_request(request)
    return found[3]


def test_requests_are_signed_as_botocore_signs_them(run_envoy, monkeypatch):
    auth = pytest.importorskip("botocore.auth")
    monkeypatch.setattr(auth, "SIGNED_HEADERS_BLACKLIST", [])  # Envoy signs user-agent too, which is allowed
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    upstream = Upstream()
    with Upstream() as probe:  # used only for its free port
        port = probe.server_address[1]
        probe.shutdown()
    address = f"http://127.0.0.1:{upstream.server_address[1]}"
    settings = parse(f"""
providers: {{aws: {{kind: aws_bedrock, region: us-east-1, base_url: "{address}"}}}}
models: {{m: {{provider: aws}}}}
""")
    tree = straight(bootstrap(settings, secrets_dir="/nowhere"), port, contract.try_cluster("aws"))
    signatures = set()
    with run_envoy(tree), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15) as client:
        for model in MODELS:
            path = f"/model/{quote(model, safe='')}/converse"
            for body in BODIES:
                # Raw, because httpx would decode unnecessary percent-encoding.
                url = client.base_url.copy_with(raw_path=f"/v1{path}".encode())
                headers = {"authorization": "Bearer of-the-client", "x-amz-date": "20200101T000000Z"}
                assert client.post(url, content=body, headers=headers).status_code == 200
                arrived = upstream.arrived[-1]
                assert (arrived.path, arrived.body) == (path, body)
                assert arrived.headers.get("x-amz-content-sha256") == hashlib.sha256(body).hexdigest()
                signatures.add(signed_as_botocore_does(arrived, auth))
    assert len(signatures) == len(MODELS) * len(BODIES)
    upstream.shutdown()
    upstream.server_close()
