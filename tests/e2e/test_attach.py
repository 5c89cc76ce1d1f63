"""Attach mode: the example for an Envoy that another team configures, with the addresses of this test, and `extproc
serve`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.conftest import Gateway, eventually, free_ports

Change = Callable[[dict[str, Any]], None]
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "envoy"
ENVOY = Path(os.environ.get("EXTPROC_ENVOY") or Path(sys.executable).with_name("envoy"))
KEY = "sk-gw-attached"
PROVIDER_KEY = "sk-provider"
EXTRA = """
budgets:
  - {name: few, match: {model: llama}, unit: requests, limit: 3, window: day}
guardrails:
  - {name: no-keys, kind: regex, patterns: {aws: 'AKIA[0-9A-Z]{16}'}}
  - {name: mask, kind: regex, "on": [output], action: mask, patterns: {fruit: 'PINEAPPLE'}}
  - {name: stop, kind: regex, "on": [output], patterns: {fruit: 'DURIAN'}}
attach: {client_headers: [x-tenant]}
stores: {counters: "memory:"}
"""


def settings(doors: dict[str, int], tls: Mapping[str, Any] | None = None) -> str:
    tree = yaml.safe_load((EXAMPLES / "attach.filter.yaml").read_text()) | yaml.safe_load(EXTRA)
    tree |= {name: {"address": "127.0.0.1", "port": doors[name]} for name in ("status", "admin")}
    tree["processor"] = {"address": f"127.0.0.1:{doors['processor']}"} | ({"tls": dict(tls)} if tls else {})
    return yaml.safe_dump(tree)


def bootstrap(
    doors: dict[str, int], change: Change = lambda _manager: None, socket: Mapping[str, Any] | None = None
) -> str:
    """The other team's Envoy with this test's addresses. The providers are mocks, which speak no TLS. `change` may edit
    the connection manager. `socket` is that of the processor's cluster.
    """
    tree = yaml.safe_load((EXAMPLES / "attach.envoy.yaml").read_text())
    (listener,) = tree["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": doors["listener"]}
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    [ours] = [one["typed_config"] for one in filters if one["name"] == "envoy.filters.http.ext_proc"]
    del ours["forward_rules"]  # as `extproc envoy --attach` prints it with `attach.client_headers`
    change(listener["filter_chains"][0]["filters"][0]["typed_config"])
    names = {"extproc": "processor", "openai": "openai", "local": "local"}
    for cluster in tree["static_resources"]["clusters"]:
        cluster.pop("transport_socket", None)
        (locality,) = cluster["load_assignment"]["endpoints"]
        address = {"address": "127.0.0.1", "port_value": doors[names[cluster["name"]]]}
        locality["lb_endpoints"][0]["endpoint"]["address"] = {"socket_address": address}
        if socket is not None and cluster["name"] == "extproc":
            cluster["transport_socket"] = socket
    return yaml.safe_dump(tree)


@contextmanager
def running(*command: str | Path, ready: str, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers at `ready`, in the directory of its log. It is ended at the end of the context."""
    whole = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=log.parent, env=whole, stdout=out, stderr=out)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return http.get(ready).status_code < 500
        except httpx.TransportError:
            return False

    try:
        with httpx.Client(timeout=1, trust_env=False, verify=False) as http:
            eventually(answers, 60)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def attached(
    folder: Path,
    change: Change = lambda _manager: None,
    *,
    tls: Mapping[str, Any] | None = None,
    socket: Mapping[str, Any] | None = None,
) -> Iterator[Gateway]:
    names = ("listener", "status", "admin", "processor", "openai", "local")
    doors = dict(zip(names, free_ports(len(names)), strict=True))
    urls = {name: f"http://127.0.0.1:{port}" for name, port in doors.items()}
    (folder / "gateway.yaml").write_text(settings(doors, tls))
    (folder / "envoy.yaml").write_text(bootstrap(doors, change, socket))
    extproc = (sys.executable, "-m", "extproc")
    env = {"OPENAI_API_KEY": PROVIDER_KEY, "GATEWAY_KEY": KEY}
    with ExitStack() as stack:

        def start(*command: str | Path, ready: str) -> subprocess.Popen[bytes]:
            return stack.enter_context(running(*command, ready=ready, log=folder / "log.txt", **env))

        for name, demanded in (("openai", ("--api-key", PROVIDER_KEY)), ("local", ())):
            double = (sys.executable, "-m", "tests.doubles", "--name", name, "--port", str(doors[name]), *demanded)
            start(*double, ready=urls[name] + "/healthz")
        serve = (*extproc, "serve", "--config", folder / "gateway.yaml", "--drain-notice", "0", "--drain-grace", "60")
        processor = start(*serve, ready=urls["status"] + "/readyz")
        options = ("--concurrency", "2", "--use-dynamic-base-id", "--log-level", "warn")
        start(ENVOY, "-c", folder / "envoy.yaml", *options, ready=urls["listener"])
        mocks = {name: urls[name] for name in ("openai", "local")}
        doors_of = (urls[name] for name in ("listener", "status", "admin"))
        gateway = Gateway(*doors_of, folder / "gateway.yaml", processor, mocks, folder / "log.txt")
        with gateway.http:
            yield gateway


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with attached(tmp_path_factory.mktemp("attach")) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def ask(gateway: Gateway, model: str = "gpt-6-luna", **fields: Any) -> httpx.Response:
    return gateway.chat(model, **{"key": KEY, **fields})


