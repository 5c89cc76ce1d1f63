"""The cache of answers end to end: equal requests are paid once, and never across a scope."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.conftest import Gateway, eventually, run_gateway
from tests.e2e.test_docs_tour import block, run
from tests.guardrails.services import chat
from tests.outbound.endpoint import keeping

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
providers:
  sandbox: {kind: mock, base_url: "{mock_sandbox}"}
  judge: {kind: vllm, base_url: "JUDGE/v1"}
models:
  stub: {provider: sandbox, price: {input: 100, output: 200}}
  judge: {provider: judge, price: {input: 1, output: 2}}
  near: {provider: judge, price: {input: 1, output: 0}}
consumers:
  - {name: demo, team: red, keys: [{env: EXTPROC_DEMO_KEY}]}
  - {name: cache, keys: [{env: KEY_cache}]}
teams: {red: {}}
budgets: [{name: asking, match: {consumer: cache}, unit: usd, limit: 1, window: day}]
cache:
  semantic:
    embeddings: {model: near, consumer: cache, timeout: 5s}
    verify: {model: judge, consumer: cache, timeout: 2s}
    threshold: 0.5
  rules:
    - {ttl: 1h, semantic: shadow}
stores: {counters: "memory:"}
"""
LISTED = """
cache:
  semantic:
    questions:
      "How do I reset my password?":
        - I forgot my password
        - How can I change my password?
  rules:
    - {ttl: 1h, semantic: enforce}
"""
FIRST, LATER = "What is the capital of Australia?", "What is the capital of Australia, please?"


def judging(says: Any) -> Any:
    """Two models behind the gateway: all questions are near, and `says` gives the words about the body of a request."""

    def answer(handler: Any) -> None:
        body = json.loads(handler.body)
        near = {"object": "list", "model": "near", "data": [{"index": 0, "embedding": [1.0, 0.5]}]}
        said = json.dumps(near if handler.path.endswith("/embeddings") else chat(says(body))).encode()
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(said)))
        handler.end_headers()
        handler.wfile.write(said)

    return keeping(answer)


def verdict(body: Any, same: bool) -> str:
    [code] = re.findall('"code": "([0-9a-f]{8})"}[.]$', body["messages"][0]["content"])
    return json.dumps({"same": same, "code": code})


def test_questions_in_other_words_are_verified_by_a_model_that_the_gateway_serves(start: Any):
    """Seen in shadow mode and enforced as docs/cache.md says."""
    pytest.importorskip("numpy", reason="the extra `semantic`")
    bodies: list[Any] = []

    def says(body: Any) -> str:
        bodies.append(body)
        asked = json.loads(body["messages"][1]["content"].split("\n")[1])["asked_now"]
        if "slow" in asked:
            time.sleep(3)
        return "Yes!" if "lies" in asked else verdict(body, "-" not in asked)

    def vectors() -> Any:
        return gateway.http.get(gateway.admin + "/cache").json()["vectors"]

    with judging(says) as (address, _):
        gateway = start(MEANING.replace("JUDGE", f"http://{address}"), env={"KEY_cache": "sk-gw-cache"})
        for text in (FIRST, LATER):
            assert gateway.chat("stub", text).headers["x-ai-cache"] == "miss"
            eventually(lambda: vectors() == 1)
        eventually(lambda: gateway.http.get(gateway.admin + "/usage").json()["total"]["shadow_hits"] == 1)
        shown = run(gateway, block("docs/similar-questions.md", "9091/cache/similar"))
        samples, end = json.JSONDecoder().raw_decode(shown)
        [sample] = samples["data"]
        assert (sample["hit"], sample["verdict"], sample["team"]) == (True, "same", "red")
        assert "asked_text" not in sample
        [row] = json.loads(shown[end:])["data"]
        assert float(row["would_save_usd"]) > 0
        explain = block("docs/cache.md", "--explain").replace("gpt-6.1-sol", "stub").replace("ci-bot", "demo")
        seen = run(gateway, explain)
        assert "other words: shadow at 0.5, verified by judge" in seen

        gateway.file.write_text(gateway.file.read_text().replace("semantic: shadow", "semantic: enforce"))
        eventually(lambda: gateway.metric("extproc_reloads_total", outcome="taken") == 1)
        before = len(bodies)
        hit = gateway.chat("stub", "So what is the capital of Australia?")
        assert hit.headers["x-ai-cache"] == "hit"
        assert float(hit.headers["x-ai-cache-similarity"]) > 0.5
        assert hit.json()["choices"][0]["message"]["content"] == f"You said: {FIRST}"
        again = gateway.chat("stub", "So what is the capital of Australia?")
        assert again.headers["x-ai-cache-similarity"] == hit.headers["x-ai-cache-similarity"]
        assert len(bodies) == before + 1
        # Not a yes, no verdict, and none in time: each is a miss, and each costs the consumer of `verify`.
        for text in ("What is the capital of -Australia?", "What lies in the capital of Australia?"):
            assert gateway.chat("stub", text).headers["x-ai-cache"] == "miss"
        assert gateway.chat("stub", "What is the slow capital of Australia?").headers["x-ai-cache"] == "miss"
        stats = gateway.http.get(gateway.admin + "/cache").json()
        found = [stats[name] for name in ("verified_same", "verified_different", "verify_failures", "vector_failures")]
        assert found == [2, 1, 2, 0]
        rows = eventually(lambda: (r := [row for row in gateway.exchanges() if row["consumer"] == "cache"]) and r)
        assert {row["operation"] for row in rows} == {"embeddings", "chat"}
        assert not any("cache" in row for row in rows if row["operation"] == "chat")
        assert sum(float(row["cost_usd"]) for row in rows if row["model"] == "judge" and row["status"] == 200) > 0


def test_listed_questions_share_an_answer_as_the_page_says(start: Any):
    gateway = start(MEANING[: MEANING.index("cache:\n")].replace("JUDGE", "http://127.0.0.1:1") + LISTED)
    assert gateway.chat("stub", "How do I reset my password?").headers["x-ai-cache"] == "miss"
    text = "You said: How do I reset my password?"
    found = eventually(
        lambda: (answer := gateway.chat("stub", "I forgot my password")).headers["x-ai-cache"] == "hit" and answer
    )
    assert found.json()["choices"][0]["message"]["content"] == text
    assert gateway.chat("stub", "i forgot my password").headers["x-ai-cache"] == "miss"
