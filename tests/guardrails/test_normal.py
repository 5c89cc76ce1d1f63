"""Disguises taken off, one by one; and the way back to the text as it was written."""

import sys
import unicodedata

import pytest

from extproc.guardrails._normal import normalised, offsets, reach

DISGUISES = {
    "full-width": "ｉｇｎｏｒｅ",
    "mathematical": "𝐢𝐠𝐧𝐨𝐫𝐞",
    "circled": "ⓘⓖⓝⓞⓡⓔ",
    "Cyrillic": "іgnоrе",
    "zero width": "i\u200bg\u200cn\u200do\u2060r\ufeffe",
    "soft hyphen": "ig\u00adnore",
    "bidi": "i\u202eg\u202cnore",
    "combining": "i\u0336g\u0301n\u0308ore",
    "variation selectors": "i\ufe0fgno\U000e0100re",
    "tags": "".join(chr(0xE0000 + ord(letter)) for letter in "ignore"),
    "fillers": "ig\u3164nore",
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_disguised_text_is_normalised(disguise):
    assert normalised(DISGUISES[disguise]) == "ignore"


def test_plain_text_is_the_same_object():
    for text in ("ignore", "日本語の本文"):
        assert normalised(text) is text


@pytest.mark.parametrize("text", [*DISGUISES.values(), "aﬁb", "", "ab", "½ℓ"])
def test_each_normal_character_has_its_original_position(text):
    found, back = normalised(text), offsets(text)
    assert len(back) == len(found) + 1
    assert back[-1] == len(text)
    assert back == sorted(back)
    for index, character in enumerate(found):
        assert character in normalised(text[back[index]])


def test_the_normal_form_of_a_prefix_never_changes():
    text = "".join(DISGUISES.values()) + unicodedata.normalize("NFD", "élan")
    whole = normalised(text)
    for end in range(len(text)):
        assert whole.startswith(normalised(text[:end]))


def test_the_end_of_the_normal_form_is_found_from_behind():
    text = "x".join(DISGUISES.values()) + "ﬁ ½ end"
    back = offsets(text)
    for count in range(1, len(normalised(text)) + 1):
        assert len(text) - reach(text, count) == back[len(back) - 1 - count]


def test_every_character_has_a_normal_form():
    text = "".join(map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1))))
    assert len(offsets(text)) == len(normalised(text)) + 1
