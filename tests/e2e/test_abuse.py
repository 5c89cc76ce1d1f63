"""Abusive requests through a real Envoy. None is answered with a 5xx, and no refused request reaches a provider.

The cases are tables in the package `abuse`. `EXTPROC_JSON_CASES=dir` adds the cases of JSONTestSuite
(dir/parsing/*.json) and of the Big List of Naughty Strings (dir/blns.json), which are not part of this project.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.abuse import GARBAGE, PASSED, REFUSED
from tests.e2e.abuse.headers import FORGED, HTTP2_GARBAGE, HTTP2_REFUSED, INJECTIONS, LEAKED, http2
from tests.e2e.abuse.requests import (
    CHAT,
    PATH,
    Garbage,
    Passed,
    Refused,
    chat,
    chunked,
    content,
    embedded,
    http,
)
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.raw import Reply, connect, exchange, read, send, send_http2

YAML = """
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}", outlier_detection: {consecutive_5xx: 10000}}
  backup: {kind: mock, base_url: "{mock_backup}", outlier_detection: {consecutive_5xx: 10000}}
models:
  stub: {provider: sandbox}
  spare: {provider: backup, model: spare-v2}
  "any/*": {provider: sandbox}
virtual_models:
  assistant: {targets: [{model: stub}, {model: spare}]}
consumers:
  - {name: demo, team: platform, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: narrow, keys: [{env: NARROW_KEY}], models: [stub]}
  - {name: "off", keys: [{env: OFF_KEY}], disabled: true}
  - {name: old, keys: [{env: OLD_KEY}], expires: 2020-01-01}
  - {name: canary, keys: [{env: CANARY_KEY}]}
teams:
  platform: {models: ["*"]}
attribution: {metrics: [agent, task], max_series: 300}
guardrails:
  - {name: no-keys, kind: regex, patterns: {aws: 'AKIA[0-9A-Z]{16}'}}
limits: {request_body: 1MiB, json_depth: 128}
stores: {counters: "memory:"}
"""
SECRET = "sk-gw-canary-5d1c0ffee5d1c0ffee"  # a good key, which may appear in requests only
WRONG_SECRET = "sk-gw-canary-wrong-5d1c0ffee"
PROMPT = "prompt-canary-5d1c0ffee"
KEYS = {"NARROW_KEY": "sk-gw-narrow", "OFF_KEY": "sk-gw-off", "OLD_KEY": "sk-gw-old", "CANARY_KEY": SECRET}
MOCKS = ("sandbox", "backup")

# Headers that Envoy adds. Every other header that a mock provider sees came from the client.
USUAL_HEADERS = {"host", "content-type", "content-length", "transfer-encoding", "accept-encoding", "user-agent"}
ECHOED_HEADERS = {"content-encoding"}  # headers that a case may send on to a provider
ENVOY_LINE = re.compile(r"\[\d{4}-\d\d-\d\d [\d:.]+\]\[\d+\]\[\w+\]")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("abuse"), YAML, MOCKS, KEYS)


@pytest.fixture
def target(gateway: Gateway) -> Gateway:
    gateway.reset()
    return gateway


def calls(gateway: Gateway) -> int:
    """The number of requests that reached a provider."""
    return sum(gateway.http.get(url + "/requests?count").json()["count"] for url in gateway.mocks.values())


def params(table: Sequence[Any]) -> list[Any]:
    """One test for each case, named after it."""
    names = [re.sub(r"[^!-~ ]|[\[\]]", "?", case.name) for case in table]
    return [pytest.param(case, id=name) for case, name in zip(table, names, strict=True)]


def check_refusal(reply: Reply | None, status: int, code: str, *, head: bool = False) -> None:
    """An error in OpenAI's shape that comes from the gateway and carries a request id."""
    assert reply is not None, "closed without an answer"
    assert reply.status == status, reply.body
    assert reply.headers["x-ai-error-origin"] == "gateway"
    assert re.fullmatch(r"[0-9a-f-]{36}", reply.headers["x-request-id"])
    assert reply.headers["content-type"] == "application/json"
    assert not [name for name in reply.headers if name.startswith(("x-extproc-", "x-envoy-"))]
    if not head:
        check_error(reply, code)


