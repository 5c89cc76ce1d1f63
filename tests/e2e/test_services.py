"""Guardrails that ask services, through Envoy: they pass, refuse and mask, and the services fail in every way."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from extproc.wire.outbound.breaker import FAILURES, PAUSE
from tests.doubles.answers import Refused
from tests.doubles.credentials import Asked, Keys, aws
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.scripted import Scripted, head, plain
from tests.guardrails.services import KINDS, MASKS, chat, judge, real
from tests.guardrails.streams import heard, stream
from tests.outbound.endpoint import keeping

PLACES = {
    "http://hook.test": "hook",
    "https://azure.test": "azure",
    "http://presidio.test": "presidio",
}
HOSTS = {"hook": "hook.test", "azure": "azure.test", "presidio": "presidio.test", "oa": "oa.test", "aws": "aws.test"}
YAML = """
providers:
  chat: {kind: vllm, base_url: "PROVIDER/v1", outlier_detection: {consecutive_5xx: 10000}}
  judge: {kind: vllm, base_url: "SERVICES/judge/v1", outlier_detection: {consecutive_5xx: 10000}}
  oa: {kind: openai, base_url: "SERVICES/oa/v1", api_key: env:SERVICE_KEY}
  aws: {kind: aws_bedrock, region: eu-west-1, base_url: "SERVICES/aws", api_key: env:SERVICE_KEY}
  signed: {kind: aws_bedrock, region: eu-west-1, base_url: "SERVICES/signed"}
models:
  chat: {provider: chat}
  m: {provider: judge, price: {input: 1.00, output: 2.00}}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: judge, keys: [{env: JUDGE_KEY}], models: [m]}
guardrails:
GUARDRAILS
  - {name: everyone, kind: llm_judge, model: m, consumer: judge, rubric: 'Nothing that is BAD may pass here.',
     action: audit, applies_to: {consumers: [judge]}}
stores: {counters: "memory:"}
"""

TOKEN = "entra-token"
ROLE = {
    "AccessKeyId": "ASIAROLE",
    "SecretAccessKey": "role-secret",
    "Token": "role-token",
    "Expiration": "2099-01-01T00:00:00Z",
}


class Services:
    """The services that guardrails ask. `fault` takes the place of their answers."""

    def __init__(self) -> None:
        self.fault: Callable[[Any], None] | None = None
        self.asked: list[str] = []

    def answer(self, handler: Any) -> None:
        name, _, path = handler.path[1:].partition("/")
        if name in ("role", "acme"):
            given = dict(parse_qsl(handler.body.decode()))
            token = TOKEN if given.get("client_secret") == "entra-secret" else "refused"
            give(
                handler,
                200,
                json.dumps(ROLE if name == "role" else {"access_token": token, "expires_in": 3600}).encode(),
            )
            return
        body = json.loads(handler.body)
        self.asked.append(name)
        if self.fault is not None:
            self.fault(handler)
            return
        if name == "judge":
            status, said = 200, judge(body)
        else:
            headers = {key.lower(): value for key, value in handler.headers.items()}
            if headers.get("authorization") == f"Bearer {TOKEN}":
                headers = {"ocp-apim-subscription-key": "service-key"}
            try:
                if name == "signed":
                    name, headers = "aws", signed(handler)
                status, said = real(HOSTS[name], f"/{path}", headers, body)
            except (AssertionError, KeyError, Refused):
                status, said = 400, {"error": "no such request"}
        give(handler, status, json.dumps(said).encode())


def give(handler: Any, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def signed(handler: Any) -> dict[str, str]:
    """The headers of a request with a key, in the place of one that Envoy has signed with the role's credentials."""
    headers = [(key.lower().encode(), value.encode()) for key, value in handler.headers.items()]
    keys = {"AWS_ACCESS_KEY_ID": "ASIAROLE", "AWS_SECRET_ACCESS_KEY": "role-secret", "AWS_SESSION_TOKEN": "role-token"}
    assert dict(headers)[b"authorization"].startswith(b"AWS4-HMAC-SHA256 ")
    aws(Keys(aws=keys), Asked("POST", handler.path, "", headers, handler.body))
    return {"authorization": "Bearer service-key"}


def slow(handler: Any) -> None:
    time.sleep(0.8)
    with suppress(OSError):
        give(handler, 200, b"{}")


def dead(handler: Any) -> None:
    handler.close_connection = True


