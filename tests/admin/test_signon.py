"""Sign-on of operators: the flow, its attacks, roles and sessions."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from extproc.envoy.server.checking import Checker
from extproc.money.ledger import LedgerError, open_ledger
from extproc.operate.admin.api import admin_app
from extproc.operate.admin.guard import Principal
from extproc.operate.admin.sessions import CookieSeal, Session, SignIn
from extproc.operate.admin.signon import SESSION, SignOn
from extproc.operate.reports.desk import Desk as OperatorsDesk
from extproc.settings.signon import OIDCSettings
from extproc.words.values import Secret
from tests.admin.conftest import JSON, TOKEN
from tests.admin.fakes import acts_of
from tests.admin.idp import CLIENT, SECRET, Provider

HOST = "console.example.com"
GRANT = {"budget": "team-month", "scope": "team-month:team=lab", "amount": "25.5"}
PAGE = {"origin": f"https://{HOST}", "sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def running():
    with Provider().running() as found:
        yield found


@pytest.fixture
def provider(running):
    running.__dict__.update(
        groups=["ops"], claims={}, discovered={}, signed=lambda claims: running.issuer.token(**claims)
    )
    return running


@pytest.fixture
def settings(provider, monkeypatch):
    monkeypatch.setenv("OIDC_SECRET", SECRET)
    given = {"issuer": provider.url, "client_id": CLIENT, "client_secret": "env:OIDC_SECRET", "roles": "realm.groups"}
    roles = {"viewers": ["*"], "operators": ["ops", "sre-*"], "admins": ["boss"]}
    return OIDCSettings(**given, url=f"https://{HOST}", **roles)


@pytest.fixture
async def browser(sources, desk, settings):
    app = admin_app(sources, None, desk, settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=f"https://{HOST}") as found:
        yield found


async def sign_on(browser, path="/auth/login"):
    """The answer that the provider's redirect leads to."""
    begun = await browser.get(path)
    assert begun.status_code == 302, begun.text
    back = httpx.get(begun.headers["location"], trust_env=False).headers["location"]
    assert back.startswith(f"https://{HOST}/auth/callback?")
    return await browser.get(back)


def begun_state(browser):
    data = browser.cookies.get("extproc_login").split(".")[0]
    return json.loads(urlsafe_b64decode(data + "=" * (-len(data) % 4)))[0]


async def test_a_proxy_may_write_another_host(browser):
    await sign_on(browser)
    behind = PAGE | {"host": "gateway.internal:9091"}
    assert (await browser.post("/grants", json=GRANT, headers=behind)).status_code == 201
    for origin in ("https://evil.example", "null", ""):
        answer = await browser.post("/grants", json=GRANT, headers=behind | {"origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")


async def test_an_operator_signs_on_acts_and_signs_off(browser, desk, sources):
    refused = await browser.get("/usage")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "sign_in_required")
    answer = await sign_on(browser, "/auth/login?next=view%3Dkeys%26f.team%3Dlab")
    assert (answer.status_code, answer.headers["location"]) == (302, f"https://{HOST}/#view=keys&f.team=lab")
    cookie = next(each for each in answer.headers.get_list("set-cookie") if each.startswith(SESSION))
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=28800"):
        assert part in cookie
    me = (await browser.get("/me")).json()
    assert (me["name"], me["role"], me["session"]) == ("zoe@example.com", "operator", True)
    assert (await browser.post("/grants", json=GRANT, headers=PAGE)).status_code == 201
    assert (await browser.post("/grants", json=GRANT, headers={"origin": "https://evil.example"})).status_code == 403
    assert [act[:3] for act in acts_of(desk.acts)] == [
        ("zoe@example.com", "operator", "sign-in"),
        ("zoe@example.com", "operator", "grant"),
    ]
    assert (await browser.post("/auth/logout", json={}, headers=PAGE)).status_code == 204
    assert (await browser.get("/me")).status_code == 401
    browser.cookies.set(SESSION, cookie.split("=")[1].split(";")[0], domain=HOST)
    assert (await browser.get("/me")).status_code == 401  # the cookie alone is worth nothing any more


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["x"], "viewer"),
        ([], "viewer"),
        (None, "viewer"),
        ("ops", "operator"),
        (["sre-eu", 5], "operator"),
        (["boss", "ops"], "admin"),
    ],
)
async def test_a_role_follows_the_groups_and_is_checked_on_the_server(browser, provider, sources, groups, role):
    provider.groups = groups
    await sign_on(browser)
    assert (await browser.get("/me")).json()["role"] == role
    reached = {
        "viewer": (await browser.get("/usage")).status_code == 200,
        "operator": (await browser.post("/grants", json=GRANT, headers=PAGE)).status_code == 201,
        "admin": (await browser.get("/audit")).status_code == 200,
    }
    ranks = list(reached)
    assert [name for name, may in reached.items() if may] == ranks[: ranks.index(role) + 1]
    refused = await browser.post("/ledger/forget", json={"consumer": "ada"}, headers=PAGE)
    assert refused.status_code == (200 if role == "admin" else 403)
    assert role == "admin" or refused.json()["error"]["code"] == "role_missing"