def closed(connection: socket.socket) -> bool:
    """True when a good request that follows on the same connection gets no answer."""
    with contextlib.suppress(OSError):
        connection.sendall(http())
        connection.shutdown(socket.SHUT_WR)
    return read(connection) is None


def check_error(reply: Reply, code: str) -> None:
    document = reply.json()
    error = document["error"]
    if document.get("type") == "error":  # below a path of Anthropic's
        assert document.keys() == {"type", "error"}
        assert error["details"] == {"error_code": code}, error
    else:
        assert document.keys() == {"error"}
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == code, error
    assert error["type"]
    assert 0 < len(error["message"]) < 1_000


def test_the_tables_hold_more_than_a_thousand_cases() -> None:
    forged = 3 * len(FORGED) + 2 * len(LEAKED)
    assert len(REFUSED) + len(GARBAGE) + len(PASSED) + len(HTTP2_REFUSED) + len(HTTP2_GARBAGE) + forged > 1_000


# --- refused requests, garbage, allowed requests


@pytest.mark.parametrize("case", params(REFUSED))
def test_a_bad_request_is_refused_before_it_reaches_a_provider(case: Refused, target: Gateway) -> None:
    reply = send(target.url, *case.pieces, method=case.method)
    check_refusal(reply, case.status, case.code, head=case.method == "HEAD")
    assert calls(target) == 0


@pytest.mark.parametrize("case", params(GARBAGE))
def test_bytes_that_are_no_request_close_the_connection(case: Garbage, target: Gateway) -> None:
    """Envoy makes no request of them, so the answer has no id. Later bytes on the connection are not read."""
    with connect(target.url) as connection:
        reply = exchange(connection, case.pieces)
        assert (reply.status if reply else None) == case.status, reply
        if reply is not None:
            assert reply.headers["x-ai-error-origin"] == "gateway"
            assert reply.headers["connection"] == "close"
            check_error(reply, case.code)
        assert closed(connection)
    assert calls(target) == 0


@pytest.mark.parametrize("case", params(PASSED))
def test_an_odd_request_that_is_allowed_arrives_as_the_gateway_judged_it(case: Passed, target: Gateway) -> None:
    """The provider sees the path and the body that the gateway judged, and no header of the client's own."""
    reply = send(target.url, *case.pieces)
    assert reply is not None, "closed without an answer"
    assert reply.status == 200, reply.body
    assert reply.headers["x-ai-provider"] == "sandbox"
    assert reply.headers["x-ai-model"] == case.model
    [seen] = target.seen("sandbox")
    assert seen["path"] == case.path
    assert json.loads(case.body) == seen["body"] or seen["body_length"] > 64 << 10
    assert {name for name, _ in seen["headers"]} <= USUAL_HEADERS | ECHOED_HEADERS
    assert target.seen("backup") == []


# --- headers


def variants(name: str, value: str) -> Iterator[tuple[str, list[bytes]]]:
    """One forgery, written in several ways."""
    yield "plain", [http(more=[(name, value)])]
    yield "mixed case", [http(more=[("-".join(part.title() for part in name.split("-")), value)])]
    yield "capitals, twice", [http(more=[(name.upper(), value), (name, value)])]
    trailer = f"0\r\n{name}: {value}\r\n\r\n".encode()
    yield "trailer", list(chunked(CHAT, more=[("trailer", name), ("te", "trailers")], end=trailer))