FAULTS: dict[str, Callable[[Any], None]] = {
    "slow": slow,
    "dead": dead,
    "garbage": lambda handler: give(handler, 200, b"<html>CANARY</html>"),
    "failing": lambda handler: give(handler, 500, b'{"verdict": "allow"}'),
}


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Services, str]]:
    made = Services()
    with keeping(made.answer) as (address, _):
        yield made, f"http://{address}"


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, provider: Scripted, services: tuple[Services, str]
) -> Iterator[Gateway]:
    url = services[1]
    lines = []
    for kind, entry in KINDS.items():
        for place, path in PLACES.items():
            entry = entry.replace(place, f"{url}/{path}")  # noqa: PLW2901
        common = f"{entry}, on: [input, output], window: 300, overlap: 60, applies_to: {{consumers: []}}"
        wait = "700ms" if kind == "llm_judge" else "400ms"
        lines += [
            f"  - {{name: {kind}, {common}, timeout: 9s}}",
            f"  - {{name: {kind}-block, {common}, timeout: 9s, action: block}}",
            f"  - {{name: {kind}-audit, {common}, timeout: 9s, action: audit}}",
            f"  - {{name: {kind}-closed, {common}, timeout: {wait}}}",
            f"  - {{name: {kind}-open, {common}, timeout: {wait}, failure: open}}",
        ]
    everyone = "applies_to: {consumers: []}, on: [input, output], action: block, timeout: 9s"
    lines.append(f"  - {{name: role, kind: bedrock, provider: signed, guardrail: abc123, version: '3', {everyone}}}")
    entra = "{azure: {tenant: acme, client_id: app, client_secret: env:ENTRA_SECRET}}"
    lines.append(
        f"  - {{name: entra, kind: azure_content_safety, url: '{url}/azure', credentials: {entra}, {everyone}}}"
    )
    hang = "applies_to: {consumers: []}, timeout: 200ms"
    lines.append(f"  - {{name: hang, kind: webhook, url: '{url}/hook/check', key: env:SERVICE_KEY, {hang}}}")
    lines.append("  - {name: nowhere, kind: webhook, url: 'http://127.0.0.1:1/', applies_to: {consumers: []}}")
    text = YAML.replace("GUARDRAILS", "\n".join(lines)).replace("PROVIDER", provider.url).replace("SERVICES", url)
    env = {
        "SERVICE_KEY": "service-key",
        "JUDGE_KEY": "judge-key",
        "ENTRA_SECRET": "entra-secret",
        "AZURE_AUTHORITY_HOST": url,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/role",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "pod",
    }
    yield from run_gateway(tmp_path_factory.mktemp("services"), text, (), env)


@pytest.fixture
def gateway(shared: Gateway, services: tuple[Services, str], provider: Scripted) -> Gateway:
    services[0].fault = None
    services[0].asked.clear()
    provider.answer(plain(chat("All is well")))
    return shared


