"""The generated configuration at work, on a real Envoy."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from extproc.envoy.envoy_config import write_secrets
from extproc.words import contract

pytestmark = pytest.mark.e2e

FORGED = {
    "authorization": "Bearer of-the-client",
    "x-api-key": "of-the-client",
    "api-key": "of-the-client",
    "cookie": "a=b",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-forwarded-for": "192.0.2.1",
    "x-request-id": "of-the-client",
    "x-ai-team": "mine",
    "x-extproc-targets": "forged",
    "x-extproc-edits": "forged",
    "x-extproc-attend": "all",
    "x-envoy-max-retries": "9",
    "x-envoy-retry-on": "5xx",
    "x-envoy-upstream-rq-timeout-ms": "1",
}
CLIENT = {
    "x-other": "1",
    "cf-connecting-ip": "192.0.2.1",
    "via": "1.1 them",
    "referer": "https://intern/",
    "origin": "https://x",
    "user-agent": "theirs/1.0",
    "openai-organization": "org-theirs",
    "openai-project": "theirs",
    "forwarded": "for=x",
    "x-stainless-os": "Linux",
    "anthropic-beta": "context-1m",
    "http-referer": "https://intern/",
    "priority": "u=1",
}
"""Headers that clients, and proxies in front of the gateway, send."""


def retry(tries: int, on: str = "5xx", **headers: str) -> dict[str, str]:
    """The processor's headers for a request that may fail over."""
    return {"x-envoy-max-retries": str(tries - 1), "x-envoy-retry-on": on} | headers


def retry_429(tries: int) -> dict[str, str]:
    """The same on 429 only, which never ejects a provider."""
    return retry(tries, "retriable-status-codes") | {"x-envoy-retriable-status-codes": "429"}


