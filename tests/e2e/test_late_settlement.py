"""Batches and background responses are held when they are created and settled when they end, whether their client asks
or not: one row each, with the tokens and the cost that the provider bills.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic, BadRequestError, NotFoundError, PermissionDeniedError
from google import genai
from google.genai.errors import ClientError
from openai import OpenAI

from tests.doubles.batches import input_of, output_of
from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway

YAML = """
providers:
  openai: {kind: openai, base_url: "{mock_openai}", api_key: env:OPENAI_KEY}
  claude: {kind: anthropic, base_url: "{mock_claude}", api_key: env:CLAUDE_KEY}
  google: {kind: gcp_gemini, base_url: "{at_google}/v1beta", api_key: env:GOOGLE_KEY}
models:
  gpt-4.1: {provider: openai}
  gpt-5.4: {provider: openai}
  mine: {provider: openai, model: gpt-4.1-mini, price: {input: 100, output: 200}}
  flash: {provider: google, model: gemini-2.5-flash}
  haiku: {provider: claude, model: claude-haiku-4-5}
  opus: {provider: claude, model: claude-opus-4-5}
consumers:
  - {name: demo, models: [gpt-4.1, gpt-5.4, mine, haiku, flash], keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: other, keys: [{env: OTHER_KEY}]}
stores: {counters: "sqlite:counters.db", ledger: "sqlite:ledger.db"}
guardrails: [{name: no-keys, kind: regex, on: [input], patterns: {aws: 'AKIA[0-9A-Z]{16}'}}]
budgets:
  - {name: money, unit: usd, limit: 1000, window: total}
  - {name: tokens, unit: tokens, limit: 100000000, window: total}
  - {name: busy, unit: concurrency, limit: 50}