@pytest.mark.parametrize(("key", "code"), [(None, "missing_key"), ("sk-gw-wrong", "invalid_key")])
def test_a_key_is_needed(gateway: Gateway, key: str | None, code: str):
    spoofed = {"x-extproc-provider": "local"}
    answer = ask(gateway, key=key, headers=spoofed)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert answer.headers["x-ai-error-origin"] == "gateway"
    assert gateway.calls() == 0


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_guarded(gateway: Gateway, stream: bool):
    answer = ask(gateway, text="a PINEAPPLE", stream=stream)  # the mock repeats it
    assert answer.status_code == 200, answer.text
    assert "PINEAPPLE" not in answer.text
    assert "[FRUIT]" in answer.text
    answer = ask(gateway, text="a DURIAN", stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "guardrail_blocked")


def test_the_model_chooses_the_provider(gateway: Gateway):
    spoofed = {"x-extproc-provider": "local"}
    answer = ask(gateway, "gpt-6-luna", headers=spoofed)
    assert answer.status_code == 200, answer.text
    told = [answer.headers[f"x-ai-{name}"] for name in ("provider", "model", "attempts")]
    assert told == ["openai", "gpt-6-luna", "1"]
    assert [len(gateway.seen(name)) for name in gateway.mocks] == [1, 0]
    answer = ask(gateway, "llama")
    assert answer.headers["x-ai-provider"] == "local"
    assert gateway.seen("local")[0]["body"]["model"] == "meta-llama/Llama-3.3-70B-Instruct"


def test_providers_see_their_own_key_and_nothing_of_the_gateway_or_the_client(gateway: Gateway):
    ask(gateway, "gpt-6-luna", headers={"x-ai-agent": "planner"})
    ask(gateway, "llama")
    for name, key in (("openai", f"Bearer {PROVIDER_KEY}"), ("local", None)):
        headers = dict(gateway.seen(name)[0]["headers"])
        assert headers.get("authorization") == key
        assert not [header for header in headers if header.startswith(("x-extproc-", "x-ai-"))]
        assert KEY not in str(headers)


def test_headers_of_clients_stay_at_the_gateway_unless_they_are_listed(gateway: Gateway):
    theirs = {"openai-organization": "org-theirs", "referer": "https://intern.example/", "via": "1.1 theirs"}
    assert ask(gateway, headers={**theirs, "openai-beta": "responses=v1", "x-tenant": "red"}).status_code == 200
    seen = dict(gateway.seen("openai")[0]["headers"])
    assert (seen["openai-beta"], seen["x-tenant"]) == ("responses=v1", "red")
    assert not {*theirs, "x-extproc-id"} & {*seen}


