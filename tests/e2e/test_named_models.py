"""A model that a request names beside its own needs a grant, too: fallbacks, advisors, tools that draw. Through a real
Envoy, with a provider that answers anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Gateway, run_gateway
from tests.e2e.scripted import Scripted, plain
from tests.e2e.test_abuse_answers import completion, play

YAML = """
providers:
  router: {kind: openrouter, base_url: "URL/v1"}
  other: {kind: openrouter, base_url: "URL/v1"}
  claude: {kind: anthropic, base_url: "URL/v1"}
  openai: {kind: openai, base_url: "URL/v1"}
models:
  cheap: {provider: router, model: some/cheap}
  also: {provider: router, model: some/other}
  dear: {provider: router, model: some/dear}
  "free/*": {provider: other}
  haiku: {provider: claude, model: claude-haiku-4-5}
  opus: {provider: claude, model: claude-opus-4-6}
  gpt: {provider: openai, model: gpt-5}
virtual_models:
  pinned: {targets: [{model: cheap, override: {models: ["some/dear"]}}]}
consumers:
  - {name: free, keys: [{env: FREE_KEY}]}
  - {name: demo, models: [cheap, also, "free/*", haiku, gpt, pinned], keys: [{env: EXTPROC_DEMO_KEY}]}
stores: {counters: "memory:"}
"""
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def gateway(provider: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yield from run_gateway(
        tmp_path_factory.mktemp("named"), YAML.replace("URL", provider.url), (), {"FREE_KEY": "sk-gw-free"}
    )


def advisor(model: Any) -> dict[str, Any]:
    return {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": model}]}


@pytest.mark.parametrize(
    ("model", "path", "fields", "granted"),
    [
        ("cheap", "chat/completions", {"models": ["some/cheap", "some/other"]}, True),
        ("cheap", "chat/completions", {"models": ["some/other", "some/dear"]}, False),
        ("cheap", "chat/completions", {"models": ["never/heard"]}, False),
        ("cheap", "chat/completions", {"models": [f"some/{i}" for i in range(10_000)]}, False),
        ("cheap", "chat/completions", {"Models": ["some/dear"]}, False),
        ("cheap", "chat/completions", {"plugins": [{"id": "fusion", "analysis_models": ["some/dear"]}]}, False),
        (
            "cheap",
            "chat/completions",
            {"tools": [{"type": "openrouter:advisor", "parameters": {"model": "some/dear"}}]},
            False,
        ),
        ("free/some/any", "chat/completions", {"models": ["some/third"]}, True),
        ("pinned", "chat/completions", {"models": ["some/dear"]}, True),
        ("haiku", "messages", advisor("claude-opus-4-6"), False),
        ("haiku", "messages", advisor("claude-haiku-4-5"), True),
        ("haiku", "messages", {"fallbacks": [{"model": "claude-opus-4-6"}]}, False),
        ("gpt", "responses", {"tools": [{"type": "image_generation", "model": "gpt-image-2"}], "store": False}, False),
        ("gpt", "responses", {"moderation": {"model": "omni-moderation-latest"}, "store": False}, True),
    ],
)
def test_a_model_that_is_named_beside_the_requests_own_needs_a_grant(
    model: str, path: str, fields: dict[str, Any], gateway: Gateway, provider: Scripted, *, granted: bool
) -> None:
    if path == "messages":
        usage = {"input_tokens": 3, "output_tokens": 4}
        answer = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    else:
        answer = completion()
    play(provider, plain(answer))
    said = {"input": "Hello"} if path == "responses" else {"messages": HELLO}
    found = gateway.post(f"/v1/{path}", {"model": model, "max_tokens": 50, **said, **fields}, timeout=30)
    assert (found.status_code == 200, bool(provider.seen)) == (granted, granted), found.text
    if not granted and "Models" not in fields:
        error = found.json()["error"]
        assert found.status_code == 403
        assert error.get("code", error["type"]) in {"model_not_allowed", "permission_error"}


def test_a_consumer_that_may_use_every_model_may_name_every_model(gateway: Gateway, provider: Scripted) -> None:
    play(provider, plain(completion()))
    body = {"model": "cheap", "messages": HELLO, "models": ["some/dear", "never/heard"]}
    assert gateway.post("/v1/chat/completions", body, key="sk-gw-free").status_code == 200