def check_forged(target: Gateway, how: str, name: str, reply: Reply | None) -> Iterator[str]:
    """Yield an error unless the answer is as without the header and no provider has seen it."""
    if reply is None or reply.status != 200:
        yield f"{how} {name}: {reply}"
        return
    if (reply.headers["x-ai-provider"], reply.headers["x-ai-model"], reply.headers["x-ai-attempts"]) != (
        "sandbox",
        "stub",
        "1",
    ):
        yield f"{how} {name}: it changed the route: {reply.headers}"
    if "forged" in str(reply.headers) or "x-ai-error-origin" in reply.headers:
        yield f"{how} {name}: it is in the answer: {reply.headers}"
    seen = target.seen("sandbox")
    if len(seen) != 1 or target.seen("backup"):
        yield f"{how} {name}: {len(seen)} calls"
    for request in seen:
        strange = {header for header, _ in request["headers"]} - USUAL_HEADERS - {"te", "trailer"}
        if strange or "forged" in str(request["headers"]) or request["path"] != PATH:
            yield f"{how} {name}: the provider saw {sorted(strange)} at {request['path']}"
    target.reset()


def test_forged_headers_are_ignored_and_removed(target: Gateway) -> None:
    wrong = []
    for name, value in FORGED.items():
        for how, pieces in variants(name, value):
            wrong += check_forged(target, how, name, send(target.url, *pieces))
    assert wrong == []


def test_forged_headers_over_http2_are_ignored_and_removed(target: Gateway) -> None:
    wrong = []
    for name, value in FORGED.items():
        for how, headers, trailers in (
            ("header", http2((name, value)), []),
            ("header, twice", http2((name, value), (name, value)), []),
            ("trailer", http2(), [(name, value)]),
        ):
            wrong += check_forged(target, how, name, send_http2(target.url, headers, CHAT, trailers))
    assert wrong == []


def test_headers_of_other_proxies_are_removed(target: Gateway) -> None:
    wrong = []
    for name, value in LEAKED.items():
        wrong += check_forged(target, "plain", name, send(target.url, http(more=[(name, value)])))
        wrong += check_forged(target, "HTTP/2", name, send_http2(target.url, http2((name, value)), CHAT))
    assert wrong == []


def test_forged_retries_and_timeouts_have_no_effect(target: Gateway) -> None:
    forged = [(name, value) for name, value in FORGED.items() if name.startswith(("x-envoy-", "x-extproc-"))]
    target.fault("sandbox", "status=503")
    reply = send(target.url, http(more=forged))
    assert reply is not None
    assert reply.status == 503
    assert reply.headers["x-ai-attempts"] == "1"
    assert (len(target.seen("sandbox")), len(target.seen("backup"))) == (1, 0)
    target.reset()
    target.fault("sandbox", "delay=400ms")
    reply = send(target.url, http(more=forged))
    assert reply is not None
    assert reply.status == 200
    assert (len(target.seen("sandbox")), len(target.seen("backup"))) == (1, 0)


def test_forged_headers_do_not_change_a_failover(target: Gateway) -> None:
    """The first target fails. The second gets its own model's name, not one from the client's header."""
    target.fault("sandbox", "status=503")
    forged = [("x-extproc-targets", "stub=forged,stub=forged"), ("x-envoy-attempt-count", "7"), ("x-extproc-hop", "ok")]
    reply = send(target.url, http(chat(model='"assistant"'), more=forged))
    assert reply is not None
    assert reply.status == 200
    assert (reply.headers["x-ai-model"], reply.headers["x-ai-attempts"]) == ("spare-v2", "2")
    [first], [second] = target.seen("sandbox"), target.seen("backup")
    assert (first["body"]["model"], second["body"]["model"]) == ("stub", "spare-v2")
    assert "forged" not in str(first["headers"]) + str(second["headers"])


def test_gateway_headers_of_a_provider_are_removed(target: Gateway) -> None:
    target.fault("sandbox", "forge")
    reply = send(target.url, http())
    assert reply is not None
    assert reply.status == 200
    assert reply.headers["x-ai-provider"] == "sandbox"
    assert not [name for name in reply.headers if name.startswith(("x-extproc-", "x-envoy-"))]


@pytest.mark.parametrize("count", [60, 80, 100])
def test_more_headers_than_the_limit_are_a_4xx(count: int, target: Gateway) -> None:
    """The limit is a hundred, less those that the gateway itself needs."""
    more = [(f"x-h-{index}", "v") for index in range(count - 4)]
    reply = send(target.url, http(more=more))
    assert reply is not None
    assert reply.status == (200 if count <= 80 else 400)
    assert calls(target) == (reply.status == 200)