def test_the_usage_of_a_stream_is_counted_and_hidden(gateway: Gateway):
    answer = ask(gateway, stream=True)
    assert b"total_tokens" not in answer.content
    assert answer.content.endswith(b"data: [DONE]\n\n")
    entry = gateway.last(lambda entry: entry.get("stream"))
    assert (entry["usage_source"], entry["input_tokens"], entry["output_tokens"]) == ("provider", 1, 3)
    assert (entry["provider"], entry["complete"]) == ("openai", True)


def test_a_plain_answer_is_counted(gateway: Gateway):
    body = ask(gateway).content
    entry = gateway.last(lambda entry: entry["status"] == 200 and not entry.get("stream"))
    assert (entry["usage_source"], entry["input_tokens"], entry["output_tokens"]) == ("provider", 1, 3)
    assert body == gateway.http.post(
        gateway.mocks["openai"] + "/v1/chat/completions",
        json=gateway.seen("openai")[0]["body"],
        headers={"authorization": f"Bearer {PROVIDER_KEY}"},
    ).content  # fmt: skip


def test_a_client_that_disconnects_is_recorded(gateway: Gateway):
    gateway.fault("openai", "words=500+pace=20ms")
    with gateway.stream("gpt-6-luna", key=KEY) as answer:
        pieces = answer.iter_raw()
        next(pieces)
    eventually(lambda: gateway.seen("openai")[0]["aborted"])
    entry = gateway.last(lambda entry: entry["error"] == "incomplete")
    assert entry["usage_source"] == "estimated"


def test_a_budget_refuses(gateway: Gateway):
    def status() -> int:
        return ask(gateway, "llama").status_code

    eventually(lambda: status() == 402)  # other tests may have spent some of it
    gateway.reset()
    answer = ask(gateway, "llama")
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "budget_exceeded")
    assert gateway.calls() == 0
    assert ask(gateway).status_code == 200, "it is the budget of the other model"


def test_a_guardrail_blocks(gateway: Gateway):
    answer = ask(gateway, text="AKIA" + "A" * 16)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "guardrail_blocked")
    assert gateway.calls() == 0


@pytest.mark.parametrize(
    ("fault", "status", "code", "origin"),
    [
        ("status=503", 503, "mock_fault", "provider"),
        ("status=401", 502, "provider_credential_rejected", "provider"),
        ("forge+status=400", 400, "mock_fault", "provider"),
    ],
)
def test_errors_name_their_origin(gateway: Gateway, fault: str, status: int, code: str, origin: str):
    gateway.fault("openai", fault)
    answer = ask(gateway)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert (answer.headers["x-ai-error-origin"], answer.headers["x-ai-provider"]) == (origin, "openai")


def test_gateway_headers_of_a_provider_are_removed(gateway: Gateway):
    gateway.fault("openai", "forge")
    answer = ask(gateway)
    assert answer.headers["x-ai-provider"] == "openai"
    assert not [name for name in answer.headers if name.startswith("x-extproc-")]


def test_an_unreachable_provider_is_reported_as_an_error_of_the_gateway(gateway: Gateway):
    gateway.fault("openai", "reset")
    assert ask(gateway).status_code == 503
    assert gateway.last(lambda entry: entry["status"] == 503)["usage_source"] == "none"


def test_models_are_listed(gateway: Gateway):
    answer = gateway.http.get(gateway.base_url + "/models", headers={"authorization": f"Bearer {KEY}"})
    assert {"gpt-6-luna", "llama"} <= {model["id"] for model in answer.json()["data"]}


def test_a_stopping_processor_ends_its_streams_first_and_then_nothing_passes(tmp_path: Path):
    with attached(tmp_path) as gateway:
        gateway.fault("openai", "words=50+pace=50ms")
        with gateway.stream("gpt-6-luna", key=KEY) as answer:
            pieces = answer.iter_raw()
            first = next(pieces)
            gateway.process.send_signal(signal.SIGTERM)
            assert (first + b"".join(pieces)).endswith(b"data: [DONE]\n\n")
        assert gateway.process.wait(70) == 0
        eventually(lambda: '"usage_source":"provider"' in gateway.log.read_text())
        before = len(gateway.seen("openai"))
        assert ask(gateway).status_code >= 500
        assert len(gateway.seen("openai")) == before
