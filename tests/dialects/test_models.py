"""The file of facts about models."""

import re

import pytest

from extproc.dialects._models import facts, gemini, known_output, levels, thinks_unasked, traits_of

LISTS = ("levels", "unasked", "searching", "most_output", "gemini", "cohere")


def test_facts_name_their_sources():
    assert all(
        source.startswith("https://") for name in (*LISTS, "claude") for source in getattr(facts(), name).sources
    )


@pytest.mark.parametrize("name", LISTS)
def test_each_line_fits_a_name_of_its_own(name):
    """A line behind one with the same expression, or with one that takes all, would never count."""
    found = [line.name for line in getattr(facts(), name).models]
    assert len(set(found)) == len(found)
    assert not any(re.search(rf"\A(?:{one})", "") for one in found)


@pytest.mark.parametrize(
    ("model", "fact"),
    [
        ("gpt-5.1-codex-max", levels("openai/GPT-5.1-codex-max") == ("low", "medium", "high", "xhigh")),
        ("gpt-4o", levels("gpt-4o") == ()),
        ("unheard-of", levels("unheard-of") is None),
        ("gpt-5-chat", (thinks_unasked("gpt-5-chat"), thinks_unasked("gpt-5")) == (False, True)),
        ("claude-opus-4-1", known_output("us.anthropic.claude-opus-4-1-20250805-v1:0") == 32_000),
        ("gemini-3.6-flash", (gemini("gemini-3.6-flash").off, gemini("gemini-3.7-flash").off) == (True, False)),
        ("gemini-flash-latest", gemini("models/gemini-flash-latest").thinking == "level"),
        ("gemma-3", gemini("gemma-3").known is False),
        ("claude-6", (traits_of("claude-opus-6").known, traits_of("claude-opus-5-1").known) == (False, True)),
        ("claude-4-6", traits_of("anthropic.claude-sonnet-4-6-v1:0").xhigh == "max"),
    ],
)
def test_models_are_found_by_their_names(model, fact):
    assert fact, model
