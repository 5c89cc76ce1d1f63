"""Users sign in at an MCP server by a link of the gateway, through a real Envoy and with browsers of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.doubles.authorization import AuthorizationServer
from tests.doubles.mcp import McpServer, McpServers
from tests.e2e.conftest import HERE, KEY, Gateway, eventually, free_ports, run_gateway
from tests.e2e.idp import AUDIENCE, Issuer
from tests.e2e.mcp_agent import Agent, Answer
from tests.e2e.test_mcp_clients import INSTALLED, MODULES, NODE

STAFF = Issuer("https://staff.example")
OWN = "canary-own-token"
YAML = """
providers: {sandbox: {kind: mock}}
models: {stub: {provider: sandbox}}
mcp:
  key: env:SESSION_KEY
  resource: "{gateway}"
  sign_ins: {keys: [env:NEW_KEY, env:OLD_KEY]}
  servers:
    mail: {url: "SERVERS/mail", token: env:OWN_TOKEN, auth: {sign_in: {}, without_user: consumer}}
    plain: {url: "SERVERS/plain"}
  profiles: {dev: {servers: {mail: {}, plain: {}}}}
auth: {jwt: [{issuer: "ISSUER", audiences: [AUDIENCE], jwks: "file:KEYS", team: team}]}
teams: {staff: {tools: ["*"]}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}], tools: ["*"]}]
stores: {counters: "memory:"}
"""
URL_MODE = {"elicitation": {"url": {}}}


@pytest.fixture(scope="module")
def issuer() -> Iterator[AuthorizationServer]:
    found = AuthorizationServer(scopes=("read",))
    with found.running():
        yield found


@pytest.fixture(scope="module")
def mail(issuer: AuthorizationServer) -> McpServer:
    guarded = issuer.admits(lambda message: "admin" if message.get("params", {}).get("name") == "told" else "")
    return McpServer("mail", admits=lambda token, message: None if token == OWN else guarded(token, message))


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, issuer: AuthorizationServer, mail: McpServer
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("sign-in")
    (folder / "keys.json").write_bytes(STAFF.jwks())
    with McpServers(mail, McpServer("plain")).running() as servers:
        issuer.resource = f"{servers.url}/mail"
        text = YAML.replace("SERVERS", servers.url).replace("ISSUER", STAFF.url).replace("AUDIENCE", AUDIENCE)
        env = {"OWN_TOKEN": OWN, "SESSION_KEY": "0123456789abcdef" * 2, "NEW_KEY": "n" * 32, "OLD_KEY": "o" * 32}
        yield from run_gateway(folder, text.replace("KEYS", str(folder / "keys.json")), (), env)


def agent(gateway: Gateway, user: str, era: str = "modern", able: Any = None) -> Agent:
    found = Agent(f"{gateway.url}/mcp/dev", STAFF.token(sub=user, team="staff"), era=era, able=able)
    eventually(lambda: "mail__echo" in [each["name"] for each in found.tools(gateway.http)])
    return found


def link_of(answer: Answer) -> str:
    """The link of an answer in any of its three forms."""
    if "error" in answer.last:
        assert answer.code == -32042
        [asked] = answer.last["error"]["data"]["elicitations"]
    elif answer.result.get("resultType") == "input_required":
        asked = answer.result["inputRequests"]["sign_in"]["params"]
    else:
        assert answer.result["isError"] is True
        [link] = re.findall(r"http\S+", answer.said)
        return link
    assert asked["mode"] == "url"
    return str(asked["url"])


def browse(link: str) -> httpx.Response:
    """Open a link in a new browser, and go on."""
    with httpx.Client(follow_redirects=True, trust_env=False) as browser:
        page = browser.get(link)
        assert page.status_code == 200, page.text
        return browser.get(f"{link}?go")


def sign_in(issuer: AuthorizationServer, answer: Answer, user: str) -> None:
    issuer.user = user
    done = browse(link_of(answer))
    assert "Signed in" in done.text, done.text


def users_seen(issuer: AuthorizationServer, mail: McpServer) -> list[str]:
    tokens = [(each.header("authorization") or "").removeprefix("Bearer ") for each in mail.calls]
    return [issuer.tokens[token][0].user if token in issuer.tokens else token for token in tokens]


@pytest.mark.parametrize(
    ("era", "able"), [("modern", URL_MODE), ("legacy", URL_MODE), ("modern", {}), ("legacy", {"elicitation": {}})]
)
def test_each_user_signs_in_once_and_is_called_for_as_itself(
    gateway: Gateway, issuer: AuthorizationServer, mail: McpServer, era: str, able: Any
) -> None:
    names = [f"{user}-{era}-{len(str(able))}" for user in ("alice", "bob")]
    clients = {name: agent(gateway, name, era, able) for name in names}
    mail.forget()
    for name, client in clients.items():
        asked = client.call(gateway.http, "mail__echo", {"text": "x"})
        page = httpx.get(link_of(asked), trust_env=False)
        assert name in page.text
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        sign_in(issuer, asked, name)
    for name in (*names, *names):
        assert clients[name].call(gateway.http, "mail__echo", {"text": "x"}).said == "mail: x"
        assert clients[name].call(gateway.http, "plain__echo", {"text": "x"}).said == "plain: x"
    assert users_seen(issuer, mail) == [*names, *names]
    eventually(lambda: f'"subject":"{names[1]}"' in gateway.log.read_text())
    given = [value for form in issuer.asked for name, value in form.items() if name in ("refresh_token", "code")]
    log = gateway.log.read_text()
    assert not [secret for secret in (*issuer.tokens, *given) if secret in log]


def test_a_call_goes_on_once_its_user_has_said_yes(
    gateway: Gateway, issuer: AuthorizationServer, mail: McpServer
) -> None:
    carol = agent(gateway, "carol", able=URL_MODE)
    mail.forget()
    asked = carol.call(gateway.http, "mail__echo", {"text": "x"})
    sign_in(issuer, asked, "carol")
    again = {"inputResponses": {"sign_in": {"action": "accept"}}, "requestState": asked.result["requestState"]}
    params = {"name": "mail__echo", "arguments": {"text": "x"}, **again}
    assert carol.send(gateway.http, "tools/call", params).said == "mail: x"
    assert "requestState" not in json.dumps([each.body for each in mail.calls])
    no = {**params, "inputResponses": {"sign_in": {"action": "decline"}}}
    other = agent(gateway, "other", able=URL_MODE)
    assert "has not signed in" in other.send(gateway.http, "tools/call", no).said


def test_a_consumer_is_a_user_where_the_settings_say_so(
    gateway: Gateway, issuer: AuthorizationServer, mail: McpServer
) -> None:
    robot = Agent(f"{gateway.url}/mcp/dev", KEY)
    sign_in(issuer, robot.call(gateway.http, "mail__echo", {"text": "x"}), "demo")
    mail.forget()
    assert robot.call(gateway.http, "mail__echo", {"text": "x"}).said == "mail: x"
    assert users_seen(issuer, mail) == ["demo"]


def test_a_tool_that_needs_more_scopes_asks_once_more_and_not_for_ever(
    gateway: Gateway, issuer: AuthorizationServer, mail: McpServer
) -> None:
    dave = agent(gateway, "dave")
    sign_in(issuer, dave.call(gateway.http, "mail__echo", {"text": "x"}), "dave")
    more = dave.call(gateway.http, "mail__told", {})
    sign_in(issuer, more, "dave")
    assert [each["scope"] for each in issuer.asked if "scope" in each][-2:] == ["read", "read admin"]
    assert "isError" not in dave.call(gateway.http, "mail__told", {}).result
    for grant, _ in issuer.tokens.values():
        if grant.user == "dave":
            grant.query["scope"] = "read"
    assert "refused your token" in dave.call(gateway.http, "mail__told", {}).last["error"]["message"]
    assert dave.call(gateway.http, "mail__echo", {"text": "x"}).said == "mail: x"


def test_tokens_are_renewed_and_end_when_the_server_or_an_operator_says_so(
    gateway: Gateway, issuer: AuthorizationServer, mail: McpServer, extproc: Any
) -> None:
    erin = agent(gateway, "erin")
    issuer.lives = 1.0
    sign_in(issuer, erin.call(gateway.http, "mail__echo", {"text": "x"}), "erin")
    issuer.lives = 600.0

    def renewed() -> bool:
        assert erin.call(gateway.http, "mail__echo", {"text": "x"}).said == "mail: x"
        return sum(grant.user == "erin" for grant, _ in issuer.tokens.values()) == 2

    eventually(renewed)
    assert issuer.reused == 0
    known = [*issuer.tokens.values()]
    for grant, _ in known:
        grant.ended = grant.user == "erin"
    assert "refused your token" in erin.call(gateway.http, "mail__echo", {"text": "x"}).last["error"]["message"]
    sign_in(issuer, erin.call(gateway.http, "mail__echo", {"text": "x"}), "erin")
    assert erin.call(gateway.http, "mail__echo", {"text": "x"}).said == "mail: x"
    named = ["--consumer", "erin", "--issuer", STAFF.url, "--subject", "erin", "--url", gateway.admin]
    assert "signed out" in extproc("mcp", "sign-out", "--server", "mail", *named)[1]
    assert link_of(erin.call(gateway.http, "mail__echo", {"text": "x"}))


def test_a_sign_in_is_of_one_browser_one_link_and_one_server(gateway: Gateway, issuer: AuthorizationServer) -> None:
    frank = agent(gateway, "frank")
    link = link_of(frank.call(gateway.http, "mail__echo", {"text": "x"}))
    with httpx.Client(trust_env=False) as browser:
        away = browser.get(f"{link}?go")
        back = httpx.get(away.headers["location"], trust_env=False).headers["location"]
        other = httpx.get(back, trust_env=False)
        assert (other.status_code, "this browser" in other.text) == (400, True)
        altered = re.sub("state=....", "state=AAAA", back)
        assert browser.get(altered).status_code == 400
        assert "another authorization server" in browser.get(back.replace("iss=http", "iss=https")).text
        assert "another authorization server" in browser.get(back.partition("&iss")[0]).text
        assert browser.get(back).status_code == 200
        assert "used already" in browser.get(back).text
    assert httpx.get(link[:-4] + "AAAA", trust_env=False).status_code == 400
    assert gateway.http.post(link).status_code == 405
    document = httpx.get(f"{gateway.url}/mcp-sign-in/client.json", trust_env=False).json()
    assert document["redirect_uris"] == [f"{gateway.url}/mcp-sign-in/callback"]


@pytest.mark.mcp_clients
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_official_client_opens_the_link(gateway: Gateway, issuer: AuthorizationServer, mode: str) -> None:
    python = INSTALLED / "bin" / "python"
    if not python.exists():
        pytest.skip("the clients are not installed: `make mcp` does it")
    issuer.user = name = f"sdk-{mode}"
    done = subprocess.run(
        [python, "-W", "ignore", HERE / "clients" / "mcp_sign_in.py", mode, f"{gateway.url}/mcp/dev"],
        env={**os.environ, "PYTHONPATH": "", "KEY": STAFF.token(sub=name, team="staff")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == "mail: signed in"


@pytest.mark.mcp_clients
def test_users_sign_in_at_a_real_provider_of_openid_connect(start: Callable[..., Gateway], tmp_path: Path) -> None:
    """Discovery, registration, PKCE, resource, and refresh tokens that rotate, with oidc-provider from npm."""
    if not NODE.exists():
        pytest.skip("the clients are not installed: `make mcp` does it")
    [port] = free_ports(1)
    url, tokens, faults = f"http://127.0.0.1:{port}", set[str](), set[str]()

    def admits(token: str, _message: Any) -> tuple[int, str] | None:
        if token == OWN:
            return None
        try:
            key = jwt.PyJWKClient(f"{url}/jwks").get_signing_key_from_jwt(token)
            claims = jwt.decode(token, key, ["RS256"], audience=f"{servers.url}/mail", issuer=url, leeway=1)
        except jwt.PyJWTError as error:
            faults.add(repr(error))
            return 401, 'Bearer scope="read"'
        tokens.add(claims["jti"])
        return None if claims["sub"] == "alice" else (401, "Bearer")

    with McpServers(McpServer("mail", admits=admits), McpServer("plain")).running() as servers:
        text = YAML.replace("sign_in: {}", f'sign_in: {{issuer: "{url}"}}').replace("SERVERS", servers.url)
        text = text.replace("ISSUER", STAFF.url).replace("AUDIENCE", AUDIENCE).replace("KEYS", str(tmp_path / "keys"))
        (tmp_path / "keys").write_bytes(STAFF.jwks())
        for name, value in {
            "OWN_TOKEN": OWN,
            "SESSION_KEY": "s" * 32,
            "NEW_KEY": "n" * 32,
            "OLD_KEY": "o" * 32,
        }.items():
            text = text.replace(f"env:{name}", f"file:{tmp_path / name}")
            (tmp_path / name).write_text(value)
        command = [NODE, HERE / "clients" / "oidc_provider.mjs", str(port), f"{servers.url}/mail"]
        with subprocess.Popen(command, env={**os.environ, "MODULES": str(MODULES)}, stdout=subprocess.PIPE) as provider:
            assert provider.stdout is not None
            try:
                assert provider.stdout.readline() == b"ready\n"
                gateway = start(text)
                robot = Agent(f"{gateway.url}/mcp/dev", KEY)
                eventually(lambda: robot.tools(gateway.http))
                fill_in(link_of(robot.call(gateway.http, "mail__echo", {"text": "x"})))

                def renewed() -> bool:
                    answer = robot.call(gateway.http, "mail__echo", {"text": "x"})
                    assert "result" in answer.last, faults
                    return len(tokens) > 2

                eventually(renewed)
            finally:
                provider.kill()


def fill_in(link: str) -> None:
    """Sign alice in with the forms of oidc-provider."""
    with httpx.Client(follow_redirects=True, trust_env=False) as browser:
        page = browser.get(f"{link}?go")
        for prompt in ("login", "consent"):
            [action] = re.findall(r'<form[^>]*action="([^"]+)"', page.text)[:1]
            page = browser.post(action, data={"prompt": prompt, "login": "alice", "password": "x"})
        assert "Signed in" in page.text, page.text
