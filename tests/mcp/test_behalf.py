"""Tokens of users: never another user's, over callers, servers, times and processes."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from extproc.access.auth import JWTSettings
from extproc.tools.mcp.behalf import Caller, TakeToken, UserTokens, exchange_request
from extproc.tools.mcp.behalf_settings import MCPAuthSettings
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.profile_settings import MCPProfileSettings, MCPShareSettings
from extproc.tools.mcp.settings import MCPServerSettings
from extproc.upstream.credentials.oauth import OAuthToken, TokenError, TokenRequest
from extproc.words.contract import claims_key
from extproc.words.exchange import RequestHead, Verified
from tests.exchanges import new_exchange

ENDPOINT = {"endpoint": "https://idp.example/token", "client_id": "gateway", "client_secret": "env:CLIENT_SECRET"}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_SECRET", "s")


def exchange(server: str, **changes: Any) -> MCPAuthSettings:
    return MCPAuthSettings(token_exchange={**ENDPOINT, "audience": server, **changes})


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


steps = st.tuples(
    st.integers(0, 1),  # process
    st.sampled_from(["alice", "bob", "carol"]),
    st.integers(0, 1),  # which of the user's tokens
    st.sampled_from(["tickets", "mail"]),
    st.sampled_from([0.0, 0.0, 50.0, 400.0]),  # seconds that pass before
    st.sampled_from(["ok", "ok", "ok", "fails", "refused", "reloaded"]),
)


def jwt(claims: dict[str, Any]) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.c2ln"


ALICE, BOB = ({"iss": "https://idp.example", "sub": name, "exp": 2000, "aud": ["a"]} for name in ("alice", "bob"))


@pytest.mark.parametrize(
    ("value", "verified", "taken"),
    [
        (f"Bearer {jwt(ALICE)}", ALICE, True),
        (f"Bearer {jwt(ALICE)}", {**ALICE, "exp": 2000.0}, True),  # numbers of Envoy's metadata are doubles
        (f"Bearer {jwt(BOB)}", ALICE, False),
        (f"Bearer {jwt({**ALICE, 'exp': 3000})}", ALICE, False),
        (f"Bearer {jwt(ALICE)},Bearer {jwt(BOB)}", ALICE, False),
        (f"Basic Bearer {jwt(ALICE)}", ALICE, False),
        ("sk-gw-key", ALICE, False),
        (f"Bearer {jwt(ALICE)}", None, False),
    ],
)
def test_only_the_token_that_envoy_verified_is_taken(value: str, verified: Any, taken: bool) -> None:
    issuer = JWTSettings(issuer="https://idp.example", audiences=["a"], jwks="file:/keys.json")
    facts = Verified({} if verified is None else {claims_key(issuer.mark): verified})
    exchange = new_exchange("x", RequestHead("POST", "/mcp/dev", {"authorization": value, "accept": "*/*"}, facts))
    exchange.features[CALL] = call = Call("dev", MCPProfileSettings(servers={"s": MCPShareSettings()}))
    TakeToken([issuer])(exchange)
    assert ("authorization" not in exchange.request.head.headers) is taken
    assert call.caller == (Caller(jwt(ALICE), "https://idp.example", "alice", ["a"], 2000.0) if taken else None)
    assert jwt(ALICE) not in repr(call)


@given(st.lists(st.lists(steps, min_size=1, max_size=4), max_size=12), st.integers(1, 4))
def test_another_users_token_is_never_used(rounds: list[list[Any]], most: int) -> None:
    clock, failing = Clock(), False

    async def request(wanted: TokenRequest, now: float) -> OAuthToken:
        assert wanted.form is not None
        form, failed = dict(wanted.form), failing
        await asyncio.sleep(0)
        if failed:
            raise TokenError("refused", "status 400")
        return OAuthToken(f"{form['subject_token']}@{form['audience']}@{now + 300}", now + 300)

    async def ask(process: UserTokens, server: str, caller: Caller) -> None:
        try:
            token, _, expires = (await process.get(server, settings[server], caller)).rpartition("@")
        except TokenError:
            return
        assert token == f"{caller.token}@{server}"
        assert clock.now < float(expires)

    settings = {server: exchange(server, max_tokens=most) for server in ("tickets", "mail")}

    async def run() -> None:
        nonlocal failing
        processes = [UserTokens(request, clock), UserTokens(request, clock)]
        for steps in rounds:
            work = []
            for process, user, number, server, passed, event in steps:
                clock.now += passed if len(steps) == 1 else 0
                failing = event == "fails"
                caller = Caller(f"{user}-{number}", "https://idp.example", user)
                if event == "refused":
                    processes[process].forget(server, caller)
                if event == "reloaded":
                    settings[server] = exchange(server, max_tokens=most)
                work.append(ask(processes[process], server, caller))
            await asyncio.gather(*work)
            assert all(len(process._entries) <= most for process in processes)

    asyncio.run(run())


def test_a_token_is_asked_for_once_and_renewed_early() -> None:
    clock, asked = Clock(), list[float]()

    async def request(_wanted: TokenRequest, now: float) -> OAuthToken:
        asked.append(now)
        await asyncio.sleep(0)
        if now > 1300:
            raise TokenError("failed", "status 503")
        return OAuthToken("t", now + 400)

    async def run() -> None:
        tokens, settings, caller = UserTokens(request, clock), exchange("tickets"), Caller("c", "i", "alice")
        assert await asyncio.gather(*[tokens.get("tickets", settings, caller) for _ in range(20)]) == ["t"] * 20
        clock.now = 1299.0
        await tokens.get("tickets", settings, caller)
        assert asked == [1000.0], "three quarters of its time it is good without a question"
        clock.now = 1390.0
        assert await tokens.get("tickets", settings, caller) == "t", "the endpoint is away and the token still good"
        clock.now = 1401.0
        with pytest.raises(TokenError):
            await tokens.get("tickets", settings, caller)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"auth": {"token_exchange": ENDPOINT}}, "audience or resource"),
        ({"auth": {"token_exchange": {**ENDPOINT, "audience": "a", "endpoint": "http://idp.example"}}}, "https"),
        ({"auth": {"token_exchange": {**ENDPOINT, "audience": "a"}}, "header": "x-api-key"}, "authorization"),
        ({"auth": {"token_exchange": {**ENDPOINT, "audience": "a"}}, "lists": "session"}, "lists: shared"),
        ({"auth": {}}, "give one of"),
        ({"auth": {"own_token": {"audience": "a"}, "without_user": "consumer"}}, "needs sign_in"),
        ({"auth": {"sign_in": {"client_secret": "env:X"}}}, "needs client_id"),
        ({"auth": {"sign_in": {"issuer": "http://idp.example"}}}, "https"),
        ({"command": ["mcp-proxy"]}, "loopback"),
        ({"auth": {"own_token": {"audience": "a"}, "jwt_bearer": {**ENDPOINT, "scope": "s"}}}, "give one of"),
        ({"auth": {"own_token": {"audience": "a"}, "without_user": "token"}}, "own `?token"),
        ({"auth": {"jwt_bearer": {**ENDPOINT, "scope": "s", "parameters": {"assertion": "x"}}}}, "sets assertion"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MCPServerSettings(url="https://mcp.example", **changes)


def test_the_form_of_entras_flow() -> None:
    more = {"client_auth": "post", "scope": "api://a/.default", "parameters": {"requested_token_use": "on_behalf_of"}}
    settings = MCPAuthSettings(jwt_bearer={**ENDPOINT, **more}).at_endpoint
    assert settings is not None
    asked = exchange_request(settings, "caller")
    assert asked.headers == {}
    assert asked.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": "caller",
        "client_id": "gateway",
        "client_secret": "s",
        "requested_token_use": "on_behalf_of",
        "scope": "api://a/.default",
    }


async def test_a_token_ends_with_the_callers() -> None:
    clock, asked = Clock(), list[str]()

    async def request(wanted: TokenRequest, now: float) -> OAuthToken:
        assert wanted.form is not None
        asked.append(wanted.form["subject_token"])
        return OAuthToken(f"{len(asked)}", now + 3600)

    tokens, settings = UserTokens(request, clock), exchange("tickets")
    caller = Caller("one", "i", "alice", [], 1100.0)
    assert await tokens.get("tickets", settings, caller) == "1"
    clock.now = 1101.0
    assert await tokens.get("tickets", settings, caller) == "2"


async def test_the_callers_own_token_is_for_its_audience_alone() -> None:
    auth = MCPAuthSettings(own_token={"audience": "tickets"})
    assert await UserTokens().get("s", auth, Caller("own", "i", "alice", ["gateway", "tickets"])) == "own"
    with pytest.raises(TokenError, match="not for this server"):
        await UserTokens().get("s", auth, Caller("own", "i", "alice", ["gateway", "tickets-2"]))


async def test_a_slow_endpoint_is_given_up_before_envoy_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extproc.tools.mcp.behalf._PATIENCE", 0.01)
    slow = asyncio.Event()

    async def request(_wanted: TokenRequest, now: float) -> OAuthToken:
        await slow.wait()
        return OAuthToken("t", now + 400)

    tokens, settings, caller = UserTokens(request), exchange("tickets"), Caller("c", "i", "alice")
    with pytest.raises(TokenError, match="timeout"):
        await tokens.get("tickets", settings, caller)
    slow.set()
    assert await tokens.get("tickets", settings, caller) == "t"