def send(gateway: Gateway, text: str, guardrail: str, **more: Any) -> httpx.Response:
    return gateway.chat("chat", text, headers={"x-ai-guardrails": guardrail}, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_requests_pass_are_refused_and_masked(gateway: Gateway, provider: Scripted, kind: str):
    answer = send(gateway, "All is well", kind)
    assert (answer.status_code, "x-ai-guardrails" in answer.headers) == (200, False)
    provider.seen.clear()
    refused = send(gateway, "This is BAD", f"{kind}-block")
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "guardrail_blocked"
    assert refused.headers["x-ai-guardrails"] == f"{kind}-block:block"
    assert provider.seen == []
    [verdict] = gateway.verdicts_of(refused)
    assert (verdict["on"], verdict["action"], sum(verdict["findings"].values())) == ("input", "block", 1)
    answer = send(gateway, "This is BAD", f"{kind}-audit")
    assert answer.status_code == 200
    assert [verdict["action"] for verdict in gateway.verdicts_of(answer)] == ["audit"]
    if kind in MASKS:
        provider.seen.clear()
        assert send(gateway, "I am MASKME, ok", kind).headers["x-ai-guardrails"] == f"{kind}:mask"
        [sent] = provider.seen
        text = sent["messages"][0]["content"]
        assert text.startswith("I am ")
        assert text.endswith(", ok")
        assert "MASKME" not in text
    count = gateway.metric("extproc_guardrail_call_seconds_count", guardrail=kind, outcome="ok")
    assert count >= 1


@pytest.mark.parametrize("guardrail", ["role", "entra"])
def test_credentials_of_roles_and_applications(gateway: Gateway, provider: Scripted, guardrail: str):
    assert send(gateway, "All is well", guardrail).status_code == 200
    assert send(gateway, "This is BAD", guardrail).json()["error"]["code"] == "guardrail_blocked"
    provider.answer(plain(chat("This is BAD")))
    assert send(gateway, "Hello", guardrail).json()["error"]["code"] == "guardrail_blocked"


@pytest.mark.parametrize("kind", KINDS)
def test_answers_pass_are_refused_and_masked(gateway: Gateway, provider: Scripted, kind: str):
    provider.answer(plain(chat("This is BAD")))
    assert send(gateway, "Hello", f"{kind}-block").status_code == 400

    def streamed(*pieces: str, guardrail: str) -> tuple[int, bytes]:
        events = [event + b"\n\n" for event in stream("openai_chat", pieces).split(b"\n\n") if event]
        provider.answer(head("text/event-stream"), *events)
        answer = send(gateway, "Hello", guardrail, stream=True)
        return answer.status_code, answer.content

    clean = ["More words. "] * 100
    status, body = streamed(*clean, guardrail=kind)
    assert (status, heard("openai_chat", body)["text"]) == (200, "".join(clean))
    status, body = streamed("This is B", "AD", *clean, guardrail=f"{kind}-block")
    assert (status, json.loads(body)["error"]["code"]) == (400, "guardrail_blocked")
    status, body = streamed(*clean, "This is B", "AD", *clean, guardrail=f"{kind}-block")
    said = heard("openai_chat", body)
    assert status == 200
    assert said["error"]["code"] == "guardrail_blocked"
    assert "BAD" not in said["text"]
    assert 300 <= len(said["text"]) <= 1300
    if kind in MASKS:
        status, body = streamed(*clean, "I am MAS", "KME, ok. ", *clean, guardrail=kind)
        said = heard("openai_chat", body)
        assert (status, said["error"]) == (200, None)
        before, after = said["text"].split("I am ")
        assert (before, after.endswith(", ok. " + "".join(clean))) == ("".join(clean), True)
        assert b"MASKME" not in body


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_that_fails_refuses_or_passes(
    gateway: Gateway, provider: Scripted, services: tuple[Services, str], kind: str
):
    for name, fault in FAULTS.items():
        services[0].fault = fault
        provider.answer(plain(chat("All is well")))
        refused = send(gateway, "All is well", f"{kind}-closed")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "guardrail_unavailable"), name
        assert "CANARY" not in refused.text
        assert provider.seen == []
        assert refused.headers["x-ai-guardrails"] == f"{kind}-closed:failed"
        assert send(gateway, "All is well", f"{kind}-open").status_code == 200, name
        services[0].fault = None
        eventually(lambda: send(gateway, "All is well", f"{kind}-closed").status_code == 200)
    assert gateway.metric("extproc_guardrail_failures_total", guardrail=f"{kind}-open") >= 4


def test_a_service_that_fails_in_the_middle_of_an_answer(
    gateway: Gateway, provider: Scripted, services: tuple[Services, str]
):
    events = [event + b"\n\n" for event in stream("openai_chat", ["More words. "] * 300).split(b"\n\n") if event]

    def script() -> Iterator[bytes]:
        services[0].fault = None
        yield head("text/event-stream")
        for index, event in enumerate(events):
            if index == 150:
                eventually(lambda: services[0].asked.count("hook") >= 2)
                services[0].fault = FAULTS["failing"]
            yield event

    provider.script = script
    for guardrail, error in (("webhook", "guardrail_unavailable"), ("webhook-open", None)):
        services[0].asked.clear()
        answer = send(gateway, "Hello", guardrail, stream=True)
        said = heard("openai_chat", answer.content)
        assert answer.status_code == 200
        assert (said["error"] and said["error"]["code"]) == error
        assert (said["text"] == "More words. " * 300) is (error is None)


def test_nothing_but_the_record_waits_for_an_audit(
    gateway: Gateway, provider: Scripted, services: tuple[Services, str]
):
    held = threading.Event()

    def hold(handler: Any) -> None:
        assert held.wait(8)  # less than the time limit, so a client that waited would get an answer without a verdict
        services[0].fault = None
        services[0].answer(handler)

    def streamed() -> None:
        events = stream("openai_chat", ["More words. "] * 100 + ["This is B", "AD"])
        provider.answer(head("text/event-stream"), *[event + b"\n\n" for event in events.split(b"\n\n") if event])

    for on, text in (("input", "This is BAD"), ("output", "Hello")):
        held.clear()
        services[0].fault = hold
        if on == "output":
            streamed()
        answer = send(gateway, text, "webhook-audit", stream=on == "output")
        assert answer.status_code == 200
        assert "x-ai-guardrails" not in answer.headers
        assert not any(entry["request_id"] == answer.headers["x-request-id"] for entry in gateway.exchanges())
        held.set()
        [verdict] = gateway.verdicts_of(answer)
        assert (verdict["on"], verdict["action"], sum(verdict["findings"].values())) == (on, "audit", 1)


