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


@pytest.fixture(scope="module")
def leaving_out(provider: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    yaml = YAML.replace("URL", provider.url) + "named_models: leave_out\n"
    yield from run_gateway(tmp_path_factory.mktemp("left"), yaml, (), {"FREE_KEY": "sk-gw-free"})


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


IMAGES = {"type": "image_generation", "model": "gpt-image-2"}
WEB = {"type": "web_search"}
FUSION = {"id": "fusion", "analysis_models": ["some/dear"]}
CHOSEN = {"tool_choice": "auto"}
CHAT = "chat/completions"


@pytest.mark.parametrize(
    ("asked", "sent", "ignored"),
    [
        (("cheap", CHAT, {"models": ["some/dear", "some/other"]}), {"models": ["some/other"]}, "models[]"),
        (("cheap", CHAT, {"models": ["never/heard"]}), {}, "models"),
        (("haiku", "messages", advisor("claude-opus-4-6")), {}, "tools"),
        (("gpt", "responses", CHOSEN | {"tools": [IMAGES, WEB]}), CHOSEN | {"tools": [WEB]}, "tools[]"),
        (("gpt", "responses", CHOSEN | {"tools": [IMAGES]}), {}, "tools,tool_choice"),
        (("gpt", "responses", {"moderation": {"model": "dear"}}), {}, "moderation"),
        (("cheap", CHAT, {"plugins": [FUSION, {"id": "web"}]}), {"plugins": [{"id": "web"}]}, "plugins[]"),
        (("cheap", CHAT, {"models": ["some/other"]}), {"models": ["some/other"]}, None),
    ],
)
def test_a_model_without_a_grant_is_left_out_by_a_setting(
    asked: tuple[str, str, dict[str, Any]],
    sent: dict[str, Any],
    ignored: str | None,
    leaving_out: Gateway,
    provider: Scripted,
) -> None:
    model, path, fields = asked
    play(provider, plain(completion()))
    said = {"input": "Hello", "store": False} if path == "responses" else {"messages": HELLO}
    found = leaving_out.post(f"/v1/{path}", {"model": model, "max_tokens": 50, **said, **fields}, timeout=30)
    [seen] = provider.seen
    assert {name: seen[name] for name in fields if name in seen} == sent
    assert found.headers.get("x-ai-ignored") == ignored


def test_more_models_than_are_looked_at_are_refused_by_either_setting(leaving_out: Gateway, provider: Scripted) -> None:
    play(provider, plain(completion()))
    body = {"model": "cheap", "messages": HELLO, "models": [f"some/{i}" for i in range(65)]}
    assert leaving_out.post("/v1/chat/completions", body).status_code == 403
    assert not provider.seen