@pytest.mark.parametrize("name", HTTP2_REFUSED)
def test_a_bad_request_over_http2_is_refused(name: str, target: Gateway) -> None:
    status, code, headers = HTTP2_REFUSED[name]
    check_refusal(send_http2(target.url, headers, None if name == "CONNECT" else CHAT), status, code)
    assert calls(target) == 0


def test_http2_frames_that_are_no_request_end_the_stream(target: Gateway) -> None:
    """The stream is reset, or the connection closed. Some of them get a 400."""
    wrong = []
    with ThreadPoolExecutor(len(HTTP2_GARBAGE)) as threads:  # each waits a second for its connection to close
        replies = threads.map(lambda headers: send_http2(target.url, headers, CHAT), HTTP2_GARBAGE.values())
    for name, reply in zip(HTTP2_GARBAGE, replies, strict=True):
        if reply is not None and not 400 <= reply.status < 500:
            wrong.append((name, reply))
    assert wrong == []
    assert calls(target) == 0
    trailers = [(":path", "/nope")]
    assert send_http2(target.url, http2(), CHAT, trailers) is None
    assert calls(target) == 0


# --- clients that disconnect


def test_a_client_that_disconnects_before_its_body_is_complete_leaves_nothing_open(target: Gateway) -> None:
    """No provider is asked, and no stream stays open."""
    for sent in (b"", CHAT[:10], CHAT[:-1]):
        for pieces in (
            [http(None, more=[("content-length", str(len(CHAT)))]), sent],
            [http(None, more=[("transfer-encoding", "chunked")]), b"%x\r\n%s" % (len(CHAT), sent)],
        ):
            connection = connect(target.url)
            for piece in pieces:
                connection.sendall(piece)
            time.sleep(0.05)
            connection.close()
    eventually(lambda: target.metric("extproc_exchanges_in_flight") == 0)
    assert calls(target) == 0


def test_each_of_two_pipelined_requests_is_judged_by_its_own_key(target: Gateway) -> None:
    """The bytes after a body are the next request."""
    smuggled = http(without=["authorization"])
    with connect(target.url) as connection:
        connection.sendall(http() + smuggled)
        answers = b""
        while b"missing_key" not in answers and (data := connection.recv(65536)):
            answers += data
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answers)
    assert statuses == [b"200", b"401"]
    assert calls(target) == 1


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/9.9"])
@pytest.mark.parametrize("body", [(http,), (chunked,)], ids=["length", "chunks"])
def test_a_request_of_another_version_is_one_of_http_1_0_and_the_last_of_its_connection(
    version: str, body: tuple[Callable[..., Any]], target: Gateway
) -> None:
    made = http(version=version) if body[0] is http else b"".join(chunked(CHAT)).replace(b"HTTP/1.1", version.encode())
    with connect(target.url) as connection:
        reply = exchange(connection, (made + http(),))
        if reply is not None:
            assert reply.status in (200, 400), reply
            assert reply.headers["connection"] == "close"
        assert closed(connection)
    assert calls(target) == (1 if reply is not None and reply.status == 200 else 0)


# --- keys


def test_an_unknown_key_and_a_disabled_key_get_the_same_answer(target: Gateway) -> None:
    def answer(key: str) -> tuple[Any, ...]:
        reply = send(target.url, http(without=["authorization"], more=[("authorization", f"Bearer {key}")]))
        assert reply is not None
        headers = {name: value for name, value in reply.headers.items() if name not in ("x-request-id", "date")}
        return reply.status, reply.body, headers

    unknown = answer("sk-gw-nobody")
    assert unknown[0] == 401
    assert answer("sk-gw-off") == unknown
    assert answer("x") == unknown
    assert answer("a" * 20_000) == unknown


def test_a_key_in_the_query_is_not_accepted(target: Gateway) -> None:
    reply = send(target.url, http(target=f"{PATH}?api_key={SECRET}&access_token={SECRET}"))
    assert reply is not None
    assert reply.status == 200
    assert target.last(lambda entry: entry["request_id"] == reply.headers["x-request-id"])["consumer"] == "demo"