def code(answer: httpx.Response) -> str:
    """The code of an answer by the gateway itself, in OpenAI's shape."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-ai-error-origin"] == "gateway"
    assert not [name for name in answer.headers if name.startswith(("x-extproc-", "x-envoy-"))]
    error = answer.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert error["message"].endswith(".")
    assert error["param"] is None
    return error["code"]


def hop_reasons(gateway) -> list[str | None]:
    return [headers.get(contract.HOP) for headers in gateway.processor.headers(contract.GATEWAY, "response")]


def test_a_provider_sees_its_own_key_and_no_header_of_the_client(gateway):
    gateway.processor.plan.order = ["a"]
    answer = gateway.post(headers=FORGED | CLIENT | {"accept-encoding": "gzip"}, json={"model": "m"})
    assert answer.status_code == 200
    (seen,) = gateway.providers["a"].seen
    assert seen.path == "/base/v2/chat/completions"
    assert json.loads(seen.body) == {"model": "m"}
    assert seen.headers == {
        "host": f"127.0.0.1:{gateway.providers['a'].port}",
        "authorization": "Bearer key-of-a",
        "accept-encoding": "identity",
        "accept": "*/*",
        "user-agent": "llm-extproc",
        "content-type": "application/json",
        "content-length": seen.headers["content-length"],
    }


def test_the_processor_sees_few_headers_and_no_forged_ones(gateway):
    gateway.processor.plan.order = ["a"]
    gateway.post(headers=FORGED | {"x-other": "1"})
    (seen,) = gateway.processor.headers(contract.GATEWAY, "request")
    assert seen[":method"], seen[":path"] == ("POST", "/v1/chat/completions")
    assert seen["authorization"] == "Bearer of-the-client"
    assert seen["x-ai-team"] == "mine"
    assert seen["x-request-id"] not in ("", "of-the-client")
    assert set(seen) - set(FORGED) == {":method", ":path", "content-type", "content-length"}
    assert not [name for name in seen if name.startswith((contract.PREFIX, "x-envoy-"))]
    (answered,) = gateway.processor.headers(contract.GATEWAY, "response")
    assert set(answered) == {":status", "content-length"}
    assert gateway.processor.attributes == [
        {
            "envoy.filters.http.ext_proc": {
                "upstream.request_attempt_count": 1.0,
                "response.code_details": "via_upstream",
            }
        }
    ]


def test_a_provider_cannot_forge_headers_or_instruct_envoy(gateway):
    gateway.processor.plan.order = ["a", "b"]
    gateway.processor.plan.headers = retry(2)
    forged = {contract.HOP: "connect", "x-ai-provider": "forged", "x-envoy-ratelimited": "true", "set-cookie": "a=b"}
    gateway.providers["b"].extra = forged | {"x-kept": "1", "server": "theirs"}
    gateway.providers["a"].extra = forged
    gateway.providers["a"].behave = 503  # with x-envoy-ratelimited Envoy would not have tried b
    answer = gateway.post()
    assert answer.status_code == 200
    assert not set(answer.headers) & set(forged)
    assert answer.headers["x-kept"] == "1"
    assert "envoy" not in answer.headers["server"]
    assert hop_reasons(gateway) == [None]
    assert not [name for name in answer.headers if name.startswith(("x-extproc-", "x-envoy-", "x-ai-"))]


def test_the_clients_request_id_is_replaced_and_returned(gateway):
    gateway.processor.plan.order = ["a"]
    gateway.providers["a"].extra = {"x-request-id": "of-the-provider"}
    answer = gateway.post(headers={"x-request-id": "of-the-client"})
    (asked,) = gateway.processor.headers(contract.GATEWAY, "request")
    (answered,) = gateway.processor.headers(contract.GATEWAY, "response")
    assert answer.headers["x-request-id"] == asked["x-request-id"]
    assert answered["x-request-id"] == "of-the-provider"


def test_the_attempt_attachment_runs_only_where_a_header_asks_for_it(gateway):
    gateway.processor.plan.order = ["b"]
    gateway.post()
    assert gateway.processor.headers(contract.ATTEMPT, "request") == []
    told = {contract.ATTEND: contract.ATTEND_ALL, contract.EDITS: "[]", contract.BACK_OFF: "5"}
    gateway.processor.plan.headers = told
    gateway.post()
    (seen,) = gateway.processor.headers(contract.ATTEMPT, "request")
    assert seen == told | {
        ":path": "/v1/chat/completions",
        "content-type": "application/json",
        contract.ID: "exchange-1",
        contract.TARGETS: "m-b",
        contract.ATTEMPT_COUNT: "1",
    }
    plain, attended = gateway.providers["b"].seen
    assert attended.headers == plain.headers | {"x-attempted": "yes"}  # set by the attachment; without x-extproc-secret
    assert plain.headers["x-org"] == "100%"


@pytest.mark.parametrize(
    ("which", "attended"), [(contract.ATTEND_ALL, ["1", "2", "3"]), (contract.ATTEND_LATER, ["2", "3"]), ("", [])]
)
def test_the_attempt_attachment_gets_the_number_of_the_try(gateway, which, attended):
    gateway.processor.plan.order = ["a", "a", "b"]
    gateway.processor.plan.headers = retry_429(3) | {contract.ATTEND: which}
    gateway.providers["a"].behave = 429
    assert gateway.post().status_code == 200
    seen = gateway.processor.headers(contract.ATTEMPT, "request")
    assert [headers[contract.ATTEMPT_COUNT] for headers in seen] == attended
    assert {headers[contract.TARGETS] for headers in seen} <= {"m-a,m-a,m-b"}
    tries = [*gateway.providers["a"].seen, *gateway.providers["b"].seen]
    assert [str(number) for number, one in enumerate(tries, 1) if "x-attempted" in one.headers] == attended


def test_an_order_may_hold_one_target_many_times(gateway):
    gateway.processor.plan.order = ["a"] * 8 + ["b"]
    gateway.processor.plan.headers = retry_429(9)
    gateway.providers["a"].behave = 429
    answer = gateway.post()
    assert (answer.status_code, len(gateway.providers["a"].seen)) == (200, 8)
    (attributes,) = gateway.processor.attributes
    assert attributes["envoy.filters.http.ext_proc"]["upstream.request_attempt_count"] == 9


def test_tries_follow_the_order_and_start_clean(gateway):
    gateway.processor.plan.order = ["b", "a"]
    gateway.processor.plan.headers = retry(2)
    gateway.providers["b"].behave = 503
    assert gateway.post().json() == {"served_by": gateway.providers["a"].port}
    (first,), (second,) = gateway.providers["b"].seen, gateway.providers["a"].seen
    assert first.headers["authorization"] == "Bearer key-of-b"
    assert second.headers["authorization"] == "Bearer key-of-a"
    assert "x-org" not in second.headers
    assert first.body == second.body
    assert gateway.processor.attributes[0]["envoy.filters.http.ext_proc"]["upstream.request_attempt_count"] == 2


def test_only_the_public_route_retries(gateway):
    gateway.processor.plan.order = ["a"]
    gateway.processor.plan.headers = retry(3)
    gateway.providers["a"].behave = 503
    assert gateway.post().status_code == 503
    assert len(gateway.providers["a"].seen) == 3


@pytest.mark.parametrize(
    ("status", "on", "tries"),
    [
        (429, {}, 1),
        (429, {"x-envoy-retry-on": "retriable-status-codes", "x-envoy-retriable-status-codes": "429,408"}, 2),
        (401, {"x-envoy-retry-on": "5xx,reset"}, 1),
        (500, {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "0"}, 1),
    ],
)
def test_the_statuses_to_retry_are_set_for_each_request(gateway, status, on, tries):
    gateway.processor.plan.order = ["a", "b"]
    gateway.processor.plan.headers = {"x-envoy-max-retries": "1"} | on
    gateway.providers["a"].behave = status
    answer = gateway.post()
    assert answer.status_code == (200 if tries == 2 else status)
    assert len(gateway.providers["b"].seen) == tries - 1


@pytest.mark.parametrize("condition", ["5xx", "reset"])
def test_a_try_has_its_own_timeout(gateway, condition):
    gateway.processor.plan.order = ["a", "b"]
    gateway.processor.plan.headers = retry(2, condition) | {"x-envoy-upstream-rq-per-try-timeout-ms": "200"}
    gateway.providers["a"].behave = "hang"
    assert gateway.post().status_code == 200
    gateway.processor.plan.order = ["a"]
    gateway.processor.plan.headers = {"x-envoy-upstream-rq-per-try-timeout-ms": "200"}
    answer = gateway.post()
    assert (answer.status_code, code(answer)) == (504, "provider_timeout")


@pytest.mark.parametrize(
    ("provider", "status", "expected", "reason"),
    [
        ("down", 503, "no_provider_available", "connect"),
        ("slow", 504, "provider_timeout", "timeout"),
        ("keyless", 502, "provider_credential_rejected", "credential"),
        ("impostor", 503, "no_provider_available", "connect"),
    ],
)
def test_the_hop_reports_the_reason_for_a_missing_answer(gateway, provider, status, expected, reason):
    gateway.providers["a"].behave = "hang"
    gateway.processor.plan.order = [provider]
    answer = gateway.post()
    assert (answer.status_code, code(answer)) == (status, expected)
    assert provider in answer.json()["error"]["message"]
    assert hop_reasons(gateway) == [reason]
    gateway.processor.plan.order = [provider, "b"]
    gateway.processor.plan.headers = retry(2, "retriable-headers") | {"x-envoy-retriable-header-names": contract.HOP}
    assert gateway.post().json() == {"served_by": gateway.providers["b"].port}
    assert gateway.providers["c"].seen == []


def test_a_reset_by_the_provider_is_reported(gateway):
    gateway.providers["a"].behave = "reset"
    gateway.processor.plan.order = ["a"]
    answer = gateway.post()
    assert (answer.status_code, code(answer), hop_reasons(gateway)) == (503, "no_provider_available", ["reset"])


def test_a_full_provider_fails_over_at_once(gateway):
    gateway.processor.plan.order = ["narrow"]
    gateway.providers["b"].behave = 0.3
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: gateway.post(), range(4)))
        assert max(answer.status_code for answer in answers) == 503
        assert {code(answer) for answer in answers if answer.status_code == 503} == {"no_provider_available"}
        assert "overflow" in hop_reasons(gateway)
        gateway.processor.plan.order = ["narrow", "a"]
        gateway.processor.plan.headers = retry(2)
        assert {answer.status_code for answer in pool.map(lambda _: gateway.post(), range(4))} == {200}


def test_the_only_host_of_a_provider_is_never_ejected(gateway):
    gateway.processor.plan.order = ["fragile"]
    gateway.providers["b"].behave = 500
    assert [gateway.post().status_code for _ in range(3)] == [500] * 3
    gateway.processor.plan.order = ["down"]
    assert [code(gateway.post()) for _ in range(7)] == ["no_provider_available"] * 7
    assert set(hop_reasons(gateway)[-7:]) == {"connect"}


def test_keys_rotate_and_are_revoked(gateway, monkeypatch):
    gateway.processor.plan.order = ["keyless"]
    for key in ("first", "second", None):
        if key is None:
            monkeypatch.delenv("MISSING_KEY")
        else:
            monkeypatch.setenv("MISSING_KEY", key)
        monkeypatch.setenv("A_KEY", "key-of-a")
        monkeypatch.setenv("B_KEY", "key-of-b")
        write_secrets(gateway.settings, gateway.secrets)
        wanted = 502 if key is None else f"Bearer {key}"
        for _ in range(40):
            status = gateway.post(headers={"authorization": "Bearer of-the-client"}).status_code
            if wanted in (status, gateway.providers["a"].seen[-1].headers["authorization"]):
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"Envoy does not use {wanted}")
    assert {seen.headers["authorization"] for seen in gateway.providers["a"].seen} == {"Bearer first", "Bearer second"}


def test_tls_is_verified(gateway):
    gateway.processor.plan.order = ["secure"]
    assert gateway.post().status_code == 200
    assert gateway.providers["c"].seen[0].headers["host"] == f"localhost:{gateway.providers['c'].port}"
    gateway.processor.plan.order = ["impostor"]
    assert code(gateway.post()) == "no_provider_available"


def test_silence_mid_stream_is_allowed_beyond_the_timeout(gateway):
    """`slow` has a timeout of 1 s until its answer begins. After that it may be silent for longer."""
    gateway.processor.plan.order = ["slow"]
    gateway.providers["a"].behave = 0.7
    answer = gateway.post()
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() > 1.3


def test_the_processor_can_ask_for_the_answers_body_at_its_headers(gateway):
    gateway.processor.plan.order = ["a"]
    gateway.post()
    assert gateway.processor.watched == b""
    gateway.processor.plan.watch = True
    answer = gateway.post()
    assert answer.status_code == 200
    assert gateway.processor.watched == answer.content


def test_a_request_without_an_order_is_a_503(gateway):
    answer = gateway.post()
    assert (answer.status_code, code(answer)) == (503, "no_provider_available")
    gateway.processor.plan.order = ["nobody", "a"]  # has no cluster, so the rest is not tried
    gateway.processor.plan.headers = retry(2)
    assert code(gateway.post()) == "no_provider_available"
    assert gateway.providers["a"].seen == []


def test_without_the_processor_nothing_passes(gateway):
    gateway.processor.plan.crash = True
    answer = gateway.post()
    assert (answer.status_code, code(answer)) == (500, "internal_error")
    assert not [seen for provider in gateway.providers.values() for seen in provider.seen]


def test_the_processors_refusals_pass_unchanged(gateway):
    gateway.processor.plan.refuse = 402
    answer = gateway.post()
    assert answer.status_code == 402
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.content == b'{"mine":"100%"}'


@pytest.mark.parametrize("path", ["/", "/v1/other", "/v1/chat%2Fcompletions", "/v1//models/../secret"])
def test_an_unknown_path_is_a_404(gateway, path):
    answer = gateway.post(path)
    assert (answer.status_code, code(answer)) == (404, "path_not_found")


def test_an_escaped_slash_reaches_the_processor(gateway):
    gateway.client.get("/v1/models/openai%2Fgpt-4o")
    gateway.client.get("/v1//models")
    seen = gateway.processor.headers(contract.GATEWAY, "request")
    assert [headers[":path"] for headers in seen] == ["/v1/models/openai%2Fgpt-4o", "/v1/models"]


def test_a_body_that_is_too_large_is_refused_with_its_limit(gateway):
    answer = gateway.post(content=b"x" * 70_000)
    assert (answer.status_code, code(answer)) == (413, "body_too_large")
    assert "64KiB" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nx_ai_team: a\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", 404),
    ],
)
def test_a_malformed_request_gets_an_error_in_shape(gateway, request_, status):
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as connection:
        connection.sendall(request_)
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["error"]["code"] == ("path_not_found" if status == 404 else "invalid_request")


def test_every_try_is_logged_with_its_target_and_number(gateway):
    gateway.processor.plan.order = ["down", "b"]
    gateway.processor.plan.headers = retry(2) | {contract.ID: "logged"}
    told = {"retry-after": "7", "x-request-id": "of-the-provider", "content-type": "text/event-stream"}
    gateway.providers["b"].extra = told
    request_id = gateway.post().headers["x-request-id"]

    def mine(entry) -> bool:
        return entry.common_properties.metadata.to_dict()["filterMetadata"]["ai"]["id"] == "logged"

    def public(entry) -> bool:
        return entry.request.request_id == request_id

    (failed,) = gateway.processor.log_entries("try-down", mine)
    (served,) = gateway.processor.log_entries("try-b", mine)
    assert failed.response.response_headers == {contract.HOP: "connect", "content-type": "application/json"}
    assert failed.common_properties.response_flags.upstream_connection_failure
    metadata = served.common_properties.metadata.to_dict()["filterMetadata"]["ai"]
    assert metadata == {"id": "logged", "attempt": 2, "targets": "m-down,m-b"}
    assert served.response.response_headers == told
    assert served.request.request_body_bytes == len(b'{"model":"m"}')
    assert served.response.response_body_bytes > 0
    assert served.common_properties.time_to_first_upstream_rx_byte is not None
    gateway.client.get("/nowhere")
    (unseen,) = gateway.processor.log_entries(contract.GATEWAY_LOG, lambda entry: entry.request.path == "/nowhere")
    assert unseen.response.response_code_details == "direct_response"
    assert not [
        entry for log, entry in gateway.processor.logs if log == contract.GATEWAY_LOG and public(entry)
    ]  # the gateway attachment saw the end