def test_a_stop_loses_no_verdict_of_an_audit(start: Any, services: tuple[Services, str]):
    def late(handler: Any) -> None:
        time.sleep(5)  # a stop gives Envoy three seconds
        services[0].fault = None
        services[0].answer(handler)

    services[0].fault = late
    gateway = start(
        f"""
        providers: {{sandbox: {{kind: mock, base_url: "{{mock_sandbox}}"}}}}
        models: {{chat: {{provider: sandbox}}}}
        consumers: [{{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}]
        guardrails:
          - {{name: late, kind: webhook, url: '{services[1]}/hook/check', key: env:SERVICE_KEY, timeout: 9s,
             action: audit}}
        stores: {{counters: "memory:", ledger: "sqlite:ledger.db"}}
        """,
        env={"SERVICE_KEY": "service-key"},
    )
    assert gateway.chat("chat", "This is BAD").status_code == 200
    assert gateway.stop() == 0
    with closing(sqlite3.connect(gateway.file.parent / "ledger.db")) as ledger:
        assert ledger.execute("SELECT guardrails FROM exchanges").fetchall() == [('["late:audit"]',)]
        [(event,)] = ledger.execute("SELECT event FROM audit WHERE event LIKE '%\"guardrail\"%'").fetchall()
        assert json.loads(event)["extproc"]["action"] == "audit"


def test_a_service_that_hangs_holds_five_requests_only(
    gateway: Gateway, provider: Scripted, services: tuple[Services, str]
):
    services[0].fault = slow
    answers = [send(gateway, "x", "hang").status_code for _ in range(FAILURES)]
    began = time.monotonic()
    answers += [send(gateway, "x", "hang").status_code for _ in range(9 - FAILURES)]
    took, probes, due = time.monotonic() - began, 0, PAUSE
    while due + 0.2 <= took:  # each probe waits for its pause, and holds its request for the service's time limit
        probes, due = probes + 1, due + 0.2 + PAUSE * 2 ** (probes + 1)
    assert answers == [503] * 9
    failed = {
        reason: gateway.metric("extproc_guardrail_failures_total", guardrail="hang", reason=reason)
        for reason in ("timeout", "unavailable")
    }
    assert failed["timeout"] + failed["unavailable"] == 9
    assert FAILURES <= failed["timeout"] <= FAILURES + probes
    services[0].fault = None
    eventually(lambda: send(gateway, "x", "hang").status_code == 200)


def test_a_host_that_is_not_there(gateway: Gateway):
    assert send(gateway, "x", "nowhere").status_code == 503
    assert gateway.metric("extproc_guardrail_failures_total", guardrail="nowhere", reason="unreachable") == 1


def test_a_judgement_is_an_exchange_with_a_cost_and_is_not_judged(gateway: Gateway, services: tuple[Services, str]):
    before = len(services[0].asked)
    answer = send(gateway, "All is well", "llm_judge")
    assert answer.status_code == 200
    assert len(services[0].asked) == before + 2  # the request and its answer; no judge of the judge
    row = gateway.last(lambda entry: entry.get("consumer") == "judge")
    assert (row["status"], row["labels"]["guardrail"]) == (200, "llm_judge")
    assert row["cost_usd"] > 0
    assert row["id"] not in gateway.http.get(f"{gateway.admin}/audit?limit=200").text


def test_no_text_and_no_key_is_written_to_any_output(gateway: Gateway):
    for kind in KINDS:
        send(gateway, "The word is CANARY7 and BAD", f"{kind}-block")
        send(gateway, "The word is CANARY7 and MASKME", kind)
    everything = gateway.log.read_text() + json.dumps(gateway.exchanges())
    everything += gateway.http.get(gateway.status + "/metrics").text
    for word in ("CANARY7", "service-key", "judge-key", "entra-secret", TOKEN, "role-secret", "role-token", KEY):
        assert word not in everything
