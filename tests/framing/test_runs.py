"""Events in a row that differ in one text alone are read as one, and leave as they came."""

import json
import random

import pytest

from extproc.dialects import anthropic_messages, gemini_generate_content, openai_chat, openai_responses
from extproc.wire.framing import Frame
from extproc.wire.framing.intake import Intake
from extproc.wire.framing.runs import run_of
from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Report
from tests.samples import exhaustive

CHAT = openai_chat.answers.texts_at
TEXTS = {
    "chat": (openai_chat, '{"choices":[{"index":0,"delta":{"content":"TEXT"},"finish_reason":null}]}'),
    "thinking": (openai_chat, '{"id":"c","created":1700000000,"choices":[{"delta":{"reasoning":"TEXT"}}]}'),
    "arguments": (openai_chat, '{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"TEXT"}}]}}]}'),
    "messages": (
        anthropic_messages,
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"TEXT"}}',
    ),
    "responses": (openai_responses, '{"type": "response.output_text.delta", "delta": "TEXT"}'),
    "gemini": (gemini_generate_content, '{"candidates":[{"content":{"parts":[{"text":"TEXT"}],"role":"model"}}]}'),
    "another API": (gemini_generate_content, '{"type":"x.delta","delta":{"q":"TEXT"}}'),
}
"""Events that say nothing but a text."""
WORDS = ["a", "é", "😀", "\\n", '\\"', "\\\\", "\\u00e9", "\\ud83d\\ude00", " b "]
ROWS = {
    "plain": "data: DATA\n\n",
    "named": "event: x\ndata:DATA\n\n",
    "CR": "data: DATA\r\r",
    "CRLF": "data: DATA\r\n\r\n",
    "comments": ": a\n\ndata: DATA\n\n",
    "blank lines": "data: DATA\n\n\n",
    "nothing between": 'data: {"choices":[]}\n\ndata: DATA\n\n',
}