async def test_an_operator_without_a_role_is_refused(sources, desk, settings, provider):
    app = admin_app(sources, None, desk, settings.model_copy(update={"viewers": ()}))
    provider.groups = ["other"]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=f"https://{HOST}") as browser:
        answer = await sign_on(browser)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "sign_in_refused")
        assert SESSION not in browser.cookies
    assert desk.acts == []


async def test_a_token_that_is_not_for_this_sign_in_is_refused(browser, provider, caplog):
    issuer = provider.issuer
    now = int(time.time())
    bad = {
        "expired": {"exp": now - 120},
        "early": {"nbf": now + 600},
        "audience": {"aud": "other"},
        "audiences": {"aud": [CLIENT, "other"], "azp": "other"},
        "issuer": {"iss": "https://evil.example"},
        "nonce": {"nonce": "another"},
        "no nonce": {"nonce": None},
        "no subject": {"sub": None},
        "no end": {"exp": None},
    }
    for name, claims in bad.items():
        provider.claims = claims
        assert (await sign_on(browser)).status_code == 403, name
    provider.claims = {}
    for made in (issuer.tampered, lambda **_: issuer.unsigned(), lambda **_: issuer.confused()):
        provider.signed = lambda claims, made=made: made(**claims)
        assert (await sign_on(browser)).status_code == 403
    for text in ("", "x", "a.b.c", None):
        provider.signed = lambda _claims, text=text: text
        assert (await sign_on(browser)).status_code == 403
    provider.signed = lambda claims: issuer.token(kid="unknown", **claims)
    assert (await sign_on(browser)).status_code == 403
    assert SESSION not in browser.cookies
    assert "zoe" not in caplog.text


