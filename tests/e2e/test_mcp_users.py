"""Every way to call MCP servers on behalf of users, in both eras, through a real Envoy: servers take no token but those
that the endpoint gave for them.
"""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote

import jwt
import pytest

from tests.doubles.mcp import McpServer, McpServers
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.idp import AUDIENCE, Issuer
from tests.e2e.mcp_agent import Agent

ISSUER = Issuer("https://staff.example")
OWN = "canary-own-token"
SECRET = "canary:secret/ü"
GRANT, TYPE = "urn:ietf:params:oauth:grant-type:", "urn:ietf:params:oauth:token-type:"
YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
mcp:
  key: env:SESSION_KEY
  servers:
    dual: {url: "SERVERS/dual", token: env:OWN_TOKEN, auth: {token_exchange: {endpoint: "TOKENS/exchange",
           client_id: gateway, client_secret: env:SECRET, audience: https://dual.example}}}
    stateful: {url: "SERVERS/stateful", token: env:OWN_TOKEN, auth: {jwt_bearer: {endpoint: "TOKENS/obo",
               client_id: gateway, client_secret: env:SECRET, client_auth: post, scope: api/.default,
               parameters: {requested_token_use: on_behalf_of}}}}
    same: {url: "SERVERS/same", token: env:OWN_TOKEN, auth: {own_token: {audience: https://same.example}}}
    open: {url: "SERVERS/open", token: env:OWN_TOKEN, auth: {without_user: token, token_exchange: {
           endpoint: "TOKENS/exchange", client_id: gateway, client_secret: env:SECRET,
           audience: https://open.example}}}
  profiles: {dev: {servers: {dual: {}, stateful: {}, same: {}, open: {}}}}
auth: {jwt: [{issuer: ISSUER, audiences: [AUDIENCE], jwks: "file:KEYS", team: team}]}
teams: {staff: {models: ["*"], tools: ["*"]}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["*"]}]
stores: {counters: "memory:"}
"""


class TokenEndpoint:
    """Gives `SERVER:USER` for a token of that user, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.servers: dict[str, McpServer] = {}

    def answer(self, path: str, headers: dict[str, str], body: str) -> tuple[int, str]:
        form = {name: value for name, [value] in parse_qs(body, strict_parsing=True).items()}
        self.asked.append(form)
        if path == "/exchange":
            scheme, _, pair = headers.get("authorization", "").partition(" ")
            client, _, secret = base64.b64decode(pair).decode().partition(":")
            right = scheme == "Basic" and (unquote(client), unquote(secret)) == ("gateway", SECRET)
            token, server = form.get("subject_token", ""), form.get("audience", "")
            right &= form.get("grant_type") == GRANT + "token-exchange"
            right &= form.get("subject_token_type") == TYPE + "access_token"
        else:
            right = (form.get("client_id"), form.get("client_secret")) == ("gateway", SECRET)
            token, server = form.get("assertion", ""), "stateful"
            right &= form.get("grant_type") == GRANT + "jwt-bearer"
            right &= form.get("requested_token_use") == "on_behalf_of"
        if not right:
            return 400, '{"error": "invalid_request"}'
        user = jwt.decode(token, options={"verify_signature": False})["sub"]
        name = server.removeprefix("https://").removesuffix(".example")
        given = f"{name}:{user}:{len(self.asked)}"
        self.servers[name].users.add(given)
        return 200, f'{{"access_token": "{given}", "token_type": "Bearer", "expires_in": 600}}'

    @contextmanager
    def running(self) -> Iterator[str]:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, text = owner.answer(self.path, headers, body)
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Quiet."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()


@pytest.fixture(scope="module")
def tokens() -> TokenEndpoint:
    return TokenEndpoint()


@pytest.fixture(scope="module")
def servers(tokens: TokenEndpoint) -> Iterator[McpServers]:
    found = [McpServer(name, key=OWN) for name in ("dual", "same", "open")]
    found.append(McpServer("stateful", eras=("legacy",), key=OWN))
    tokens.servers = {each.name: each for each in found}
    with McpServers(*found).running() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, servers: McpServers, tokens: TokenEndpoint) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("users")
    (folder / "keys.json").write_bytes(ISSUER.jwks())
    with tokens.running() as url:
        text = YAML.replace("SERVERS", servers.url).replace("TOKENS", url).replace("ISSUER", f'"{ISSUER.url}"')
        text = text.replace("AUDIENCE", AUDIENCE).replace("KEYS", str(folder / "keys.json"))
        env = {"OWN_TOKEN": OWN, "SECRET": SECRET, "SESSION_KEY": "0123456789abcdef" * 2}
        one = run_gateway(folder, text, ("sandbox",), env)
        found = next(one)
        yield found
        next(one, None)


def agent(gateway: Gateway, user: str, era: str = "modern", **claims: object) -> Agent:
    return Agent(f"{gateway.url}/mcp/dev", ISSUER.token(sub=user, team="staff", **claims), era=era)


def credentials(server: McpServer) -> list[str]:
    return [(each.header("authorization") or "").removeprefix("Bearer ") for each in server.calls]


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("name", ["dual", "stateful"])
def test_each_user_calls_with_a_token_of_their_own(
    gateway: Gateway, tokens: TokenEndpoint, name: str, era: str
) -> None:
    server = tokens.servers[name]
    users = {user: agent(gateway, user, era) for user in ("alice", "bob")}
    eventually(lambda: bool(users["alice"].tools(gateway.http)))
    server.forget()
    for user in ("alice", "bob", "alice", "bob"):
        assert users[user].call(gateway.http, f"{name}__echo", {"text": user}).said == f"{name}: {user}"
    seen = credentials(server)
    assert [each.split(":")[:2] for each in seen] == [[name, user] for user in ("alice", "bob", "alice", "bob")]
    assert (seen[0], seen[1]) == (seen[2], seen[3]), "a token is asked for once"
    begun = [each.header("authorization") or "" for each in server.seen if each.method == "initialize"]
    assert OWN not in "".join(begun), "a session at the server is begun by its user"
    assert server.violations == []


def test_the_callers_own_token_goes_to_no_server_but_one_that_it_is_for(
    gateway: Gateway, tokens: TokenEndpoint
) -> None:
    server = tokens.servers["same"]
    other = agent(gateway, "alice")
    eventually(lambda: bool(other.tools(gateway.http)))
    server.forget()
    assert other.call(gateway.http, "same__echo", {"text": "x"}).code < 0
    assert server.calls == []
    both = ISSUER.token(sub="alice", team="staff", aud=[AUDIENCE, "https://same.example"])
    server.users.add(both)
    assert Agent(other.url, both).call(gateway.http, "same__echo", {"text": "x"}).said == "same: x"
    assert credentials(server) == [both]
    for each in tokens.servers.values():
        assert each is server or not any(token.startswith("ey") for token in credentials(each))


def test_a_key_is_no_user(gateway: Gateway, tokens: TokenEndpoint) -> None:
    robot = Agent(f"{gateway.url}/mcp/dev", KEY)
    eventually(lambda: bool(robot.tools(gateway.http)))
    for server in tokens.servers.values():
        server.forget()
    refused = robot.call(gateway.http, "dual__echo", {"text": "x"})
    assert "on behalf of users" in refused.last["error"]["message"]
    assert tokens.servers["dual"].calls == []
    assert robot.call(gateway.http, "open__echo", {"text": "x"}).said == "open: x"
    assert credentials(tokens.servers["open"]) == [OWN]


def test_a_model_gets_no_token_of_a_user(gateway: Gateway) -> None:
    gateway.begin()
    found = gateway.http.post(
        gateway.url + "/v1/chat/completions",
        json={"model": "stub", "messages": [{"role": "user", "content": "Hello"}]},
        headers={"authorization": f"Bearer {ISSUER.token(sub='alice', team='staff')}"},
    )
    assert found.status_code == 200
    [seen] = gateway.seen("sandbox")
    assert not any("ey" in value for name, value in seen["headers"] if name.lower() == "authorization")
