import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from extproc.admin import HTTPThread, admin_app, status_app
from extproc.history import History

ENTRIES = [{"id": f"id-{number}", "request_id": f"r-{number}"} for number in range(5)]
TOKEN = "operator-token"


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x")


@pytest.fixture
def telemetry(world):
    found = world().telemetry
    found.recent.extend(ENTRIES)
    return found


@pytest.fixture
async def admin(telemetry):
    async with client(admin_app(telemetry, None)) as found:
        yield found


# --- status


@pytest.mark.parametrize(("reason", "status", "text"), [("", 200, "ok\n"), ("draining", 503, "draining\n")])
async def test_health(telemetry, reason, status, text):
    async with client(status_app(telemetry, lambda: reason)) as http:
        assert (await http.get("/healthz")).text == "ok\n"
        ready = await http.get("/readyz")
    assert (ready.status_code, ready.text) == (status, text)


@pytest.mark.parametrize(
    ("accept", "kind", "read"),
    [
        ("", "text/plain", plain_text),
        ("*/*", "text/plain", plain_text),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", open_metrics),
    ],
)
async def test_metrics_in_both_formats(telemetry, accept, kind, read):
    telemetry.refusal("invalid_key")
    async with client(status_app(telemetry, str)) as http:
        answer = await http.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(kind)
    samples = {sample.name: sample for family in read(answer.text) for sample in family.samples}
    assert samples["extproc_refusals_total"].value == 1


@pytest.mark.parametrize("path", ["/", "/metrics/x", "/exchanges", "/admin", "/healthz/"])
async def test_the_status_door_has_nothing_else(telemetry, path):
    async with client(status_app(telemetry, str)) as http:
        assert (await http.get(path)).status_code in (404, 307)


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_the_status_door_is_for_reading(telemetry, path):
    async with client(status_app(telemetry, str)) as http:
        assert (await http.post(path)).status_code == 405


# --- admin


async def test_the_latest_exchanges_come_first(admin):
    answer = await admin.get("/exchanges")
    assert [entry["id"] for entry in answer.json()["data"]] == [f"id-{number}" for number in (4, 3, 2, 1, 0)]
    answer = await admin.get("/exchanges?limit=2")
    assert [entry["id"] for entry in answer.json()["data"]] == ["id-4", "id-3"]


@pytest.mark.parametrize("id", ["id-3", "r-3"])
async def test_one_exchange_by_either_id(admin, id):
    assert (await admin.get(f"/exchanges/{id}")).json() == ENTRIES[3]


@pytest.mark.parametrize("id", ["nobody", "id", "%2e%2e", "id-3'--"])
async def test_an_unknown_exchange_is_a_404(admin, id):
    assert (await admin.get(f"/exchanges/{id}")).status_code == 404


@pytest.mark.parametrize(
    "limit", ["0", "-1", "1001", "x", "", "1.5", "1e3", "9" * 7, "9" * 5000, "000001" + "9" * 5000, "²"]
)
async def test_a_limit_is_a_number_from_1_to_1000(admin, limit):
    assert (await admin.get("/exchanges", params={"limit": limit})).status_code == 400


async def test_the_admin_door_has_no_metrics(admin):
    for path in ("/metrics", "/", "/config"):
        assert (await admin.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/exchanges", "/exchanges/id-1", "/exchanges?limit=x"])
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer é"],
)
async def test_without_the_token_nothing_is_told(telemetry, path, authorization):
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    async with client(admin_app(telemetry, TOKEN)) as http:
        answer = await http.get(path, headers=headers)
    assert answer.status_code == 401
    assert TOKEN not in answer.text
    assert "id-" not in answer.text


async def test_with_the_token(telemetry):
    async with client(admin_app(telemetry, TOKEN)) as http:
        answer = await http.get("/exchanges", headers={"authorization": f"Bearer {TOKEN}"})
    assert len(answer.json()["data"]) == 5


async def test_only_so_many_exchanges_are_kept(telemetry):
    telemetry.recent.extend({"id": f"{number}", "request_id": ""} for number in range(5000))
    async with client(admin_app(telemetry, None)) as http:
        assert len((await http.get("/exchanges?limit=1000")).json()["data"]) == 1000


# --- the thread


def test_applications_are_served_from_a_thread_until_it_stops(telemetry):
    thread = HTTPThread()
    thread.add(status_app(telemetry, str), "127.0.0.1", 0)
    port = thread._servers[0][1].getsockname()[1]
    thread.start()
    try:
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").text == "ok\n"
        with pytest.raises(OSError):
            HTTPThread().add(status_app(telemetry, str), "127.0.0.1", port)
    finally:
        thread.stop()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


async def test_what_tries_taught_is_shown_by_place(telemetry):
    history = History(lambda: 1_700_000_000.0)
    history.cool("a/m", 12)
    history.learn("b/n", "ok", first_byte=0.25)
    async with client(admin_app(telemetry, TOKEN, history.places)) as http:
        assert (await http.get("/providers")).status_code == 401
        answer = await http.get("/providers", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.json()["data"] == {"a/m": {"cooling_down_s": 12.0}, "b/n": {"plain_s": 0.25, "failing": 0.0}}
