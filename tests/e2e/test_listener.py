"""The public listener: clients of HTTP/1.0, compressed requests, and pages of other origins."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import KEY, Gateway, run_gateway

pytestmark = pytest.mark.e2e

PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "stub", "messages": [{"role": "user", "content": "hello"}]}).encode()
HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
CORS = 'cors: {origins: ["https://*.example.com", "http://localhost:3000"]}'
SETTINGS = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
"""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("host", ["host: nginx\r\n", ""])
def test_a_client_of_http_1_0_gets_its_answer_and_the_connection_ends(demo: Gateway, host: str, stream: bool):
    body = json.dumps({**json.loads(BODY), "stream": stream})
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    request = f"POST {PATH} HTTP/1.0\r\n{host}{lines}content-length: {len(body)}\r\n\r\n{body}"
    url = httpx.URL(demo.url)
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, data = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200")
    assert b"transfer-encoding" not in head.lower()
    assert data.rstrip().endswith(b"data: [DONE]" if stream else b"}")


def test_a_request_in_gzip_reaches_the_provider_as_it_was_before(demo: Gateway):
    headers = {**HEADERS, "content-encoding": "gzip"}
    answer = httpx.post(demo.url + PATH, content=gzip.compress(BODY), headers=headers)
    assert answer.status_code == 200
    seen = demo.seen("sandbox")[-1]
    assert seen["body"] == json.loads(BODY)
    assert "content-encoding" not in dict(seen["headers"])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("cors"), SETTINGS, ("sandbox",), {}, listener=CORS)


@pytest.mark.parametrize("origin", ["https://app.example.com", "http://localhost:3000"])
def test_a_page_of_an_allowed_origin_may_call(gateway: Gateway, origin: str):
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = httpx.options(gateway.url + PATH, headers={"origin": origin, **asked})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["access-control-max-age"] == "600"
    for headers, status in ((HEADERS, 200), ({"content-type": "application/json"}, 401)):
        answer = httpx.post(gateway.url + PATH, content=BODY, headers={"origin": origin, **headers})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, origin)


@pytest.mark.parametrize(
    "origin", ["https://example.com.evil.net", "https://evil.net", "http://app.example.com", "null"]
)
def test_a_page_of_another_origin_may_not(gateway: Gateway, origin: str):
    preflight = httpx.options(gateway.url + PATH, headers={"origin": origin, "access-control-request-method": "POST"})
    answer = httpx.post(gateway.url + PATH, content=BODY, headers={"origin": origin, **HEADERS})
    for each in (preflight, answer):
        assert "access-control-allow-origin" not in each.headers
    assert answer.status_code == 200  # the browser hides it from the page


def test_without_the_setting_there_is_no_page_of_usage(gateway: Gateway):
    assert httpx.get(gateway.url + "/my-usage").status_code == 404


def test_without_the_setting_a_preflight_is_a_405(demo: Gateway):
    preflight = httpx.options(
        demo.url + PATH, headers={"origin": "http://localhost:3000", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]
