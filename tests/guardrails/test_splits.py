"""Streams cut anywhere: what leaves, the verdicts and the usage are those of the stream in one piece.

The streams are the recorded ones of `tests/golden` in every client API, and streams that spell out secrets piece by
piece. The usual run takes a sample of the cuts; `make exhaustive` takes every byte.
"""

import json
import random
import re
from pathlib import Path

import pytest

from extproc.dialects import client_apis
from extproc.guardrails import Detector, Finding
from extproc.guardrails._guard import Guard
from extproc.guardrails._mask import Mask
from extproc.guardrails._watch import Watch
from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Report
from tests.guardrails.fakes import Fake, Holding, Words
from tests.guardrails.streams import PATHS, heard, stream
from tests.samples import exhaustive, some

GOLDEN = Path(__file__).parent.parent / "golden" / "answers"
SECRETS = ["sk-ABCDEF123456", "ann.smith@example.org", "sk-é-ABCDEF", "4111 1111 1111 1111"]
PATTERN = r"sk-[A-Z0-9]{12}|[a-z.]+@[a-z.]+[a-z]|\d{4}(?: \d{4}){3}|(?<![a-z])[a-z]{4,9}(?![a-z])"
LONGEST = 40


class Judge(Detector):
    """Judges windows of 40 characters as a whole."""

    window = 40

    def find(self, text, role, where):
        return [Finding("many", (0, len(text)))] if text.count("e") > 3 else []


def settings_of(name, action):
    detector = {
        "default": lambda: Words("found", PATTERN, LONGEST),
        "hold": lambda: Holding("found", r"[^\s]*@[^\s]*|sk-[A-Z0-9]{12}\S*", LONGEST),
        "window": Judge,
    }[name]()
    return Fake(name="g", on=["output"], action=action, detector=detector)


def play(dialect, chunks, settings, *, first_window=20, ended=True):
    """What leaves of a stream: the bytes, whether the head left, the refusal, the verdicts, the usage."""
    guard = settings if isinstance(settings, Guard) else Guard(settings, 0)
    verdicts, mask, report = [], Mask(guard.settings), Report()
    watch = Watch(
        client_apis()[dialect],
        [guard],
        lambda _guard, kind, found: mask(kind, found),
        verdicts.append,
        plain=False,
        first_window=first_window,
    )
    framing, out = SSE(), b""
    for index, chunk in enumerate(chunks):
        end = ended and index == len(chunks) - 1
        events = [*framing.feed(chunk), *(framing.end() if end else ())]
        for event in events:
            if event.data is not None:
                client_apis()[dialect].observe(event.data, report)
        out += b"".join(event.raw for event in watch.take(events, end))
        if watch.refusal is not None:
            break
    told = [(verdict.action, dict(verdict.kinds), verdict.reason) for verdict in verdicts]
    return out, watch.refusal and watch.refusal.kind.code, told, report.usage if watch.refusal is None else None


def spelled(dialect):
    """Streams that spell out the secrets, in pieces of several sizes and with every end of line."""
    rand = random.Random(7)
    text = " and ".join(f"here is {secret}" for secret in SECRETS) + ". Fine?"
    for size in (1, 3, 8):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        arguments = json.dumps({"to": SECRETS[1], "n": 1234567, "x": ["a\n" + SECRETS[0]]})
        yield stream(
            dialect,
            pieces,
            thoughts=pieces[:9],
            arguments=[arguments[start : start + size] for start in range(0, len(arguments), size)],
            newline=rand.choice(["\n", "\r\n", "\r"]),
            escape=size == 3,
        )


def recorded():
    for path in sorted(GOLDEN.rglob("*.sse")):
        dialect = path.stem if path.stem in PATHS else path.relative_to(GOLDEN).parts[0]
        if dialect in PATHS:
            yield dialect, path.read_bytes()


STREAMS = [*((dialect, body) for dialect in PATHS for body in spelled(dialect)), *recorded()]
MODES = [("default", "mask"), ("hold", "mask"), ("window", "mask"), ("default", "block"), ("default", "audit")]


def framed(*chunks):
    """The events of each chunk, as they stand."""
    framing = SSE()
    events = [list(framing.feed(chunk)) for chunk in chunks]
    events[-1] += framing.end()
    return tuple(tuple((event.raw, event.data) for event in part) for part in events)


def check(number, mode, cuts):
    """Play the stream in two parts, for every cut. Cuts that give the guardrails the same events are played once."""
    (dialect, body), (name, action) = STREAMS[number], mode
    settings = settings_of(name, action)
    expected = play(dialect, [body], settings)
    played = set()
    for cut in cuts:
        first, second = framed(body[:cut], body[cut:])
        if (key := (len(first), hash((first, second)))) not in played:
            played.add(key)
            assert play(dialect, [body[:cut], body[cut:]], settings) == expected, cut
    return dialect, body, settings, expected


