"""The promise of `hold`, for every kind: a match that begins in front of the held text is found already.

And what follows from it: a finding never leaves a stream that is masked, however its text was cut into events.
"""

import json
from functools import cache

import pytest

from extproc.guardrails._guard import Guard
from tests.guardrails.streams import heard, stream
from tests.guardrails.test_contract import EXAMPLES, build
from tests.guardrails.test_splits import play

each = pytest.mark.parametrize("kind", EXAMPLES)
AROUND = ["Well, {} and more", "1 {} 2\n{}", 'say "{}": ({}).\n\nEND']
KEY = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 6 + "-----END PRIVATE KEY-----"
MORE = {
    "pii": ["4111 1111 1111 1111", "+49 30 901820", "DE89 3704 0044 0532 0130 00", "SSN 078-05-1120", "192.168.17.4"],
    "secrets": ["ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3gH6", "postgres://user:p4ssw0rd@db.example.com/x", KEY],
}


@cache
def guard_of(kind):
    return Guard(build(kind, action="mask", on=["output"]), 0)


def texts(kind):
    return [around.replace("{}", example) for example in (EXAMPLES[kind][1], *MORE.get(kind, ())) for around in AROUND]


@each
def test_what_is_not_held_is_decided(kind):
    guard = guard_of(kind)
    for text in texts(kind):
        whole = guard.hits(text, "assistant", "")
        for end in range(len(text)):
            known = end - guard.held(text[:end])
            now = [(start, found) for start, _, found, *_ in guard.hits(text[:end], "assistant", "")]
            late = [(start, found) for start, _, found, *_ in whole if start < known and (start, found) not in now]
            assert not late, (text[:end], late)


@each
@pytest.mark.parametrize("size", [1, 4])
def test_a_streamed_finding_is_masked_as_in_one_piece(kind, size):
    settings = guard_of(kind)
    if settings.window:
        return
    for text in texts(kind):
        whole, _, _, _ = play("openai_chat", [stream("openai_chat", [text])], settings)
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        parts, _, _, _ = play("openai_chat", [stream("openai_chat", pieces)], settings)
        if KEY not in text:  # the greedy pattern of a key joins two of them where it sees both
            assert heard("openai_chat", parts) == heard("openai_chat", whole), text
        assert EXAMPLES[kind][1] not in json.dumps(heard("openai_chat", parts))
        assert "MIIEv" not in json.dumps(heard("openai_chat", parts))
