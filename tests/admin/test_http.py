"""The thread that serves, and the status door."""

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from extproc.admin import HTTPThread, status_app


@pytest.fixture
def telemetry(world):
    return world().telemetry


@pytest.mark.parametrize(("reason", "status", "text"), [("", 200, "ok\n"), ("draining", 503, "draining\n")])
async def test_health(telemetry, connect, reason, status, text):
    async with connect(status_app(telemetry, lambda: reason)) as http:
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
async def test_metrics_in_both_formats(telemetry, connect, accept, kind, read):
    telemetry.refusal("invalid_key")
    async with connect(status_app(telemetry, str)) as http:
        answer = await http.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(kind)
    samples = {sample.name: sample for family in read(answer.text) for sample in family.samples}
    assert samples["extproc_refusals_total"].value == 1


@pytest.mark.parametrize("path", ["/", "/metrics/x", "/exchanges", "/usage", "/admin", "/healthz/"])
async def test_the_status_door_has_nothing_else(telemetry, connect, path):
    async with connect(status_app(telemetry, str)) as http:
        assert (await http.get(path)).status_code in (404, 307)


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_the_status_door_is_for_reading(telemetry, connect, path):
    async with connect(status_app(telemetry, str)) as http:
        assert (await http.post(path)).status_code == 405


def test_applications_are_served_from_a_thread_until_it_stops(telemetry):
    thread = HTTPThread()
    port = thread.add(status_app(telemetry, str), "127.0.0.1", 0)
    thread.start()
    try:
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").text == "ok\n"
        with pytest.raises(OSError):
            HTTPThread().add(status_app(telemetry, str), "127.0.0.1", port)
    finally:
        thread.stop()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")