@pytest.mark.parametrize("number", range(len(STREAMS)))
def test_a_cut_changes_nothing(number):
    mode = MODES[number % len(MODES)]
    dialect, body, settings, expected = check(number, mode, some(range(1, len(STREAMS[number][1])), 5))
    assert play(dialect, [bytes([byte]) for byte in body], settings) == expected


@exhaustive
@pytest.mark.parametrize("number", range(len(STREAMS)))
def test_no_cut_changes_anything(number):
    """Every stream is masked, and judged in one of the other ways."""
    for mode in {MODES[number % len(MODES)], ("hold", "mask")}:
        check(number, mode, range(1, len(STREAMS[number][1])))


@pytest.mark.parametrize("number", range(len(STREAMS)))
def test_the_words_that_leave_are_those_of_the_whole_text_masked(number):
    dialect, body = STREAMS[number]
    out, refused, _, _ = play(dialect, [body], settings_of("default", "mask"))
    before, after = heard(dialect, body), heard(dialect, out)
    if refused and not body.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")):  # an event that broke off cannot be masked
        return
    assert refused is None
    for kind in ("text", "thoughts"):
        assert after[kind] == re.sub(PATTERN, "[FOUND]", before[kind])
    decoder, at = json.JSONDecoder(), 0
    while at < len(after["arguments"]):  # of several calls
        _, at = decoder.raw_decode(after["arguments"], at)
    assert not re.search(r"sk-[A-Z0-9]{12}|ann.smith@", json.dumps(after))


@pytest.mark.parametrize("dialect", PATHS)
def test_no_byte_of_a_secret_leaves_before_it_is_masked(dialect):
    """At no time does the client have a part of a secret: bytes that left are never taken back."""
    for body in spelled(dialect):
        for end in some(range(1, len(body)), 60):
            out, _, _, _ = play(dialect, [body[:end]], settings_of("default", "mask"), ended=False)
            words = heard(dialect, out)["text"]
            assert "sk-A" not in words
            assert "4111" not in words
            assert "@" not in words


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_long_text_is_masked_at_every_border_of_its_blocks(size):
    text = " ".join(f"{'x' * (number % 37)} sk-ABCDEF{number:06d}" for number in range(300))
    body = stream("openai_chat", [text[start : start + size] for start in range(0, len(text), size)])
    out, _, verdicts, _ = play("openai_chat", [body], settings_of("hold", "mask"))
    assert verdicts == [("mask", {"found": 300}, "")]
    assert heard("openai_chat", out)["text"] == re.sub(r"sk-\w{12}", "[FOUND]", text)


def test_a_match_that_grows_without_end_is_not_let_go():
    settings = Fake(name="g", on=["output"], action="mask", detector=Words("k", "BEGIN[a-z]*", 20))
    body = stream("openai_chat", ["hello BEGIN", *["abcdefgh"] * 100, " END"])
    out, _, _, _ = play("openai_chat", [body], settings)
    assert heard("openai_chat", out)["text"] == "hello [K] END"


def event(index, text):
    return b"data: " + json.dumps({"choices": [{"index": index, "delta": {"content": text}}]}).encode() + b"\n\n"


def test_a_choice_that_says_nothing_more_does_not_hold_the_others_for_ever(monkeypatch):
    monkeypatch.setattr("extproc.guardrails._watch.MOST_WAITING", 5000)
    others = [event(1, f"word {number} ") for number in range(300)]
    out, _, _, _ = play(
        "openai_chat", [b"".join([event(0, "a tail"), *others])], settings_of("default", "mask"), ended=False
    )
    assert len(out) > 10_000


def test_a_choice_that_goes_on_after_a_pause_is_still_masked(monkeypatch):
    monkeypatch.setattr("extproc.guardrails._watch.MOST_WAITING", 500)
    settings = Fake(name="g", on=["output"], action="mask", detector=Words("key", r"sk-[A-Z0-9]{12}", 20))
    body = [event(0, "ok sk-ABC"), *[event(1, "word ")] * 50, event(0, "DEF123"), event(0, "456 end")]
    out, _, verdicts, _ = play("openai_chat", [b"".join(body)], settings)
    said = [json.loads(part.data)["choices"][0] for part in SSE().feed(out)]
    rest = "".join(choice["delta"]["content"] for choice in said if choice["index"] == 0)
    assert rest == "ok sk-ABC end", "what left is gone, the rest is masked"
    assert verdicts == [("mask", {"key": 1}, "")]


@pytest.mark.parametrize(("wait", "left"), [(10.0, False), (-1.0, True)])
def test_events_without_text_do_not_hold_the_head_for_ever(monkeypatch, wait, left):
    monkeypatch.setattr("extproc.guardrails._watch.LONGEST_WAIT", wait)
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'
    out, _, _, _ = play("anthropic_messages", [ping] * 3, settings_of("default", "block"), ended=False)
    assert (out != b"") is left
