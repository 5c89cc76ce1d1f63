"""Sign-ins of users at servers: tokens are those of their user, and each refresh token is used once, over a fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from extproc.access.auth import ANONYMOUS
from extproc.stores import StoreError
from extproc.stores.memory import MemoryCounters
from extproc.tools.mcp.behalf import Caller, UserTokens
from extproc.tools.mcp.behalf_settings import MCPAuthSettings
from extproc.tools.mcp.call import CALL, Call
from extproc.tools.mcp.on_behalf import OnBehalf
from extproc.tools.mcp.refusals import JSONRPC
from extproc.tools.mcp.settings import MCPSettings
from extproc.tools.sign_in import sign_ins
from extproc.tools.sign_in.pages import SignInPages
from extproc.tools.sign_in.settings import SignInSettings, SignInsSettings
from extproc.tools.sign_in.sign_ins import KeptTokens, Place, SignInError, SignIns, User, sign_out
from extproc.upstream.credentials import authorization
from extproc.upstream.credentials.authorization import AuthorizationServer, Grant, OAuthClient, Protection, challenge
from extproc.upstream.credentials.oauth import TokenError
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead
from tests.doubles.authorization import AuthorizationServer as Double
from tests.exchanges import new_exchange

RESOURCE = "https://ai.example"
AT = AuthorizationServer("https://idp.example", "https://idp.example/authorize", "https://idp.example/token")


WAY = {"sign_in": {"client_id": "gateway"}}
SETTINGS = {
    "resource": RESOURCE,
    "sign_ins": {"keys": ["env:NEW", "env:OLD"]},
    "servers": {name: {"url": f"https://{name}.example/mcp", "auth": WAY} for name in ("mail", "files")},
    "profiles": {"dev": {"servers": {"mail": {}}}},
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEW", "n" * 32)
    monkeypatch.setenv("OLD", "o" * 32)
    monkeypatch.setattr(sign_ins, "_LOOK", 0.0)


class Issuer:
    """Gives tokens that name their user and server; a refresh token that comes twice is a fault."""

    def __init__(self) -> None:
        self.given, self.used, self.failing = 0, set[str](), False

    async def ask(self, _endpoint: str, _client: OAuthClient, form: Mapping[str, str]) -> Grant:
        await asyncio.sleep(0)
        if self.failing:
            raise TokenError("failed", "status 503")
        token = form.get("refresh_token") or form["code"]
        assert token not in self.used, "a refresh token, or a code, is used once"
        self.used.add(token)
        self.given += 1
        about = token.partition("#")[0]
        return Grant(f"{about}#a{self.given}", 300, f"{about}#r{self.given}")


class Fleet:
    def __init__(self) -> None:
        self.now, self.issuer = 1000.0, Issuer()
        self.counters = MemoryCounters(lambda: self.now)
        self.processes = [self.process() for _ in range(2)]

    def process(self) -> SignIns:
        async def told(_server: str) -> str:
            return ""

        way, now = SignInSettings(client_id="gateway"), lambda: self.now
        places = {name: Place(f"https://{name}.example/mcp", way) for name in ("mail", "files")}
        kept = SignInsSettings(keys=["env:NEW", "env:OLD"])
        made = SignIns(places, kept, self.counters, told, resource=RESOURCE, now=now, ask=self.issuer.ask)
        for server in ("mail", "files"):
            made._found[server] = 1e12, Protection(AT, f"https://{server}.example/mcp", ["read"])
        return made

    async def sign_in(self, process: SignIns, server: str, user: User, code: str = "") -> None:
        self.issuer.given += 1
        link = process.link(server, user).rpartition("/")[2]
        state = (await process.begin(link, "browser")).partition("state=")[2].partition("&")[0]
        name = f"{user.consumer}/{user.subject}@{server}"
        await process.finish({"state": state, "code": code or f"{name}#c{self.issuer.given}"}, "browser")


USERS = [User("ada"), User("ada", "https://idp.example", "x"), User("bob"), User("ad", "a", "")]
steps = st.tuples(
    st.integers(0, 1),  # process
    st.sampled_from(USERS),
    st.sampled_from(["mail", "files"]),
    st.sampled_from([0.0, 0.0, 100.0, 290.0, 400.0]),  # seconds that pass before
    st.sampled_from(["call"] * 6 + ["left", "sign in", "sign in", "sign out", "refused", "fails"]),
)


@given(st.lists(st.lists(steps, min_size=1, max_size=5), max_size=14))
def test_a_user_has_its_own_tokens_alone_and_each_refresh_token_is_used_once(rounds: list[list[Any]]) -> None:
    async def step(fleet: Fleet, process: SignIns, user: User, server: str, event: str) -> None:
        if event == "sign in":
            await fleet.sign_in(process, server, user)
        elif event == "sign out":
            await sign_out(fleet.counters, server, user)
        elif event == "refused":
            if (found := await process.get(server, user)) is not None:
                await process.refused(server, user, found.given)
        else:
            found = await process.get(server, user)
            if found is not None:
                assert found.access.partition("#")[0] == f"{user.consumer}/{user.subject}@{server}"
                assert fleet.now < found.expires

    async def run() -> None:
        fleet = Fleet()
        for steps in rounds:
            fleet.now += max(passed for _, _, _, passed, _ in steps)
            fleet.issuer.failing = any(event == "fails" for *_, event in steps)
            work = []
            for number, user, server, _, event in steps:
                work.append(asyncio.create_task(step(fleet, fleet.processes[number], user, server, event)))
                if event == "left":  # the client goes, and a renewal that it began goes on
                    await asyncio.sleep(0)
                    work[-1].cancel()
            for done in await asyncio.gather(*work, return_exceptions=True):
                assert done is None or isinstance(done, asyncio.CancelledError | TokenError | SignInError), done
        fleet.issuer.failing = False
        for server in ("mail", "files"):
            for user in USERS:
                await sign_out(fleet.counters, server, user)
                assert await fleet.processes[0].get(server, user) is None

    asyncio.run(run())


async def test_many_calls_at_many_processes_renew_once_and_a_sign_out_ends_all() -> None:
    fleet, user = Fleet(), USERS[1]
    await fleet.sign_in(fleet.processes[0], "mail", user)
    fleet.now += 310
    before = fleet.issuer.given
    many = [fleet.process() for _ in range(20)]
    found = await asyncio.gather(*[each.get("mail", user) for each in many for _ in range(5)])
    assert len({each.access for each in found if each is not None}) == 1
    assert None not in found
    assert fleet.issuer.given == before + 1
    await sign_out(fleet.counters, "mail", user)
    assert [await each.get("mail", user) for each in many] == [None] * 20


async def test_notes_of_the_store_open_for_their_user_with_every_key_and_hold_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet, (ada, bob) = Fleet(), (USERS[0], USERS[2])
    await fleet.sign_in(fleet.processes[0], "mail", ada)
    [note] = await fleet.counters.share(f"mcp-user:{ada.at('mail')}", "", b"", 1)
    assert b"ada" not in note
    await fleet.counters.share(f"mcp-user:{bob.at('mail')}", "tokens", note, 1000)
    assert await fleet.processes[1].get("mail", bob) is None, "the note of another user"
    monkeypatch.setenv("OLD", "n" * 32)
    monkeypatch.setenv("NEW", "m" * 32)
    rotated = fleet.process()
    found = await rotated.get("mail", ada)
    assert isinstance(found, KeptTokens)
    assert "ada" not in repr(found)
    fleet.now += 310
    assert await rotated.get("mail", ada) is not None, "it is renewed, and sealed with the new key"
    assert await fleet.processes[1].get("mail", ada) is None
    moved = fleet.process()
    moved._places = {**moved._places, "mail": moved._places["files"]}
    monkeypatch.setenv("OLD", "m" * 32)
    assert await moved.get("mail", ada) is None, "tokens do not follow a server to another address"


async def test_tokens_are_kept_though_the_store_is_away_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, user = Fleet(), USERS[0]
    await fleet.sign_in(fleet.processes[0], "mail", user)
    fleet.now += 310
    share, failures = fleet.counters.share, [0]

    async def fails(board: str, author: str, note: bytes, ttl: float) -> Any:
        if note and failures[0] < 2:
            failures[0] += 1
            raise StoreError("away")
        return await share(board, author, note, ttl)

    async def at_once(_seconds: float) -> None:
        """No wait."""

    monkeypatch.setattr(fleet.counters, "share", fails)
    monkeypatch.setattr(sign_ins.asyncio, "sleep", at_once)
    assert await fleet.processes[0].get("mail", user) is not None
    assert failures == [2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"changes": {"issuer": "https://other.example"}}, "is another's"),
        ({"changes": {"code_challenge_methods_supported": None}}, "PKCE"),
        ({"changes": {"token_endpoint": "http://idp.example/token"}}, "https"),
        ({"changes": {"token_endpoint": 7}}, "JSON"),
        ({"named": "http://169.254.169.254"}, "https"),
        ({"resource": "http://127.0.0.1:1/other"}, "another resource"),
        ({}, ""),
    ],
)
async def test_a_document_that_cannot_be_trusted_is_refused(changes: dict[str, Any], words: str) -> None:
    double = Double(**changes)
    with double.running() as url:
        double.resource = double.resource or f"{url}/mcp"
        document = f"{url}/.well-known/oauth-protected-resource/mcp"
        work = asyncio.to_thread(asyncio.run, authorization.discover(f"{url}/mcp", document))
        if words:
            with pytest.raises(TokenError, match=words):
                await work
        else:
            assert (await work).server.issuer == url


@pytest.mark.parametrize("url", ["http://idp.example", "https://10.0.0.1", "https://localhost", "http://127.0.0.1:9"])
async def test_a_public_server_names_no_private_address(url: str) -> None:
    with pytest.raises(TokenError, match="unusable"):
        await authorization.discover("https://mcp.example.com", url)


def test_parameters_of_a_challenge() -> None:
    header = 'Bearer realm="a, b", error="insufficient_scope", scope="x:read  y", resource_metadata=https://a, x="\\""'
    assert challenge(header) == {
        "realm": "a, b",
        "error": "insufficient_scope",
        "scope": "x:read  y",
        "resource_metadata": "https://a",
        "x": '"',
    }
    assert authorization.scopes_of(f"a b a \x7f {'c' * 300}") == ["a", "b"]
    assert len(authorization.scopes_of(" ".join(map(str, range(1000))))) == authorization.MOST_SCOPES


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sign_ins": None}, "needs sign_ins"),
        ({"resource": None}, "resource"),
        ({"resource": "http://ai.example"}, "https"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MCPSettings.model_validate({**SETTINGS, **changes})


@pytest.mark.parametrize(
    ("consumer", "caller", "may"),
    [
        (Consumer("ada"), None, True),
        (Consumer(ANONYMOUS), None, False),
        (Consumer("ada", listed=False), None, False),
        (Consumer("ada", listed=False), Caller("t", "https://idp.example", "x"), True),
    ],
)
async def test_a_consumer_is_a_user_only_where_it_is_one_person(consumer: Consumer, caller: Any, may: bool) -> None:
    fleet, way = Fleet(), MCPAuthSettings(sign_in={}, without_user="consumer")
    settings = MCPSettings.model_validate(SETTINGS)
    exchange = new_exchange("x", RequestHead("POST", "/mcp/dev", {}))
    exchange.consumer, exchange.features[CALL] = consumer, (call := Call("dev", settings.profiles["dev"]))
    call.server, call.caller = "mail", caller
    with pytest.raises(Refusal) as refused:
        await OnBehalf(settings, UserTokens(), fleet.processes[0]).headers(exchange, way)
    assert refused.value.kind.code == ("sign_in_required" if may else "mcp_credential_rejected")


async def test_the_cookie_of_a_sign_in_is_of_this_host_alone() -> None:
    process = Fleet().processes[0]
    link = process.link("mail", USERS[0]).removeprefix(RESOURCE)
    exchange = new_exchange("x", RequestHead("GET", f"{link}?go", {"cookie": "a=b; __Host-extproc_mcp_sign_in=<x>"}))
    answer = await SignInPages(process, JSONRPC)(exchange)
    assert answer is not None
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == "__Host-extproc_mcp_sign_in"
    value, *attributes = rest.split("; ")
    assert len(value) == 43
    assert {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"} <= {*attributes}
    assert value not in answer.headers["location"]
