"""`GET /events`: streams over real connections, their number, and their end."""

import contextlib
import json

import httpx
import pytest

from extproc.operate.admin import live
from extproc.operate.admin.api import admin_app
from extproc.operate.admin.doors import HTTPThread
from tests.admin.conftest import NOW
from tests.admin.fakes import FakeDesk, FakeSources, exchange, some
from tests.e2e.conftest import eventually


@contextlib.contextmanager
def served(sources, token=None):
    thread = HTTPThread()
    port = thread.add(lambda: admin_app(sources, token, FakeDesk()), "127.0.0.1", 0)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            yield http
    finally:
        thread.stop()


@pytest.fixture
def sources():
    return FakeSources(some(NOW, 5), NOW)


def data(lines):
    return json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))


def test_a_page_is_told_what_is_in_flight_and_when_an_exchange_ends(sources):
    with served(sources) as http, http.stream("GET", live.PATH) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        first = data(lines)
        assert first["latest"] == sources.entries[-1]["id"]
        assert [(each["id"], each["state"], each["consumer"]) for each in first["in_flight"]] == [
            ("u-1", "waiting", "ada")
        ]
        sources.entries.append(exchange(77, NOW + 1))
        assert data(lines)["latest"] == sources.entries[-1]["id"] != first["latest"]


def test_streams_have_a_limit_and_one_that_ends_gives_its_place_back(sources):
    with served(sources) as http, contextlib.ExitStack() as rest:
        streams = [rest.enter_context(http.stream("GET", live.PATH)) for _ in range(live.MOST)]
        assert all(stream.status_code == 200 for stream in streams)
        refused = http.get(live.PATH)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert http.head("/in-flight").status_code == 200  # others are served
        streams[0].close()
        eventually(lambda: http.head(live.PATH).status_code == 200)


def test_a_stream_ends_with_the_token_that_began_it(sources):
    tokens = ["first"]
    with served(sources, lambda: tokens[-1]) as http:
        assert http.get(live.PATH).status_code == 401
        with http.stream("GET", live.PATH, headers={"authorization": "Bearer first"}) as answer:
            lines = answer.iter_lines()
            assert data(lines)["in_flight"]
            tokens.append("second")
            assert [line for line in lines if line.startswith("data: ")] == []
