"""The cache of answers end to end: equal requests are paid once, and never across a scope."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.conftest import Gateway, eventually, run_gateway
from tests.e2e.test_docs_tour import block, run

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}", client_headers: [x-variant]}}
models: {stub: {provider: sandbox, price: {input: 100, output: 200}}}
stores: {cache: "sqlite:cache.db"}
consumers:
  - {name: ada, team: red, keys: [{env: KEY_ada}]}
  - {name: bob, team: red, keys: [{env: KEY_bob}]}
  - {name: eve, team: blue, keys: [{env: KEY_eve}]}
teams: {red: {}, blue: {}}
cache:
  key: env:CACHE_KEY
  rules:
    - {match: {label.shared: "yes"}, scope: team}
    - {match: {consumer: eve}, mode: shadow}
    - {}
"""
NAMES = ("ada", "bob", "eve")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    env = {f"KEY_{name}": f"sk-gw-{name}" for name in NAMES} | {"CACHE_KEY": "a secret of at least 32 characters"}
    yield from run_gateway(tmp_path_factory.mktemp("cache"), YAML, ("sandbox",), env)


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.begin()
    return shared


def ask(gateway: Gateway, text: str, name: str = "ada", **more: Any) -> Any:
    return gateway.chat("stub", text, key=f"sk-gw-{name}", **more)


def kept(gateway: Gateway, text: str, name: str = "ada", **more: Any) -> Any:
    """A hit, once the answer before it is in the store."""
    return eventually(lambda: (found := ask(gateway, text, name, **more)).headers.get("x-ai-cache") == "hit" and found)


def test_a_repeated_request_is_paid_once_and_says_what_it_saved(gateway: Gateway):
    first = ask(gateway, "once")
    assert first.headers["x-ai-cache"] == "miss"
    hit = kept(gateway, "once", stream=False, user="another")
    assert hit.json() == first.json()
    assert int(hit.headers["age"]) < 60
    assert (hit.headers["x-ai-provider"], hit.headers["x-ai-attempts"]) == ("sandbox", "0")
    assert "x-ai-error-origin" not in hit.headers
    before, after = gateway.exchange_of(first), gateway.exchange_of(hit)
    assert (before["cache"], after["cache"]) == ("miss", "hit")
    assert float(after["saved_usd"]) == float(before["cost_usd"]) > 0
    report = gateway.admin + "/usage?cache=hit"
    total = eventually(lambda: (sums := gateway.http.get(report).json()["total"])["cache_hits"] and sums)
    assert (total["cache_hits"], float(total["cost_usd"])) == (total["requests"], 0)
    assert float(total["saved_usd"]) > 0


def test_the_libraries_of_clients_read_kept_answers_plain_and_streamed(gateway: Gateway):
    with (
        openai.OpenAI(api_key="sk-gw-ada", base_url=gateway.base_url, max_retries=0) as client,
        anthropic.Anthropic(api_key="sk-gw-ada", base_url=gateway.url, max_retries=0) as claude,
    ):
        asked: Any = [{"role": "user", "content": "libraries"}]
        said = client.chat.completions.create(model="stub", messages=asked, max_tokens=50).choices[0].message.content
        kept(gateway, "libraries", max_tokens=50)
        gateway.reset()
        with client.chat.completions.stream(
            model="stub", messages=asked, max_tokens=50, stream_options={"include_usage": True}
        ) as stream:
            final = stream.get_final_completion()
        assert (final.choices[0].message.content, final.usage and final.usage.completion_tokens) == (said, 3)
        answer = claude.messages.create(model="stub", messages=asked, max_tokens=50)
        assert [block.text for block in answer.content if block.type == "text"] == [said]
        with claude.messages.stream(model="stub", messages=asked, max_tokens=50) as events:
            assert events.get_final_text() == said
        assert (
            client.responses.create(model="stub", input="libraries", max_output_tokens=50, store=False).output_text
            == said
        )
        assert gateway.calls() == 0


def test_a_streamed_answer_fills_the_cache_at_its_end(gateway: Gateway):
    with gateway.stream("stub", "streamed", key="sk-gw-ada") as answer:
        assert answer.headers["x-ai-cache"] == "miss"
        body = answer.read()
    assert eventually(lambda: kept_stream(gateway)) == body
    assert kept(gateway, "streamed").json()["choices"][0]["message"]["content"] == "You said: streamed"


