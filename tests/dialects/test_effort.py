"""Levels of thinking that models take."""

import pytest

from extproc.dialects import provider_apis
from extproc.dialects._effort import LEVELS, fitting, levels
from extproc.dialects._thinkers import unlisted
from extproc.upstream.providers import kinds
from extproc.words.dialect import Destination
from extproc.words.messages import Message, Prompt, TextPart
from tests.doubles.efforts import check_effort

MODELS = [
    *("gpt-5", "gpt-5-mini", "gpt-5-pro", "gpt-5-codex", "gpt-5.1", "gpt-5.1-codex", "gpt-5.1-codex-max", "gpt-5.2"),
    *(
        "gpt-5.3-codex",
        "gpt-5.4",
        "gpt-5.4-mini",
        "gpt-5.6-terra",
        "o1",
        "o3",
        "o3-mini",
        "o4-mini",
        "openai/gpt-oss-120b",
        "gpt-6.1-terra",
        "grok-3-mini",
        "x-ai/grok-4.3",
        "mistral-small-latest",
    ),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wanted", sorted(set(LEVELS.values())))
@pytest.mark.parametrize("api", ["openai_chat", "openai_responses"])
def test_every_level_becomes_one_that_the_model_takes(model, wanted, api):
    prompt = Prompt("m", [Message("user", [TextPart("Hi")])], effort=wanted)
    body, _ = provider_apis()[api].encode_request(prompt, Destination(model))
    effort = body.get("reasoning_effort") or body.get("reasoning", {}).get("effort")
    assert effort in levels(model)
    check_effort(model, effort, "effort")


@pytest.mark.parametrize(
    ("model", "wanted", "fits"),
    [
        ("gpt-5", "none", "minimal"),
        ("gpt-5", "xhigh", "high"),
        ("gpt-5.1", "minimal", "low"),
        ("gpt-5.1", "none", "none"),
        ("gpt-5.4", "xhigh", "xhigh"),
        ("gpt-5-pro", "low", "high"),
        ("o3", "none", "low"),
        ("gpt-oss:20b", "xhigh", "high"),
        ("strange", "minimal", "low"),
        ("strange", "xhigh", "high"),
        ("strange", "none", None),
        ("gpt-4o", "high", None),
        ("gpt-6-astra", "none", "low"),
        ("grok-4-fast-reasoning", "high", None),  # it thinks as much as it wants
        ("grok-4.6", "xhigh", "xhigh"),
        ("mistral-medium-latest", "low", "high"),
        ("mistral-large-latest", "low", None),
        ("mistral-small-2506", "high", None),
        ("meta-llama/llama-4-scout", "high", None),
    ],
)
def test_the_level_that_fits(model, wanted, fits):
    assert fitting(wanted, model) == fits


def test_a_model_that_does_not_reason_gets_no_level_and_the_client_is_told():
    prompt = Prompt("m", [Message("user", [TextPart("Hi")])], effort="high")
    body, ignored = provider_apis()["openai_chat"].encode_request(prompt, Destination("gpt-4o"))
    assert ("reasoning_effort" in body, ignored) == (False, ["reasoning_effort"])


def test_qwen_at_groq_thinks_or_does_not():
    groq = kinds()["groq"]
    for model, wanted, sent in [("qwen/qwen3-32b", "low", "default"), ("qwen/qwen3-32b", "none", "none"),
                                ("openai/gpt-oss-120b", "low", "low")]:  # fmt: skip
        body = {"model": model, "reasoning_effort": wanted}
        assert groq.adapts(body, ())
        assert groq.adapt("openai_chat", model, False, "/chat/completions", body)[1]["reasoning_effort"] == sent
    check_effort("qwen/qwen3-32b", "default", "effort")
    assert not groq.adapts({"model": "qwen/qwen3-32b"}, ())


@pytest.mark.parametrize(
    ("model", "unknown"),
    [("sonar-reasoning-pro", True), ("deepseek-r1", True), ("kimi-k2-thinking", True), ("strange", False),
     ("grok-4-fast-reasoning", False), ("gpt-5", False), ("anthropic/claude-opus-4-5", False),
     ("grok-99", False), ("acme-non-reasoning", False)],
)  # fmt: skip
def test_models_that_reason_at_levels_that_nobody_listed(model, unknown):
    assert unlisted(model) is unknown