def read(body, dialect, size=4096):
    """The events of a body that comes in pieces. Each step teaches the framing."""
    intake, found = Intake(SSE()), []
    for at in range(0, len(body), size):
        step = intake.take(body[at : at + size], at + size >= len(body))
        while True:
            found += step
            intake.learn(step, dialect.answers.reads, dialect.answers.texts_at, guarded=True)
            if not intake.more:
                break
            step = intake.take(b"", False)
    return found


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize(("dialect", "form"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("size", [997, 16 << 10])
def test_rows_are_read_as_one_event_with_all_of_their_text(dialect, form, row, size):
    said = [WORDS[number % len(WORDS)] for number in range(5_000)]
    body = "".join(row.replace("DATA", form.replace("TEXT", text)) for text in said).encode()
    found = read(body, dialect, size)
    assert b"".join(event.raw for event in found) == body
    texts = [event for event in found if event.data not in (None, b'{"choices":[]}')]
    assert sum(event.events for event in texts) == len(said)
    before, behind = form.split("TEXT")
    assert "".join(event.data.decode().removeprefix(before).removesuffix(behind) for event in texts) == "".join(said)
    assert all(json.loads(event.data) for event in texts)
    if size > 1_000:
        assert len(found) < len(said) / 3


@pytest.mark.parametrize(
    "data",
    [
        '{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}',
        '{"choices":[{"delta":{"content":"a"},"finish_reason":""}]}',
        '{"choices":[{"delta":{"content":"a"}}],"usage":{"total_tokens":1}}',
        '{"choices":[{"delta":{"content":"a"}}],"error":{"code":1}}',
        '{"choices":[{"delta":{"content":"a","refusal":"b"}}]}',
        '{"choices":[{"delta":{"content":"a","x":4111111111111111}}]}',
        '{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}',
        '{"choices":[{"delta":{"content":"a","content":"b"}}]}',
        '{"choices":[{"delta":{"tool_calls":[{"id":"c","function":{"arguments":"a"}}]}}]}',
        '{"choices":[{"delta":{"tool_calls":[{"function":{"name":"n","arguments":"a"}}]}}]}',
        '{"choices":[{"delta":{"tool_calls":[{"function":{"name":"a"}}]}}]}',
        '{"type":"response.output_text.done","delta":"a"}',
        '{"delta":{"name":"a"}}',
        '{"choices":[{"delta":{"content":["a"]}}]}',
        '{"x":"a"}',
        "[DONE]",
        "{",
    ],
)
def test_an_event_that_says_more_than_a_text_is_read_each_time(data):
    assert run_of(b"", f"data: {data}\n\n".encode(), data.encode(), CHAT) is None


@pytest.mark.parametrize(
    "text", [b"\xc3", b"\xed\xa0\x80", b"\xff", b"\\ud83d", b"\\ude00", b"\\x", b"\n", b'"', b"\x00"], ids=repr
)
def test_what_no_event_could_say_alone_is_in_no_row(text):
    one = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n'
    run = run_of(b"", one % b"a", (one % b"a")[6:-2], CHAT)
    assert run.take((one % b"a") * 9, 0).events == 9
    assert run.take((one % b"a") * 6 + (one % text) + (one % b"a") * 9, 0).events == 6
    assert run.take((one % text) * 9, 0) is None


def test_a_row_is_no_longer_than_an_event_may_be():
    one = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    framing = SSE(400)
    framing.learn_runs(framing.feed(one * 8), CHAT)
    assert [event.events for event in framing.feed(one * 20)] == [1] * 12 + [8]


def test_an_edited_row_is_one_event():
    one = b'event: x\nid: 7\ndata: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    framing = SSE()
    framing.learn_runs(framing.feed(one), CHAT)
    [row] = framing.feed(one * 9)
    assert row == Frame(one * 9, b'{"choices":[{"delta":{"content":"aaaaaaaaa"}}]}', events=9)
    row.edit(b'{"choices":[{"delta":{"content":"*"}}]}')
    assert row.raw == b'event: x\nid: 7\ndata: {"choices":[{"delta":{"content":"*"}}]}\n\n'


FORMS = {
    openai_chat: [
        '{"choices":[{"delta":{"content":"TEXT"}}]}',
        '{"choices":[{"index":1,"delta":{"reasoning":"TEXT"}}]}',
        '{"choices":[{"delta":{},"finish_reason":"stop"}]}',
        '{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}',
        '{"delta":"TEXT"}',
    ],
    anthropic_messages: [
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"TEXT"}}',
        '{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"TEXT"}}',
        '{"type":"ping"}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}',
    ],
    gemini_generate_content: [
        '{"candidates":[{"content":{"parts":[{"text":"TEXT"}]}}]}',
        '{"candidates":[{"content":{"parts":[{"text":"TEXT","thought":true}]}}]}',
        '{"candidates":[]}',
    ],
    openai_responses: [
        '{"type":"response.output_text.delta","delta":"TEXT"}',
        '{"type":"response.x.delta","delta":"TEXT"}',
    ],
}


def reported(events, dialect):
    """The report of the events of an answer."""
    report = Report()
    for event in events:
        if event.data is not None:
            before = report.output_events
            dialect.observe(event.data, report, event.tree)
            if report.output_events > before:
                report.output_events += event.events - 1
    return {
        name: getattr(report, name) for name in ("usage", "finish_reasons", "output_bytes", "output_events", "error")
    }


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 2_000), marks=exhaustive)])
def test_an_answer_reports_the_same_however_its_events_are_read(seeds):
    for seed in seeds:
        chance = random.Random(seed)
        dialect, row, said = chance.choice([*FORMS]), chance.choice([*ROWS.values()]), []
        while len(said) < 800:
            form = chance.choice(FORMS[dialect])
            said += [form.replace("TEXT", chance.choice([*WORDS, ""])) for _ in range(chance.choice([1, 3, 40, 200]))]
        body = "".join([row.replace("DATA", one) for one in said]).encode()
        found = read(body, dialect, chance.choice([100, 5_000, 16 << 10]))
        assert b"".join(event.raw for event in found) == body
        framing = SSE()
        assert reported(found, dialect) == reported([*framing.feed(body), *framing.end()], dialect), seed