def kept_stream(gateway: Gateway) -> bytes:
    """The body of a hit; empty for any other answer."""
    with gateway.stream("stub", "streamed", key="sk-gw-ada") as answer:
        return answer.read() if answer.headers["x-ai-cache"] == "hit" else b""


def test_no_consumer_gets_the_answer_of_another_unless_the_scope_is_wider(gateway: Gateway):
    team = {"x-ai-shared": "yes"}
    for headers in ({}, team):
        ask(gateway, "scopes", headers=headers)
        kept(gateway, "scopes", headers=headers)
    assert ask(gateway, "scopes", "bob").headers["x-ai-cache"] == "miss"
    assert ask(gateway, "scopes", "bob", headers=team).headers["x-ai-cache"] == "hit"
    assert ask(gateway, "scopes", "eve", headers=team).headers["x-ai-cache"] == "miss"


def test_headers_of_clients_keep_answers_out_and_are_part_of_the_key_where_a_provider_gets_them(gateway: Gateway):
    for headers in ({"cache-control": "no-store"}, {"x-ai-cache": "off"}):
        for _ in range(2):
            assert "x-ai-cache" not in ask(gateway, "out", headers=headers).headers
    assert not any("x-ai-cache" in seen["headers"] for seen in gateway.seen("sandbox"))
    assert ask(gateway, "out").headers["x-ai-cache"] == "miss"
    kept(gateway, "out")
    assert ask(gateway, "out", headers={"x-variant": "b"}).headers["x-ai-cache"] == "miss"
    assert ask(gateway, "out", headers={"x-ai-cache": "refresh"}).headers["x-ai-cache"] == "refresh"


def test_equal_requests_at_once_wait_for_the_first(gateway: Gateway):
    gateway.fault("sandbox", "words=30+pace=20ms")
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda number: ask(gateway, "at once", stream=number % 3 == 0), range(12)))
    assert {answer.status_code for answer in found} == {200}
    assert sorted(answer.headers["x-ai-cache"] for answer in found) == ["hit"] * 11 + ["miss"]
    assert gateway.calls() == 1


def test_where_the_first_fails_the_others_go_on_by_themselves(gateway: Gateway):
    gateway.fault("sandbox", "delay=300ms+status=400")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ask(gateway, "fails"), range(4)))
    assert [answer.status_code for answer in found] == [400] * 4
    assert gateway.calls() == 4


def test_shadow_mode_asks_the_provider_and_counts(gateway: Gateway):
    for _ in range(2):
        assert "x-ai-cache" not in ask(gateway, "shadow", "eve").headers
        eventually(lambda: any(entry.get("consumer") == "eve" and "cache" in entry for entry in gateway.exchanges()))
    assert gateway.calls() == 2
    report = gateway.admin + "/usage?group_by=team&team=blue"
    total = eventually(lambda: (sums := gateway.http.get(report).json()["total"])["shadow_hits"] and sums)
    assert (total["cache_hits"], float(total["saved_usd"])) == (0, 0)
    assert float(total["would_save_usd"]) > 0


def test_operators_see_and_delete_answers(gateway: Gateway, extproc: Any):
    ask(gateway, "deleted")
    kept(gateway, "deleted")
    told = extproc("cache", "stats", "--url", gateway.admin).stdout
    assert "answers" in told
    assert "requests wait" in told
    done = extproc("cache", "forget", "--consumer", "ada", "--url", gateway.admin)
    assert int(done.stdout.split()[0]) > 0
    assert ask(gateway, "deleted").headers["x-ai-cache"] == "miss"
    extproc("cache", "clear", "--url", gateway.admin)
    assert gateway.http.get(gateway.admin + "/cache").json()["entries"] <= 1
    assert extproc("cache", "forget", "--url", gateway.admin).returncode == 1
    assert gateway.metric("extproc_cache_total", outcome="hit") > 0


def test_shadow_mode_is_enforced_by_one_word_without_a_restart(start: Any):
    """With the store in memory, as in docs/cache.md."""
    yaml = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox, price: {input: 100, output: 200}}}