# --- logs, metrics and records


def written_lines(gateway: Gateway) -> list[str]:
    return gateway.log.read_text(encoding="utf-8").removeprefix("extproc is ready\n").split("\n")


def log_lines(gateway: Gateway) -> list[dict[str, Any]]:
    """Every log line since the start, parsed. A line that is neither JSON nor Envoy's own fails the test."""
    return [json.loads(line) for line in written_lines(gateway) if line and not ENVOY_LINE.match(line)]


def logged(gateway: Gateway, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The exchanges of `ids` in the log, once all of them are there."""

    def found() -> list[dict[str, Any]]:
        lines = [line for line in log_lines(gateway) if line.get("request_id") in ids]
        return lines if len(lines) >= len(ids) else []

    written: list[dict[str, Any]] = eventually(found, timeout=30)
    return written


def injections(text: str) -> Iterator[bytes]:
    value = text.encode()
    yield http(more=[("x-ai-agent", value)])
    yield http(more=[(b"x-ai-" + re.sub(rb"[^a-z0-9-]", b"-", value)[:2_000], "a")])
    yield http(more=[("x-other", value), ("user-agent", value), ("referer", value)])
    yield http(without=["authorization"], more=[("authorization", b"Bearer " + value)])
    yield http(without=["authorization"], more=[("x-api-key", value)])
    yield http(chat(model=json.dumps(text)))
    yield http(chat(model=json.dumps("any/" + text)))
    yield http(json.dumps(content(text)).encode())
    yield http(chat(f"{json.dumps(text)}:1"))
    yield http(chat(f"{json.dumps(text)}:1,{json.dumps(text)}:2"))
    yield http(without=["content-type"], more=[("content-type", value)])
    yield http(target="/v1/" + "".join(f"%{byte:02x}" for byte in value[:1_000]))
    yield http(None, method="GET", target="/v1/models/" + "".join(f"%{byte:02x}" for byte in value[:1_000]))


def test_no_text_of_a_client_breaks_a_log_line(target: Gateway) -> None:
    asked = []
    for text in (*INJECTIONS, "a\r\n{}", "\x1b[31m", "\x9b31m", "\x7f", "\0"):
        for request in injections(text):
            method = "GET" if request.startswith(b"GET") else "POST"
            reply = send(target.url, request, method=method)
            if reply is None or "x-request-id" not in reply.headers:
                continue  # Envoy did not accept it as a request
            assert reply.status < 500, reply
            asked.append(reply.headers["x-request-id"])
    assert len(asked) > 200
    written = logged(target, asked)
    assert sorted(line["request_id"] for line in written) == sorted(asked)
    assert {line["event"] for line in written} == {"exchange"}
    assert not [line for line in written if "forged" in line]
    assert max(len(json.dumps(line)) for line in written) < 4_000
    lines = written_lines(target)
    assert not [line for line in lines if not (line.isascii() and line.isprintable())]


def test_secrets_and_prompts_appear_in_no_output(target: Gateway) -> None:
    """No good key, wrong key or prompt appears in a log line, a metric, an exchange or a refusal."""
    says = [{"role": "user", "content": PROMPT}]

    def ask(body: Any, *, key: str = SECRET, **kwargs: Any) -> bytes:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        more = [("authorization", f"Bearer {key}"), *kwargs.pop("more", [])]
        return http(raw, without=["authorization", *kwargs.pop("without", [])], more=more, **kwargs)

    chat = {"model": "stub", "messages": says}
    good = json.dumps(chat).encode()
    refused = [
        ask(good, key=WRONG_SECRET),
        ask(good, more=[("authorization", f"Bearer {WRONG_SECRET}")]),
        ask(good, more=[("x-api-key", WRONG_SECRET)]),
        http(good, without=["authorization"], more=[("authorization", SECRET)]),
        http(good, without=["authorization"], more=[("authorization", f"Basic {SECRET}")]),
        http(good, without=["authorization"], more=[("x-api-key", f"Bearer {SECRET}")]),
        http(good, without=["authorization"], target=f"{PATH}?api_key={SECRET}"),
        ask(good, target=f"/v1/unknown?key={SECRET}"),
        ask(good, target=f"{PATH};{SECRET}"),
        ask(good, method="PUT"),
        ask(good[:-1]),
        ask(good.replace(b"prompt", b"\xffprompt")),
        ask(good.replace(b"{", b'{"x":1e999,', 1)),
        ask(good.replace(b'"role"', b'"role":"system","role"')),
        ask(b'"' + PROMPT.encode() + b'"'),
        ask(chat | {"stream": PROMPT}),
        ask(chat | {"max_tokens": PROMPT}),
        ask(chat | {"messages": PROMPT}),
        ask(chat | {"messages": [PROMPT]}),
        ask(chat | {"model": {"a": PROMPT}}),
        ask(chat | {"stream_options": PROMPT}),
        ask(chat | {"messages": [{"role": "user", "content": f"{PROMPT} AKIA" + "A" * 16}]}),
        ask(good, more=[("content-encoding", "gzip")]),
        ask(good, more=[("content-type", "text/plain")], without=["content-type"]),
        ask(chat | {"x": PROMPT + "a" * (1 << 20)}),
    ]
    for request in refused:
        reply = send(target.url, request)
        assert reply is not None
        assert 400 <= reply.status < 500, reply
        assert not [
            secret for secret in (SECRET, WRONG_SECRET, PROMPT) if secret in reply.body.decode() + str(reply.headers)
        ]
    assert calls(target) == 0
    served = [
        ask(good),
        ask(chat | {"stream": True}),
        ask(chat | {"user": PROMPT, "metadata": {"a": PROMPT}, "tools": []}),
        ask(good, more=[("cookie", f"key={SECRET}"), ("user-agent", PROMPT), ("x-a", PROMPT)]),
        ask(good, target=f"{PATH}?key={SECRET}&prompt={PROMPT}"),
        http(good, without=["authorization"], more=[("api-key", SECRET)]),
    ]
    for fault in ("", "status=500", "status=401", "status=400", "garbage", "badjson", "cut=0", "reset=0"):
        target.fault("sandbox", fault)
        for request in served:
            reply = send(target.url, request)
            assert reply is None or SECRET not in reply.body.decode() + str(reply.headers)
    target.reset()
    marker = send(target.url, http())
    assert marker is not None
    logged(target, [marker.headers["x-request-id"]])
    outputs = {
        "log": target.log.read_text(encoding="utf-8"),
        "metrics": target.http.get(target.status + "/metrics").text,
        "exchanges": target.http.get(target.admin + "/exchanges?limit=1000").text,
    }
    leaks = [
        (name, secret)
        for name, text in outputs.items()
        for secret in (SECRET, WRONG_SECRET, PROMPT, KEY)
        if secret in text
    ]
    assert leaks == []
    assert "canary" in outputs["exchanges"]  # the consumer's name shows that those exchanges are in the output
    for request in target.seen("sandbox"):
        assert SECRET not in str(request["headers"])


def test_clients_cannot_add_metric_series_without_end(start: Callable[..., Gateway]) -> None:
    """After two thousand requests with random models, labels, keys and paths, no further series appears."""
    gateway = start(YAML, MOCKS, KEYS)
    dice = random.Random(20)  # seeded

    def word(prefix: str) -> str:
        return f"{prefix}-{dice.randrange(15)}" if dice.random() < 0.8 else f"{prefix}-{dice.getrandbits(64):x}"

    def one(number: int) -> bytes:
        more = [("x-ai-agent", word("a")), ("x-ai-task", word("t")), (f"x-ai-{word('l')}", "x")]
        body = chat(model=json.dumps("any/" + word("m")))
        match number % 10:
            case 0:
                return http(chat(model=json.dumps(word("unknown"))), more=more)
            case 1:
                return http(body, more=[*more, ("authorization", f"Bearer {word('key')}")], without=["authorization"])
            case 2:
                return http(body, more=more, target=f"/v1/{word('path')}")
            case 3:
                return http(
                    body, more=more, method=dice.choice(["PUT", "DELETE", "PATCH"]), target=f"{PATH}?{word('q')}"
                )
        return http(body, more=more)

    def ask(requests: Sequence[bytes]) -> set[int | None]:
        with connect(gateway.url) as connection:
            replies = [exchange(connection, [request]) for request in requests]
        return {reply.status if reply else None for reply in replies}

    def flood(count: int) -> set[int | None]:
        requests = [one(number) for number in range(count)]
        with ThreadPoolExecutor(8) as threads:
            return set().union(*threads.map(ask, [requests[start::8] for start in range(8)]))

    def series() -> set[str]:
        """The metric series, read after every try is counted. Envoy's log of the tries arrives a little later."""
        tries: list[str] | None = None
        while tries != (tries := [line for line in shown() if line.startswith("extproc_tries_total")]):
            time.sleep(0.5)
        lines = shown()
        assert "extproc_exchanges_in_flight 0.0" in lines
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    def shown() -> list[str]:
        return gateway.http.get(gateway.status + "/metrics").text.splitlines()

    assert flood(2_000) == {200, 401, 404, 405}
    before = series()
    assert 170 < len([one for one in before if one.startswith("gen_ai_server_request_duration_seconds_count")]) < 210
    flood(500)
    found = series()
    # A combination of labels may meet a status for the first time; the combinations are bounded.
    assert {one for one in found - before if not one.startswith("extproc_consumer_")} == set()
    spenders = {re.sub(r',status="\w+"', "", one) for one in found if one.startswith("extproc_consumer_requests_total")}
    assert 260 < len(spenders) < 320


# --- failing closed


def processor_socket(gateway: Gateway) -> Path:
    command = [*map(str, gateway.process.args)]
    return Path(command[command.index("--socket") + 1])


def test_only_the_owner_of_the_socket_reaches_the_processor(gateway: Gateway) -> None:
    path = processor_socket(gateway)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.usefixtures("impatient")
def test_nothing_passes_while_the_processor_is_stopped(start: Callable[..., Gateway]) -> None:
    gateway = start(YAML, MOCKS, KEYS)
    assert gateway.chat().status_code == 200
    gateway.reset()
    replies: list[Reply | None] = []
    forged = [(name, value) for name, value in FORGED.items() if name.startswith("x-extproc-")]
    asked = [
        http(),
        http(without=["authorization"]),
        http(more=forged),
        http(chat('"stream":true')),
        http(None, method="GET", target="/v1/models"),
        http(b'{"model":"stub","input":"Hi"}', target="/v1/embeddings"),
    ]
    threads = [threading.Thread(target=lambda data=data: replies.append(send(gateway.url, data))) for data in asked]
    gateway.process.send_signal(signal.SIGSTOP)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calls(gateway) == 0
    finally:
        gateway.process.send_signal(signal.SIGCONT)
    for reply in replies:
        check_refusal(reply, 503, "overloaded")
    eventually(lambda: gateway.chat().status_code == 200, timeout=30)
    assert gateway.chat("any/after").status_code == 200
    assert {request["body"]["model"] for request in gateway.seen("sandbox")} == {"stub", "after"}
    assert all(request["path"] == PATH for request in gateway.seen("sandbox"))


def test_nothing_passes_when_the_processors_socket_is_removed(start: Callable[..., Gateway]) -> None:
    """Envoy keeps its open connections, so requests are judged. Without a connection they are refused."""
    gateway = start(YAML, MOCKS, KEYS)
    path = processor_socket(gateway)
    away = path.with_suffix(".away")
    path.rename(away)
    try:
        for data in (http(without=["authorization"]), http(chat(model='"nope"')), http(target="/nope")):
            reply = send(gateway.url, data)
            assert reply is not None
            assert reply.status >= 400
        assert calls(gateway) == 0
    finally:
        away.rename(path)
    assert gateway.chat().status_code == 200


# --- cases from outside this repository

OUTSIDE = Path(os.environ.get("EXTPROC_JSON_CASES", "."))
outside = pytest.mark.skipif("EXTPROC_JSON_CASES" not in os.environ, reason="EXTPROC_JSON_CASES is not set")
DUPLICATE_KEYS = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}
"""Valid JSON that is refused, because two parsers could read it differently."""


