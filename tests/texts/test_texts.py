"""Recorded texts: encryption, what is drawn and collected, and what a guardrail found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.money.texts import Recorder, Text, TextKeys, bytes_of
from extproc.money.texts.settings import RecordSettings
from extproc.money.texts.stages import RECORDING, Collect, Draw, KeepText
from extproc.wire.framing.sse import SSE
from extproc.words.exchange import Verdict
from extproc.words.values import Secret

ONE, TWO, SHORT = "k" * 16, "l" * 40, "k" * 15


@pytest.fixture
def secrets(monkeypatch):
    """Call it with values: references to them."""

    def make(*values):
        for number, value in enumerate(values):
            monkeypatch.setenv(f"RECORD_{number}_{value[:4]}", value)
        return [Secret("env", f"RECORD_{number}_{value[:4]}") for number, value in enumerate(values)]

    return make


# --- encryption


@given(st.binary(max_size=2000), st.binary(max_size=2000), st.booleans())
def test_a_text_comes_back_as_it_was(request_, answer, cut):
    keys = TextKeys(())
    keys._keys, keys._first = {"x": b"k" * 32}, "x"
    text = Text(request_, answer, cut)
    assert keys.open(keys.seal("id-1", 1.0, "ada", text)) == text


def test_a_newer_secret_encrypts_and_an_older_one_still_opens(secrets):
    [one, two] = secrets(ONE, TWO)
    old, both, new = TextKeys([one]), TextKeys([two, one]), TextKeys([two])
    text = Text(b"Hello", b"World")
    before, after = (keys.seal("id-1", 1.0, "ada", text) for keys in (old, both))
    assert before.key != after.key
    assert both.open(before) == both.open(after) == new.open(after) == text
    assert new.open(before) is None
    assert b"Hello" not in before.content.encode()


def test_a_changed_text_and_one_of_another_exchange_do_not_open(secrets):
    keys = TextKeys(secrets(ONE))
    sealed = keys.seal("id-1", 1.0, "ada", Text(b"Hello"))
    assert keys.open(sealed._replace(id="id-2")) is None
    assert keys.open(sealed._replace(content="AAAA" + sealed.content[4:])) is None


def test_without_a_secret_of_some_length_nothing_is_sealed(secrets):
    assert not TextKeys([Secret("env", "UNSET_FOR_SURE")]).able
    assert not TextKeys(secrets(SHORT)).able
    assert TextKeys(secrets(ONE)).able


# --- stages


class World:
    def __init__(self, **settings):
        self.settings = RecordSettings(keys=["env:A"], **settings)
        self.recorder, self.counts = Recorder(), []
        self.draw = Draw(self.settings, self.recorder, self.counts.append)
        self.collect = Collect(self.settings, self.recorder)
        self.keep = KeepText(self.recorder, self.counts.append, lambda: 7.0)

    def run(self, sent, answer=b"", verdicts=(), *, forwarded=True):
        """The texts that wait after an exchange."""
        self.draw(sent)
        framing = SSE(1 << 20)
        if self.collect.needed(sent, framing):
            self.collect(sent, [*framing.feed(answer), *framing.end()], end=True)
        sent.route.forwarded = forwarded
        for verdict in verdicts:
            sent.findings.add(verdict)
        self.keep(sent)
        self.keep(sent)
        return self.recorder.take()


def chat(exchange, text="Hello", **more):
    return exchange({"model": "v", "messages": [{"role": "user", "content": text}]}, **more)


EVENTS = b'data: {"a": 1}\n\ndata: {"b": 2}\n\n'
FOUND = {"email": 1}


def test_a_request_and_its_answer_wait_to_be_written(exchange):
    world, sent = World(), chat(exchange)
    [(id, time, consumer, text)] = world.run(sent, EVENTS)
    assert (id, time, consumer) == (sent.id, 7.0, "alice")
    assert text == Text(bytes(sent.request.body), EVENTS, path="/v1/chat/completions")
    assert world.recorder.size == bytes_of([(id, time, consumer, text)])


@pytest.mark.parametrize(
    ("verdict", "kept"),
    [
        (Verdict("g", "input", "mask", FOUND), "both"),
        (Verdict("g", "input", "audit", FOUND), "none"),
        (Verdict("g", "input", "annotate", FOUND), "none"),
        (Verdict("g", "input", "failed", reason="timeout"), "none"),
        (Verdict("g", "output", "mask", FOUND), "request"),
        (Verdict("g", "output", "audit", FOUND), "request"),
        (Verdict("g", "tool_results", "audit", FOUND), "request"),
    ],
)
def test_what_a_guardrail_found_is_not_kept(exchange, verdict, kept):
    world = World()
    found = world.run(chat(exchange), EVENTS, [verdict])
    assert world.counts == (["withheld"] if kept == "none" else [])
    assert [(bool(text.request), bool(text.answer), text.withheld) for *_, text in found] == {
        "both": [(True, True, False)],
        "request": [(True, False, True)],
        "none": [],
    }[kept]
    assert world.recorder.size == bytes_of(found)


def test_a_refused_request_is_not_kept(exchange):
    world = World()
    assert world.run(chat(exchange), forwarded=False) == []
    assert (world.counts, world.recorder.size) == (["withheld"], 0)


def test_only_the_share_and_the_matching_requests_are_drawn(exchange):
    assert World(share=0).run(chat(exchange)) == []
    drawn = sum(len(World(share=0.5).run(chat(exchange))) for _ in range(200))
    assert 60 < drawn < 140
    only = World(match={"label.run": "x*"})
    assert only.run(chat(exchange)) == []
    assert len(only.run(chat(exchange, labels={"run": "x1"}))) == 1


def test_a_long_text_is_cut_and_without_room_nothing_is_drawn(exchange):
    world = World(most="1KiB", memory="1MiB")
    [(*_, text)] = world.run(chat(exchange, "x" * 5000), EVENTS * 100)
    assert (len(text.request), len(text.answer), text.cut) == (1024, 1024, True)
    world.recorder.size = 1 << 20
    assert world.run(chat(exchange)) == []
    assert world.counts == ["dropped"]
    world.recorder.size = (1 << 20) - 500
    sent = chat(exchange)
    [(*_, text)] = world.run(sent, EVENTS * 100)
    assert (text.cut, len(text.answer) < 500) == (True, True)
    assert RECORDING in sent.features