"""
MOCKS = ("openai", "claude", "google")
ENV = {"OPENAI_KEY": "sk-openai", "CLAUDE_KEY": "sk-claude", "GOOGLE_KEY": "sk-google", "OTHER_KEY": "sk-gw-other"}
ENDPOINT: Any = "/v1/chat/completions"
HAIKU, FLASH = (0.5, 2.5), (0.15, 1.25)
GPT = (1.0, 4.0)  # USD per million tokens in a batch of gpt-4.1: half of the plain price


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(tmp_path_factory.mktemp("late"), YAML, MOCKS, ENV)


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.begin()
    return running


@pytest.fixture
def sdk(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)


def create(sdk: OpenAI, *names: str, model: str = "gpt-4.1", **more: Any) -> str:
    """A batch with requests of these ids."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}
    lines = [{"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body} for name in names]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = sdk.files.create(file=("in.jsonl", content), purpose="batch")
    made = sdk.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", **more)
    return made.id


def claude(gateway: Gateway, key: str = KEY) -> Anthropic:
    return Anthropic(base_url=gateway.base_url.removesuffix("/v1"), api_key=key, max_retries=0)


def google(gateway: Gateway, key: str = KEY) -> genai.Client:
    options: Any = {"base_url": gateway.base_url.removesuffix("/v1"), "retry_options": {"attempts": 1}}
    return genai.Client(api_key=key, http_options=options)


def create_messages(sdk: Anthropic, *names: str, model: str = "haiku", **more: Any) -> str:
    """A batch with requests of these ids."""
    params: Any = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, **more}
    return sdk.messages.batches.create(requests=[{"custom_id": name, "params": params} for name in names]).id


def row(gateway: Gateway, id: str) -> dict[str, Any]:
    """The row of an exchange, once its usage is known."""

    def find() -> dict[str, Any] | None:
        with closing(sqlite3.connect(gateway.file.parent / "ledger.db")) as ledger:
            ledger.row_factory = sqlite3.Row
            [found] = ledger.execute("SELECT * FROM exchanges WHERE id = ?", (id,)).fetchall() or [None]
            return None if found is None or found["usage_source"] == "pending" else dict(found)

    return eventually(find)  # type: ignore[no-any-return]


def made(gateway: Gateway, operation: str) -> str:
    """The id of the latest exchange whose usage is not known yet."""
    latest = gateway.last(lambda entry: entry["operation"] == operation)
    assert (latest["usage_source"], latest["cost_usd"]) == ("pending", 0)
    return str(latest["id"])


def agree(gateway: Gateway) -> None:
    """The counters have what the ledger has, and nothing is held."""

    def counts(name: str) -> tuple[int, int]:
        with closing(sqlite3.connect(gateway.file.parent / "counters.db")) as db:
            query = "SELECT total(settled), total(reserved) FROM counts WHERE scope = ?"
            settled, reserved = db.execute(query, (name,)).fetchone()
            return int(settled), int(reserved)

    def charged(name: str) -> int:
        with closing(sqlite3.connect(gateway.file.parent / "ledger.db")) as ledger:
            query = f"SELECT total(json_extract(charges, '$.{name}')) FROM exchanges"
            return int(ledger.execute(query).fetchone()[0])

    for name in ("money", "tokens"):
        eventually(lambda name=name: counts(name) == (charged(name), 0))  # type: ignore[misc]
    assert counts("busy") == (0, 0)


def tokens(*numbers: int) -> tuple[int, int]:
    return sum(map(input_of, numbers)), sum(map(output_of, numbers))


def cost(given: int, written: int, prices: tuple[float, float] = GPT) -> int:
    """Nano-USD."""
    return round(given * prices[0] * 1000 + written * prices[1] * 1000)


BATCHES: dict[str, tuple[tuple[str, ...], dict[str, Any], tuple[int, ...], tuple[float, float]]] = {
    "all are answered": (("a", "b", "c"), {}, (0, 1, 2), GPT),
    "some fail": (("a", "fail-1", "c"), {}, (0, 2), GPT),
    "some expire": (("a", "expire-1", "expire-2"), {}, (0,), GPT),
    "none is answered": (("fail-1", "fail-2"), {}, (), GPT),
    "the file alone has the usage": (("a", "fail-1", "c"), {"metadata": {"old": "1"}}, (0, 2), GPT),
    "half is cancelled": (("a", "b", "c", "d"), {}, (0, 1), GPT),
    # the sum of 300 prompts is beyond the start of a dearer tier, and none of them is
    "a model with tiers": (
        tuple(f"r{number}" for number in range(300)),
        {"model": "gpt-5.4"},
        (*range(300),),
        (1.25, 7.5),
    ),
    "a price of the settings is halved": (("a", "b"), {"model": "mine"}, (0, 1), (50, 100)),
}


def test_batches_are_settled_when_they_end_without_a_client(gateway: Gateway, sdk: OpenAI) -> None:
    found = {}
    for name, (names, more, *_) in BATCHES.items():
        batch = create(sdk, *names, **more)
        found[name] = made(gateway, "create_batch")
        if name == "half is cancelled":
            assert sdk.batches.cancel(batch).status == "cancelling"
    for name, (*_, answered, prices) in BATCHES.items():
        ended, used = row(gateway, found[name]), tokens(*answered)
        assert (ended["input_tokens"], ended["output_tokens"], ended["usage_source"]) == (*used, "provider"), name
        assert ended["cost"] == cost(*used, prices), name
        assert json.loads(ended["charges"]) == {"money": ended["cost"], "tokens": sum(used)}
        assert (ended["consumer"], ended["status"], ended["complete"]) == ("demo", 200, 1)
    agree(gateway)


def test_batches_of_messages_are_their_consumers_own_and_settled_when_they_end(gateway: Gateway) -> None:
    sdk, answered = claude(gateway), {"a b c": (0, 1, 2), "d fail-1 f": (0, 2), "expire-1": (), "g h i j": (0, 1)}
    found, kept = {}, ""
    for names in answered:
        kept = create_messages(sdk, *names.split())
        found[names] = made(gateway, "create_batch")
    assert kept.startswith("msgbatch_kept_")
    assert sdk.messages.batches.cancel(kept).processing_status == "canceling"  # the last one: half of it is answered
    with pytest.raises(NotFoundError):
        claude(gateway, "sk-gw-other").messages.batches.retrieve(kept)
    for names, numbers in answered.items():
        ended, used = row(gateway, found[names]), tokens(*numbers)
        assert (ended["input_tokens"], ended["output_tokens"], ended["usage_source"]) == (*used, "provider"), names
        assert ended["cost"] == cost(*used, HAIKU), names
        assert json.loads(ended["charges"]) == {"money": ended["cost"], "tokens": sum(used)}
    results = list(sdk.messages.batches.results(kept))  # by the address in the answer
    assert [each.result.type for each in results] == ["succeeded"] * 2 + ["canceled"] * 2
    assert "claude-haiku-4-5" in results[0].model_dump_json()
    assert sdk.messages.batches.retrieve(kept).results_url == f"/v1/messages/batches/{kept}/results"
    assert sdk.messages.batches.delete(kept).id == kept
    with pytest.raises(NotFoundError):
        sdk.messages.batches.retrieve(kept)
    agree(gateway)


def test_a_file_of_anthropic_is_its_consumers_own_and_a_batch_can_name_it(gateway: Gateway) -> None:
    sdk, other = claude(gateway), claude(gateway, "sk-gw-other")
    file = sdk.files.upload(file=("a.txt", b"Hello"), extra_body={"model": "haiku"})
    assert file.id.startswith("file_kept_")
    assert sdk.files.retrieve_metadata(file.id).size_bytes == 5
    content = [{"type": "document", "source": {"type": "file", "file_id": file.id}}, {"type": "text", "text": "Hello"}]
    create_messages(sdk, "a", messages=[{"role": "user", "content": content}])
    ended = row(gateway, made(gateway, "create_batch"))
    assert (ended["input_tokens"], ended["cost"]) == (tokens(0)[0], cost(*tokens(0), HAIKU))
    asked = len(gateway.seen("claude"))
    for id, client in ((file.id, other), ("file_123", sdk)):
        with pytest.raises(NotFoundError):
            client.files.retrieve_metadata(id)
    with pytest.raises(NotFoundError):
        create_messages(other, "a", messages=[{"role": "user", "content": content}])
    for model, error in (("opus", PermissionDeniedError), ("gpt-4.1", BadRequestError), (None, BadRequestError)):
        with pytest.raises(error):  # without a grant; at a provider without this API; at no provider
            sdk.files.upload(file=("a.txt", b"Hello"), extra_body={} if model is None else {"model": model})
    assert len(gateway.seen("claude")) == asked
    assert sdk.files.delete(file.id).id == file.id
    with pytest.raises(NotFoundError):
        sdk.files.retrieve_metadata(file.id)
    agree(gateway)


def test_batches_of_gemini_are_settled_when_they_end(gateway: Gateway) -> None:
    sdk, answered = google(gateway), {"a b c": (0, 1, 2), "d fail-1 f": (0, 2), "expire-1": (), "g h i j": (0, 1)}
    found, name = {}, ""
    for names in answered:
        one: Any = {"contents": [{"parts": [{"text": "Hello"}], "role": "user"}], "config": {"max_output_tokens": 50}}
        requests = [one | {"metadata": {"key": key}, "model": "flash"} for key in names.split()]
        name = str(sdk.batches.create(model="flash", src=requests).name)
        found[names] = made(gateway, "create_batch")
    assert name.startswith("batches/kept_")
    sdk.batches.cancel(name=name)  # the last one: half of it is answered
    other = google(gateway, "sk-gw-other")
    with pytest.raises(ClientError, match="404"):
        other.batches.get(name=name)
    for names, numbers in answered.items():
        ended, used = row(gateway, found[names]), tokens(*numbers)
        assert (ended["input_tokens"], ended["output_tokens"], ended["usage_source"]) == (*used, "provider"), names
        assert ended["cost"] == cost(*used, FLASH), names
    batch = sdk.batches.get(name=name)
    assert (batch.name, batch.state) == (name, "JOB_STATE_CANCELLED")
    assert batch.dest is not None
    assert batch.dest.inlined_responses is not None
    assert [each.metadata for each in batch.dest.inlined_responses] == [{"key": key} for key in "ghij"]
    sdk.batches.delete(name=name)
    agree(gateway)


def test_each_request_in_a_batch_is_checked_as_if_it_were_sent_alone(gateway: Gateway) -> None:
    secret, gemini = "AKIA0123456789ABCDEF", google(gateway)
    with pytest.raises(BadRequestError, match="no-keys"):
        create_messages(claude(gateway), "a", messages=[{"role": "user", "content": secret}])
    with pytest.raises(BadRequestError, match="no-keys"):
        claude(gateway).files.upload(file=("a.txt", secret.encode()), extra_body={"model": "haiku"})
    with pytest.raises(ClientError, match="no-keys"):
        gemini.batches.create(model="flash", src=[{"contents": [{"parts": [{"text": secret}]}]}])
    assert gateway.seen("google") == []
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-5"}
    for asked in ({"model": "opus"}, {"tools": [advisor]}):
        with pytest.raises(PermissionDeniedError):
            create_messages(claude(gateway), "a", **asked)
    assert gateway.seen("claude") == []


def test_a_background_response_is_settled_by_whichever_look_comes_first(gateway: Gateway, sdk: OpenAI) -> None:
    found = []
    for asks in (False, True):
        response = sdk.responses.create(model="gpt-4.1", input=f"Hello {asks}", background=True, max_output_tokens=500)
        found.append(made(gateway, "chat"))
        if asks:
            whole = eventually(
                lambda kept=response.id: (one := sdk.responses.retrieve(kept)).status == "completed" and one
            )
            assert whole.id == response.id
            sdk.responses.delete(response.id)  # nobody else can ask for it now
    for id in found:
        ended = row(gateway, id)
        assert ended["usage_source"] == "provider"
        assert ended["cost"] == cost(ended["input_tokens"], ended["output_tokens"], (2, 8)) > 0
    agree(gateway)


def test_a_killed_processor_loses_and_doubles_nothing(start: Callable[..., Gateway], tmp_path: Path) -> None:
    yaml = YAML.replace("counters.db", f"{tmp_path}/counters.db").replace("ledger.db", f"{tmp_path}/ledger.db")
    gateway = start(yaml, MOCKS, ENV)
    create(OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0), "a", "b")
    id = made(gateway, "create_batch")
    gateway.process.kill()
    gateway.process.wait(30)
    again = start(yaml.replace("{mock_openai}", gateway.mocks["openai"] + "/v1"), MOCKS[1:], ENV)
    again.file = tmp_path / "gateway.yaml"
    ended = row(again, id)
    assert (ended["input_tokens"], ended["cost"]) == (tokens(0, 1)[0], cost(*tokens(0, 1)))
    agree(again)