def parsing_cases() -> list[tuple[str, bytes]]:
    found = [(file.name, file.read_bytes()) for file in sorted((OUTSIDE / "parsing").glob("[yni]_*.json"))]
    assert len(found) > 100
    return found


def strings() -> list[str]:
    found: list[str] = json.loads((OUTSIDE / "blns.json").read_text(encoding="utf-8"))
    return found


@outside
def test_json_parsing_cases_as_a_whole_body(target: Gateway) -> None:
    wrong = []
    for name, case in parsing_cases():
        reply = send(target.url, http(case))
        assert reply is not None, name
        code = reply.json()["error"]["code"]
        expected = {"n": ("invalid_json",), "y": ("invalid_request",), "i": ("invalid_json", "invalid_request")}[
            name[0]
        ]
        if name in DUPLICATE_KEYS:
            expected = ("invalid_json",)
        if reply.status != 400 or code not in expected:
            wrong.append((name, reply.status, code))
    assert wrong == []
    assert calls(target) == 0


@outside
def test_json_parsing_cases_inside_a_chat(target: Gateway) -> None:
    wrong = []
    for name, case in parsing_cases():
        target.reset()
        reply = send(target.url, http(embedded(case)))
        assert reply is not None, name
        good = name[0] == "y" and name not in DUPLICATE_KEYS
        allowed = {"n": (400,), "y": (200,) if good else (400,), "i": (200, 400)}[name[0]]
        if reply.status not in allowed or calls(target) != (reply.status == 200):
            wrong.append((name, reply.status, reply.body[:100]))
    assert wrong == []