async def test_a_code_of_another_browser_signs_nobody_on(browser, sources, settings):
    begun = await browser.get("/auth/login")
    back = httpx.get(begun.headers["location"], trust_env=False).headers["location"]
    state = parse_qs(urlsplit(back).query)["state"][0]
    mine = browser.cookies.get("extproc_login")
    browser.cookies.clear()
    assert (await browser.get(back)).status_code == 400  # the victim's browser has no cookie of this state
    await browser.get("/auth/login")
    assert (await browser.get(back)).status_code == 400  # nor has one that began another
    browser.cookies.clear()
    browser.cookies.set("extproc_login", mine, domain=HOST)
    assert (await browser.get(back)).status_code == 302
    browser.cookies.set("extproc_login", mine, domain=HOST)
    assert (await browser.get(back)).status_code == 403  # a code counts once
    browser.cookies.clear()
    for forged in (state, mine[:-1], mine.split(".")[0], "." + mine.split(".")[1], "\x7f.x", "e30.e30", ""):
        assert (await browser.get(back, headers={"cookie": f"extproc_login={forged}"})).status_code == 400
    for query in ("", "?code=x", f"?code=x&state={state}", "?state=&code=x"):
        assert (await browser.get("/auth/callback" + query)).status_code == 400
    browser.cookies.clear()
    await browser.get("/auth/login")
    answer = await browser.get(f"/auth/callback?error=access_denied&state={begun_state(browser)}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "sign_in_refused")


async def test_the_address_to_return_to_is_only_a_part_of_the_page(browser):
    for text in ("//evil.example", "x y", "<script>", "a" * 2049, "\\evil"):
        answer = await sign_on(browser, "/auth/login?next=" + text.replace(" ", "%20"))
        assert answer.headers["location"] == f"https://{HOST}/"


def test_sign_ins_and_the_providers_documents_are_bounded(settings, desk, provider, monkeypatch):
    clock = [1000.0]
    sign_on_ = SignOn(settings.model_copy(update={"sign_ins": 3}), desk, (), lambda: clock[0])
    request = type("Request", (), {"query_params": {}, "cookies": {}})()
    provider.asked.clear()
    assert [sign_on_.login(request).status_code for _ in range(4)] == [302, 302, 302, 429]
    clock[0] += 61
    assert sign_on_.login(request).status_code == 302
    assert provider.asked.count("/.well-known/openid-configuration") == 1
    for found in (b"[]", b"{}", b"x" * 300_000, b"\xff"):
        monkeypatch.setattr("extproc.operate.admin.signon.ask", lambda *_, found=found, **__: (200, found))
        clock[0] += 4000
        assert sign_on_.login(request).status_code == 503
    monkeypatch.setattr("extproc.operate.admin.signon.ask", lambda *_, **__: (_ for _ in ()).throw(TimeoutError()))
    clock[0] += 4000
    assert sign_on_.login(request).status_code == 503


async def test_the_providers_document_must_be_its_own_and_secure(sources, desk, settings, provider):
    for changes in (
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "javascript:x"},
        {"authorization_endpoint": 5},
    ):
        provider.discovered = changes
        transport = httpx.ASGITransport(app=admin_app(sources, None, desk, settings))
        async with httpx.AsyncClient(transport=transport, base_url=f"https://{HOST}") as browser:
            assert (await browser.get("/auth/login")).status_code == 503


async def test_the_token_works_beside_sign_on(sources, desk, settings):
    transport = httpx.ASGITransport(app=admin_app(sources, TOKEN, desk, settings))
    async with httpx.AsyncClient(transport=transport, base_url=f"https://{HOST}") as script:
        assert (await script.get("/me", headers={"authorization": f"Bearer {TOKEN}"})).json()["role"] == "admin"
        assert (await script.get("/me", headers={"authorization": "Bearer wrong"})).status_code == 401
        assert (await script.get("/")).status_code == 200
        assert (await script.post("/auth/logout", content=b"{}", headers=JSON)).status_code == 401


async def test_a_session_ends_with_its_time(sources, desk, settings, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("extproc.operate.admin.signon.SignOn.__init__.__defaults__", ((), lambda: clock[0]))
    transport = httpx.ASGITransport(app=admin_app(sources, None, desk, settings))
    async with httpx.AsyncClient(transport=transport, base_url=f"https://{HOST}") as browser:
        await sign_on(browser)
        clock[0] = 8 * 3600 - 1.0
        assert (await browser.get("/me")).status_code == 200
        clock[0] = 8 * 3600 + 1.0
        assert (await browser.get("/me")).status_code == 401
        clock[0] += 5
        await browser.get("/auth/login")
        clock[0] += 601
        assert (await browser.get(f"/auth/callback?code=x&state={begun_state(browser)}")).status_code == 400


async def test_a_sign_in_and_its_session_work_at_every_replica_until_it_ends(sources, settings, ledger_desks):
    first, second = (admin_app(sources, None, desk, settings) for desk in ledger_desks)

    def at(app):
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=f"https://{HOST}", cookies=jar)

    jar = httpx.Cookies()
    async with at(first) as one, at(second) as two:
        begun = await one.get("/auth/login")
        two.cookies = one.cookies
        back = httpx.get(begun.headers["location"], trust_env=False).headers["location"]
        assert (await two.get(back)).status_code == 302
        one.cookies = two.cookies
        for browser in (one, two):
            assert (await browser.get("/usage")).status_code == 200
        old = one.cookies.get(SESSION)
        assert (await two.post("/auth/logout", json={}, headers=PAGE)).status_code == 204
        held = {"cookie": f"{SESSION}={old}"}
        assert (await two.get("/usage", headers=held)).status_code == 401
        ledger_desks[0].read_sessions()  # as it does every two seconds
        assert (await one.get("/usage", headers=held)).status_code == 401
        acts = [act[:3] for act in acts_of(ledger_desks[0].trail(9, None))]
        assert acts == [("zoe@example.com", "operator", "sign-out"), ("zoe@example.com", "operator", "sign-in")]


