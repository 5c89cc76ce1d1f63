"""Banned and allowed topics, from a few sentences each."""

import pytest
from pydantic import ValidationError

from extproc.guardrails import kinds

MEDICINE = [
    "which pills help against a headache",
    "is this rash on my arm dangerous",
    "how much ibuprofen may I take a day",
    "what does my blood test mean",
    "can I take antibiotics while pregnant",
    "what are the symptoms of diabetes",
    "should I see a doctor about my fever",
    "which medicine lowers blood pressure",
    "is it safe to mix these two medicines",
    "diagnose the pain in my chest",
]
ORDERS = [
    "where is my order",
    "when will my parcel arrive",
    "I want to return these shoes",
    "cancel my order please",
    "the package was damaged on delivery",
    "can I change the delivery address of my order",
    "how do I track my parcel",
    "I got the wrong item in my order",
    "refund for a returned item",
    "is delivery free for large orders",
]


def build(**settings):
    return kinds()["topics"](name="t", kind="topics", **settings).build()


def kinds_of(detector, text, role="user"):
    return [found.kind for found in detector.find(text, role, "x")]


def test_a_banned_topic_is_found_in_other_words():
    detector = build(banned={"medicine": MEDICINE})
    assert kinds_of(detector, "how many pills of ibuprofen can I take for a fever") == ["medicine"]
    assert kinds_of(detector, "please write a poem about autumn leaves") == []


def test_a_passage_in_a_long_text_is_found_with_its_place():
    filler = "The concert was sold out long before the band came to town, and the crowd sang along. " * 8
    text = filler + "Which medicine lowers my blood pressure, and is it dangerous? " + filler
    [found] = build(banned={"medicine": MEDICINE}).find(text, "user", "x")
    assert "blood pressure" in text[slice(*found.span)]
    assert len(text[slice(*found.span)]) < len(text) / 2


def test_what_is_near_no_allowed_topic_is_off_topic():
    detector = build(allowed={"orders": ORDERS})
    assert kinds_of(detector, "my order has not arrived yet, where is the parcel?") == []
    assert kinds_of(detector, "write a poem about autumn leaves in the forest") == ["off_topic"]
    assert kinds_of(detector, "thanks, that is all") == []
    assert kinds_of(detector, "write a poem about autumn leaves in the forest", role="system") == []


def test_strictness_decides_what_is_near():
    text = "does a doctor have to be at each concert in the park with the band"
    assert kinds_of(build(banned={"medicine": MEDICINE}, strictness=0), text) == ["medicine"]
    assert kinds_of(build(banned={"medicine": MEDICINE}, strictness=1), text) == []


@pytest.mark.parametrize("text", ["", "?!", "\ud83d", "the of and", "日本語の文章", "a " * 2000])
def test_odd_texts_are_no_obstacle(text):
    assert kinds_of(build(banned={"medicine": MEDICINE}), text) == []


def test_settings_need_a_topic_with_three_examples():
    with pytest.raises(ValidationError, match="banned"):
        build()
    with pytest.raises(ValidationError):
        build(banned={"one": ["a", "b"]})
