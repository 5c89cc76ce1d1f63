"""Levels of thinking that models take."""

import pytest

from extproc.dialects import dialects
from extproc.dialects._effort import LEVELS, fitting, levels
from extproc.words.dialect import Destination
from extproc.words.messages import Message, Prompt, TextPart
from tests.doubles.answers import Refused
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
    ),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wanted", sorted(set(LEVELS.values())))
@pytest.mark.parametrize("api", ["openai_chat", "openai_responses"])
def test_every_level_becomes_one_that_the_model_takes(model, wanted, api):
    prompt = Prompt("m", [Message("user", [TextPart("Hi")])], effort=wanted)
    body, _ = dialects()[api].encode_request(prompt, Destination(model))
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
        ("meta-llama/llama-4-scout", "high", None),
    ],
)
def test_the_level_that_fits(model, wanted, fits):
    assert fitting(wanted, model) == fits


def test_a_model_that_does_not_reason_gets_no_level_and_the_client_is_told():
    prompt = Prompt("m", [Message("user", [TextPart("Hi")])], effort="high")
    body, ignored = dialects()["openai_chat"].encode_request(prompt, Destination("gpt-4o"))
    assert ("reasoning_effort" in body, ignored) == (False, ["reasoning_effort"])


@pytest.mark.parametrize(("model", "effort"), [("gpt-5", "none"), ("gpt-5.1", "minimal"), ("o3", "xhigh")])
def test_the_doubles_refuse_other_levels(model, effort):
    with pytest.raises(Refused):
        check_effort(model, effort, "effort")
