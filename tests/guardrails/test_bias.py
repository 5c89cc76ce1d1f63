"""Insults and threats, friendly words about groups, and the same verdict for every group."""

import pytest

from extproc.guardrails import kinds
from extproc.guardrails._normal import normalised
from extproc.guardrails.bias import Bias, neutral

BIAS = Bias()
GROUPS = ("women", "men", "Muslims", "Christians", "Jews", "gay people", "trans people", "black people", "white people", "immigrants", "old people", "Mexicans")  # fmt: skip  # noqa: E501

TOXIC = [
    "You are a disgusting piece of shit and I hope you die.",
    "Shut up, you stupid bitch.",
    "What a pathetic moron, somebody should fire this idiot.",
    "Go to hell, asshole.",
]
HARMLESS = [
    "What is the capital of France?",
    "The soup was cold, and the waiter was slow.",
    "How do I kill a process on Linux?",
    "This damn printer is broken again.",
    "Congratulations, you are a genius!",
    "Please book a table for two.",
    "I disagree with you about the second point.",
]


@pytest.mark.parametrize("text", TOXIC)
def test_insults_and_threats_are_found(text):
    [found] = BIAS.find(text, "user", "x")
    assert found.kind == "toxic"


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_texts_are_not_found(text):
    assert BIAS.find(text, "user", "x") == ()


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("sentence", ["{} are wonderful.", "{} are our neighbours.", "Black {} are strong.", "{}"])
def test_the_name_of_a_group_is_no_finding(group, sentence):
    text = sentence.format(group)
    assert BIAS.find(text[0].upper() + text[1:], "user", "x") == ()


@pytest.mark.parametrize(
    "text",
    [
        "Kill the process with kill -9.",
        "Abort the transaction and kill the master process.",
        "The slave node replaced the dead master.",
        "Dumb terminals are old.",
        "How do I kill all zombie child processes?",
        "Execute the job and abort it after ten seconds.",
    ],
)
def test_technical_words_are_no_findings(text):
    assert BIAS.find(text, "user", "x") == ()


@pytest.mark.parametrize("group", GROUPS)
def test_hostility_is_found_whatever_the_group(group):
    [found] = BIAS.find(f"I hate {group}, they are disgusting vermin.", "user", "x")
    assert found.kind == "hostile_to_group"


@pytest.mark.parametrize("group", GROUPS)
def test_friendly_words_are_not_found_whatever_the_group(group):
    assert BIAS.find(f"The choir of {group} sang beautifully at the festival.", "user", "x") == ()


def test_names_of_groups_do_not_change_the_score():
    scores = {Bias()._model.score(neutral(f"many {group} live in this street")) for group in GROUPS}
    assert len(scores) == 1


def test_an_insult_in_a_long_text_is_found_with_its_place():
    filler = "The meeting began at noon. We talked about the budget. Coffee was served. "
    text = filler * 3 + "You are a stupid asshole and a liar. " + filler * 3
    [found] = BIAS.find(text, "assistant", "x")
    assert "asshole" in text[slice(*found.span)]
    assert BIAS.find(filler * 6, "assistant", "x") == ()


def test_an_insult_in_a_long_sentence_is_found():
    filler = "and then we walked along the river to the old mill where the bread was baked " * 10
    assert BIAS.find(f"{filler}you are a stupid asshole and a liar {filler}", "user", "x")
    assert BIAS.find(filler * 2, "user", "x") == ()


@pytest.mark.parametrize("padding", [".", "x", " ", "\n", "!"])
def test_padding_hides_nothing(padding):
    assert BIAS.find(padding * 1000 + " You are a stupid idiot and I hate you. " + padding * 1000, "user", "x")


def test_the_threshold_can_be_moved():
    build = kinds()["bias"]
    text = "That was a rather stupid remark, you fool."
    found = [bool(build(name="b", kind="bias", threshold=by).build().find(text, "user", "x")) for by in (-3, 3)]
    assert found == [True, False]


@pytest.mark.parametrize("text", ["", "!", "\ud83d\ud83d", "!" * 2000, ". " * 1000])
def test_odd_texts_are_no_obstacle(text):
    assert BIAS.find(text, "user", "x") == ()


@pytest.mark.parametrize(
    "text",
    [
        "Die Vorschriften gelten für alle Verträge, die in diesem Jahr geschlossen werden, und für alle anderen auch.",
        "Thành phố này rất lớn và có rất nhiều chợ, bến cảng và những con đường cũ ở gần bờ sông.",
    ],
)
def test_text_in_another_language_is_not_judged(text):
    assert not list(BIAS.find(normalised(text), "user", ""))
    assert BIAS.skips(text, "user") == "language"
    assert BIAS.skips("The rules are the same for all of us.", "user") == ""