@pytest.fixture
def ledger_desks(tmp_path):
    """The desks of two replicas with one ledger."""
    ledgers = [open_ledger(f"sqlite:{tmp_path}/ledger.db") for _ in range(2)]
    yield [OperatorsDesk(ledger, dict, dict, checker=Checker(Path())) for ledger in ledgers]
    for ledger in ledgers:
        ledger.close()


def test_sessions_that_ended_survive_a_ledger_that_is_away(ledger_desks):
    class Away:
        def end_session(self, *_):
            raise LedgerError("away")

        ended_sessions = end_session

    here, there = ledger_desks
    now = time.time()
    assert here.has_ended("x", now - 60)  # not read yet: a session from before the start may have ended
    assert not here.has_ended("x", now + 60)
    here.read_sessions()
    assert not here.has_ended("x", now - 60)
    there.read_sessions()
    operators, here._operators = here._operators, Away()
    here.end_session("x", now + 60)
    here.end_session("gone", now - 60)
    there.read_sessions()
    assert (here.has_ended("x", now), there.has_ended("x", now)) == (True, False)
    here._operators = operators
    here.read_sessions()
    there.read_sessions()
    assert there.has_ended("x", now)
    there.end_session("y", now + 60)
    assert sorted(operators.ended_sessions()) == ["x", "y"]  # the time of `gone` has come


def test_cookies_are_those_of_the_same_settings(settings, monkeypatch):
    monkeypatch.setenv("TOKEN", "t" * 32)
    token = Secret("env", "TOKEN")
    session = Session("id", Principal("z\ud800" * 100, "viewer", session=True), 1.0, 2.0)
    seal = CookieSeal(settings, [settings.client_secret, token])
    cookie = seal.session(session)
    assert CookieSeal(settings, [settings.client_secret, token]).read_session(cookie) == session
    assert seal.read_begun(cookie) is None  # each kind has a key of its own
    assert seal.read_session(seal.begun(SignIn("s", "", 9.0))) is None
    for other in (
        CookieSeal(settings, [settings.client_secret]),
        CookieSeal(settings, []),  # a key of the process
        CookieSeal(settings, [settings.client_secret, Secret("env", "NONE")]),
        CookieSeal(settings.model_copy(update={"admins": ["other"]}), [settings.client_secret, token]),
    ):
        assert other.read_session(cookie) is None
        assert other.read_session(other.session(session)) == session
    monkeypatch.setenv("TOKEN", "changed")
    assert seal.read_session(cookie) is None
    for text in ("", ".", "a", "a.b", "é.x", cookie + "x", "x" * 5000, cookie.replace(".", "..")):
        assert seal.read_session(text) is None


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://login.example.com"},
        {"issuer": "https://user@login.example.com"},
        {"url": "https://x/?y"},
        {"url": "ftp://x"},
        {"url": "https://c.example.com/console"},
        {"scopes": ["profile"]},
        {"viewers": [], "operators": [], "admins": []},
        {"session": "30s"},
        {"session": "8d"},
        {"sign_ins": 0},
        {"client_id": ""},
    ],
    ids=repr,
)
def test_settings_that_cannot_work_are_refused(change):
    good = {"issuer": "https://login.example.com", "client_id": "x", "url": "https://c.example.com", "viewers": ["*"]}
    OIDCSettings(**good)
    with pytest.raises(ValueError, match=r"."):
        OIDCSettings(**good | change)


def test_cookies_stay_good_while_the_file_of_a_secret_is_away(settings, tmp_path):
    file = tmp_path / "token"
    file.write_text("t" * 32)
    given = [settings.client_secret, Secret("file", str(file))]
    session = Session("id", Principal("zoe", "viewer", session=True), 1.0, 2.0)
    seal = CookieSeal(settings, given)
    cookie = seal.session(session)
    file.unlink()
    assert seal.read_session(cookie) == session
    file.write_text("u" * 32)
    assert seal.read_session(cookie) is None
