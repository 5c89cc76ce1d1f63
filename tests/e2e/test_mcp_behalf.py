"""Calls on behalf of users through Envoy: the caller's token is exchanged at a token endpoint (RFC 8693)."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.doubles.mcp import Seen, kinds
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.idp import AUDIENCE, Issuer
from tests.e2e.test_mcp import MODERN, Client

STAFF = Issuer("https://idp.example/staff")
LOOKS = "canary-gateway-token"
TYPE = "urn:ietf:params:oauth:token-type:"
SETTINGS = """
mcp:
  servers:
    modern:
      url: "{servers}/modern"
      token: env:LOOKS
      auth:
        token_exchange:
          endpoint: "{endpoint}"
          client_id: "gate:way"
          client_secret: env:CLIENT_SECRET
          audience: tickets
          scope: read write
          actor_token: env:ACTOR
    dual: {{url: "{servers}/dual"}}
  profiles:
    dev: {{servers: {{modern: {{}}, dual: {{}}}}}}
auth: {{jwt: {{issuer: "{issuer}", audiences: [{audience}], jwks: "file:{file}", team: team}}}}
teams: {{platform: {{tools: ["*"]}}}}
consumers: [{{name: demo, team: platform, keys: [{{env: EXTPROC_DEMO_KEY}}]}}]
stores: {{counters: "memory:"}}
"""


class Endpoint:
    """A token endpoint that takes exactly the parameters of RFC 8693, section 2.1, from one client."""

    def __init__(self) -> None:
        self.status = 200
        self.subjects: list[str] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                status, answer = owner.answer(self.headers["authorization"], parse_qs(body, strict_parsing=True))
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/token"

    def answer(self, client: str, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        token = form.pop("subject_token")[0]
        wanted = {
            "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "subject_token_type": [TYPE + "access_token"],
            "requested_token_type": [TYPE + "access_token"],
            "audience": ["tickets"],
            "scope": ["read write"],
            "actor_token": ["canary-actor"],
            "actor_token_type": [TYPE + "jwt"],
        }
        if client != "Basic " + base64.b64encode(b"gate%3Away:canary%2Fsecret").decode() or form != wanted:
            return 400, {"error": "invalid_request"}
        if self.status != 200:
            return self.status, {"error": "invalid_grant", "error_description": "canary-words"}
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        self.subjects.append(claims["sub"])
        issued = {"access_token": f"canary-for-{claims['sub']}", "issued_token_type": TYPE + "access_token"}
        return 200, {**issued, "token_type": "Bearer", "expires_in": 600}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture(scope="module")
def servers() -> Iterator[Any]:
    with kinds("modern", "dual").running() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(servers: Any, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("behalf")
    (folder / "keys.json").write_bytes(STAFF.jwks())
    places = {"issuer": STAFF.url, "audience": AUDIENCE, "file": folder / "keys.json"}
    yaml = SETTINGS.format(servers=servers.url, endpoint=endpoint.url, **places)
    env = {"LOOKS": LOOKS, "CLIENT_SECRET": "canary/secret", "ACTOR": "canary-actor"}
    yield from run_gateway(folder, yaml, (), env)


def authorized(seen: list[Seen]) -> set[str]:
    """All credentials of requests; empty text for one without."""
    return {", ".join(value for name, value in each.headers if name == "authorization") for each in seen}


def test_each_user_is_called_for_with_a_token_of_its_own(gateway: Gateway, servers: Any, endpoint: Endpoint) -> None:
    Client(gateway, "dev").ask("tools/list")
    assert authorized(servers["modern"].seen) == {f"Bearer {LOOKS}"}, "the gateway's looks have its own"
    tokens = {name: STAFF.token(sub=name, team="platform") for name in ("alice", "bob")}
    for name in ("alice", "bob", "alice", "bob"):
        servers["modern"].forget()
        client = Client(gateway, "dev", MODERN, tokens[name])
        assert client.call("modern__echo", text="x")["result"]["content"][0]["text"] == "modern: x"
        assert authorized(servers["modern"].calls) == {f"Bearer canary-for-{name}"}
        assert client.call("dual__echo", text="x")["result"]["content"][0]["text"] == "dual: x"
    assert endpoint.subjects == ["alice", "bob"], "one exchange for each token"
    assert authorized(servers["dual"].calls) == {""}, "no credential reaches a server without auth"
    who = f'"subject":"bob","subject_issuer":"{STAFF.url}"'
    eventually(lambda: gateway.log.read_text().count(who) == 2)
    log = gateway.log.read_text()
    assert not [word for word in ("canary", *(token.split(".")[2] for token in tokens.values())) if word in log]


def test_nobody_is_called_for_without_a_verified_token(gateway: Gateway, servers: Any, endpoint: Endpoint) -> None:
    servers["modern"].forget()
    answer = Client(gateway, "dev").call("modern__echo", text="x")
    assert "on behalf of users" in json.dumps(answer)
    forged = STAFF.tampered(sub="alice", team="platform")
    good = STAFF.token(sub="carol", team="platform")
    for key in (forged, f"{good},Bearer {forged}", f"{forged},Bearer {good}"):
        told = Client(gateway, "dev", MODERN, key)
        assert told.post(told.message("tools/list"), mcp_method="tools/list").status_code == 401
    endpoint.status = 400
    try:
        refused = Client(gateway, "dev", MODERN, good).call("modern__echo", text="x")
    finally:
        endpoint.status = 200
    assert "no token for you" in json.dumps(refused)
    header = {"x_extproc_mcp_behalf": f"Bearer {good}", "mcp_method": "tools/call", "mcp_name": "modern__echo"}
    client = Client(gateway, "dev", MODERN, KEY)
    client.post(client.message("tools/call", {"name": "modern__echo", "arguments": {}}), **header)
    assert servers["modern"].calls == []
    assert "canary" not in gateway.log.read_text()


def test_a_token_that_the_server_refuses_is_asked_for_again(gateway: Gateway, servers: Any, endpoint: Endpoint) -> None:
    server = servers["modern"]
    server.forget()
    token = STAFF.token(sub="dora", team="platform")
    server.tempers["tools/call"] = "status=401"
    refused = Client(gateway, "dev", MODERN, token).call("modern__echo", text="x")
    assert "refused your token" in json.dumps(refused)
    server.tempers.clear()
    assert "result" in Client(gateway, "dev", MODERN, token).call("modern__echo", text="x")
    assert authorized(server.calls) == {"Bearer canary-for-dora"}
    assert endpoint.subjects[-2:] == ["dora", "dora"]
