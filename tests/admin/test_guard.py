"""Access to the admin API: the token, the host, and pages of other sites."""

import pytest

from extproc.operate.admin.api import admin_app
from tests.admin.conftest import TOKEN

GRANT = {"budget": "team-month", "scope": "team-month:team=lab", "amount": "25.5"}
PATHS = ["/usage", "/budgets", "/budgets/x", "/grants", "/exchanges", "/exchanges/id-1", "/exchanges?limit=x", "/none"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        "Bearer é",
        TOKEN,
    ],
)
async def test_without_the_token_nothing_is_shown(sources, connect, path, authorization):
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    async with connect(admin_app(sources, TOKEN)) as http:
        answer = await http.get(path, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert TOKEN not in answer.text
    assert answer.json()["error"]["code"] == "invalid_token"
    assert sources.asked == []


async def test_without_the_token_nothing_is_changed(sources, connect):
    async with connect(admin_app(sources, TOKEN)) as http:
        assert (await http.post("/grants", json=GRANT)).status_code == 401
        assert (await http.delete("/grants/g-1")).status_code == 401
    assert sources.given == []


async def test_with_the_token_any_address_is_answered(sources, connect):
    async with connect(admin_app(sources, TOKEN), "gateway.example.com") as http:
        for scheme in ("Bearer", "bearer"):
            answer = await http.get("/exchanges", headers={"authorization": f"{scheme} {TOKEN}"})
            assert len(answer.json()["data"]) == 90


async def test_a_token_that_changes_is_followed_and_without_one_no_request_passes(sources, connect):
    token = "first"
    async with connect(admin_app(sources, lambda: token)) as http:
        for token, given, status in (  # noqa: B007 - the reader sees it
            ("first", "first", 200),
            ("second", "first", 401),
            ("second", "second", 200),
        ):
            assert (await http.get("/budgets", headers={"authorization": f"Bearer {given}"})).status_code == status
        token = None
        for given in ("second", ""):
            assert (await http.get("/budgets", headers={"authorization": f"Bearer {given}"})).status_code == 401


async def test_the_page_and_the_description_need_no_token(sources, connect):
    async with connect(admin_app(sources, TOKEN)) as http:
        assert (await http.get("/")).headers["content-type"].startswith("text/html")
        assert (await http.get("/openapi.json")).json()["openapi"] == "3.1.0"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9091", "127.0.0.1", "127.0.0.1:1", "127.8.8.8", "[::1]:9091", "[::1]"]
)
async def test_names_of_this_machine_are_accepted(sources, connect, host):
    async with connect(admin_app(sources, None)) as http:
        assert (await http.get("/budgets", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:9091", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]"),
        *("", ":9091", "localhost:x", "localhost:", "a@localhost", "localhost@a", "127.0.0.1:1:1", "::1", "0x7f000001"),
        *("localhost evil", "[localhost]", "[::1", "0.0.0.0"),
    ],
)
async def test_a_name_rebound_to_this_machine_is_refused(sources, connect, host):
    async with connect(admin_app(sources, None)) as http:
        for path in ("/", "/budgets", "/none"):
            answer = await http.get(path, headers={"host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:10000"},
        {"origin": "http://localhost"},
        {"origin": "http://[localhost:9091"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": ""},
    ],
    ids=repr,
)
async def test_pages_of_other_sites_cannot_change_anything(sources, admin, headers):
    answer = await admin.post("/grants", json=GRANT, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")
    answer = await admin.delete("/grants/g-1", headers=headers)
    assert answer.status_code == 403
    assert sources.given == []


async def test_the_console_can_make_changes(admin):
    same = {"origin": "http://localhost:9091", "sec-fetch-site": "same-origin"}
    assert (await admin.post("/grants", json=GRANT, headers=same)).status_code == 201


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_a_form_of_another_site_cannot_change_anything(sources, admin, kind):
    answer = await admin.post("/grants", content=b"{}", headers={"content-type": kind})
    assert answer.status_code == 415
    assert (
        await admin.post("/grants", json=GRANT, headers={"content-type": "Application/JSON; charset=utf-8"})
    ).is_success


@pytest.mark.parametrize("path", ["/", "/usage", "/none", "/usage?format=csv", "/usage?format=x", "/openapi.json"])
async def test_every_answer_has_protective_headers(admin, path):
    headers = (await admin.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not [name for name in headers if name.startswith("access-control-")]