consumers: [{name: demo, team: red, keys: [{env: EXTPROC_DEMO_KEY}]}]
teams: {red: {}}
cache:
  rules:
    - {ttl: 1h, mode: shadow}
"""
    gateway = start(yaml)
    for _ in range(2):
        assert "x-ai-cache" not in gateway.chat().headers
    assert gateway.calls() == 2
    report = gateway.admin + "/usage?group_by=team"
    eventually(lambda: gateway.http.get(report).json()["total"]["shadow_hits"] == 1)
    gateway.file.write_text(gateway.file.read_text().replace("shadow", "enforce"))
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="taken") == 1)
    gateway.fault("sandbox", "words=30+pace=20ms")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: gateway.chat(), range(8)))
    assert sorted(answer.headers["x-ai-cache"] for answer in found) == ["hit"] * 7 + ["miss"]
    assert gateway.calls() == 3


MEANING = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox, price: {input: 100, output: 200}}}
consumers:
  - {name: demo, team: red, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: vectors, keys: [{env: KEY_vectors}]}
teams: {red: {}}
cache:
  semantic: {embeddings: {model: stub, consumer: vectors, timeout: 5s}, threshold: 0.5}
  rules:
    - {match: {label.meaning: "yes"}, semantic: enforce}
    - {ttl: 1h, mode: "off"}
"""
WORDS = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox, price: {input: 100, output: 200}}}
consumers: [{name: demo, team: red, keys: [{env: EXTPROC_DEMO_KEY}]}]
teams: {red: {}}
cache:
  rules:
    - {ttl: 1h, semantic: shadow}
"""


def test_questions_in_other_words_are_counted_seen_and_enforced_as_the_page_says(start: Any):
    pytest.importorskip("numpy", reason="the extra `semantic`")
    gateway = start(WORDS)
    for text in ("What is the capital of Australia?", "Please, what is the capital of australia"):
        assert gateway.chat("stub", text).headers["x-ai-cache"] == "miss"
        eventually(lambda: gateway.http.get(gateway.admin + "/cache").json()["vectors"] == 1)
    assert gateway.calls() == 2
    eventually(lambda: gateway.http.get(gateway.admin + "/usage").json()["total"]["shadow_hits"] == 1)
    shown = run(gateway, block("docs/cache.md", "9091/cache/similar"))
    samples, end = json.JSONDecoder().raw_decode(shown)
    [sample] = samples["data"]
    assert (sample["hit"], sample["team"]) == (True, "red")
    assert "asked_text" not in sample
    [row] = json.loads(shown[end:])["data"]
    assert float(row["would_save_usd"]) > 0
    seen = run(gateway, block("docs/cache.md", "--explain").replace("gpt-4o", "stub").replace("ci-bot", "demo"))
    assert "would have saved" in seen
    assert "other words: shadow at 0.95" in seen
    gateway.file.write_text(gateway.file.read_text().replace("semantic: shadow", "semantic: enforce"))
    eventually(lambda: gateway.metric("extproc_reloads_total", outcome="taken") == 1)
    hit = gateway.chat("stub", "Hello! What is the capital of australia")
    assert hit.headers["x-ai-cache"] == "hit"
    assert float(hit.headers["x-ai-cache-similarity"]) > 0.95
    assert hit.json()["choices"][0]["message"]["content"] == "You said: What is the capital of Australia?"
    assert gateway.calls() == 2


def test_meanings_are_compared_by_a_model_that_the_gateway_serves(tmp_path: Any):
    pytest.importorskip("numpy", reason="the extra `semantic`")
    found = run_gateway(tmp_path, MEANING, ("sandbox",), {"KEY_vectors": "sk-gw-vectors"})
    gateway = next(found)
    try:
        meaning = {"x-ai-meaning": "yes"}
        for text in ("red apples grow here", "green pears grow there"):
            gateway.chat("stub", text, headers=meaning)
        stats = eventually(lambda: (s := gateway.http.get(gateway.admin + "/cache").json())["vectors"] and s)
        assert stats["vector_failures"] == 0
        rows = gateway.exchanges()
        assert {row["operation"] for row in rows if row["consumer"] == "vectors"} == {"embeddings"}
    finally:
        found.close()