@outside
def test_naughty_strings_as_content(target: Gateway) -> None:
    asked = [text for text in strings() if not re.search("AKIA[0-9A-Z]{16}", text)]
    for text in asked:
        reply = send(target.url, http(json.dumps(content(text)).encode()))
        assert reply is not None, text
        assert reply.status == 200, (text, reply)
    arrived = [request["body"]["messages"][0]["content"] for request in target.seen("sandbox")]
    assert arrived == asked


@outside
def test_naughty_strings_as_model(target: Gateway) -> None:
    wrong = []
    for text in strings():
        reply = send(target.url, http(chat(model=json.dumps(text))))
        if reply is None or not 400 <= reply.status < 500 or reply.headers["x-ai-error-origin"] != "gateway":
            wrong.append((text, reply))
    assert wrong == []
    assert calls(target) == 0


@outside
def test_naughty_strings_as_label(target: Gateway) -> None:
    legal = [text for text in strings() if not re.search("[\0-\x08\x0a-\x1f\x7f]", text)]
    asked = []
    for text in legal:
        reply = send(target.url, http(more=[("x-ai-agent", text)]))
        assert reply is not None, text
        assert reply.status == 200, (text, reply)
        asked.append(reply.headers["x-request-id"])
    for request in target.seen("sandbox"):
        assert {name for name, _ in request["headers"]} <= USUAL_HEADERS
    written = logged(target, asked)
    assert len(written) == len(legal)


# --- last: the state after everything above


def test_the_abuse_above_left_no_internal_error(gateway: Gateway) -> None:
    """After all tests of this file: no internal error, no open stream, no 5xx made by the gateway."""
    eventually(lambda: gateway.metric("extproc_exchanges_in_flight") == 0)
    assert gateway.metric("extproc_internal_errors_total") == 0
    errors = [line for line in log_lines(gateway) if line["event"] == "log" and line["level"] in ("error", "critical")]
    assert {line["message"] for line in errors} <= {
        "provider sandbox refuses the gateway's credential; its requests fail over, or fail"  # a test above
    }
    assert gateway.chat().status_code == 200
