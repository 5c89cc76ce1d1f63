"""The report that is read from Envoy's windows, against the one that is read from the body."""

import random

import pytest

from extproc.dialects import client_apis
from extproc.exchange.response import Count
from extproc.exchange.unread import BESIDE, HEAD, TAIL
from extproc.exchange.unread.windows import Reading, spans
from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Report
from extproc.words.exchange import RequestHead, ResponseHead
from extproc.words.tries import Seen
from tests.exchanges import new_exchange
from tests.samples import exhaustive, some
from tests.unread.streams import APIS, event, stream
from tests.unread.watch import Watch, watched

each_api = pytest.mark.parametrize("api", APIS)
LIMIT = 1 << 20


def body_report(api, body, *, whole=True):
    """As `usage.mode: body` reports it."""
    exchange = new_exchange("id-1", RequestHead("POST", "", {}))
    exchange.request.dialect, exchange.answer.report = client_apis()[api], Report()
    exchange.answer.head = ResponseHead(200, {})
    framing = SSE(LIMIT)
    events = [*framing.feed(body), *(framing.end() if whole else ())]
    Count()(exchange, events, True)
    return exchange.answer.report


def log_report(api, seen, total):
    return Reading(seen, total, client_apis()[api], LIMIT).report


def told(report):
    """What a report tells of an answer, but for the size of its text."""
    late = report.told_at is not None and report.output_bytes > report.told_at
    return report.usage, report.usage_refused, report.model, report.finish_reasons, report.error, late


def text(report):
    return report.output_bytes, report.output_events, bytes(report.sample.kept), report.thought


def pieces(body, size):
    return [body[at : at + size] for at in range(0, len(body), size)]


def by_event(body):
    framing = SSE(LIMIT)
    return [frame.raw for frame in (*framing.feed(body), *framing.end())]


# --- whole answers


@each_api
@pytest.mark.parametrize("tool", [False, True])
@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("size", [1, 7, 300, 1 << 20])
def test_an_answer_within_the_tail_is_reported_alike(api, tool, usage, size):
    body = stream(api, 12, usage=usage, tool=tool)
    assert len(body) < TAIL
    found, wanted = log_report(api, watched(pieces(body, size)), len(body)), body_report(api, body)
    assert (told(found), text(found)) == (told(wanted), text(wanted))


@each_api
@pytest.mark.parametrize("words", [200, 3000])
@pytest.mark.parametrize("size", [97, 16_000, 1 << 20])
def test_a_long_answer_with_usage_is_told_alike(api, words, size):
    """The final event of responses holds the whole answer; what only its beginning says is not known then."""
    body = stream(api, words)
    assert len(body) > TAIL
    found, wanted = log_report(api, watched(pieces(body, size)), len(body)), body_report(api, body)
    assert (found.usage.input_tokens, found.usage.source) == (300, "provider")
    assert [told(found)[index] for index in (0, 1, 2, 4, 5)] == [told(wanted)[index] for index in (0, 1, 2, 4, 5)]
    if api != "openai_responses":
        assert told(found) == told(wanted)


@each_api
def test_the_events_of_a_long_answer_with_usage_are_counted(api):
    """The thinking that a model does unseen is learned from what its tokens are more than these."""
    body = stream(api, 2000)
    found, wanted = log_report(api, watched(by_event(body)), len(body)), body_report(api, body)
    assert wanted.output_events <= found.output_events < wanted.output_events + 20
    assert found.told_at == found.output_bytes <= wanted.output_bytes


def test_a_count_beyond_the_limit_is_believed_where_the_bytes_allow_it():
    """See `accounting.used`: as much text as there are tokens must have been seen."""
    said = {"model": "m", "choices": [{"index": 0, "delta": {"content": " several words in one event"}}]}
    for tokens, believed in ((9_000, 9_000), (40_000, None)):
        used = event({"model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})
        body = event(said) * 1000 + used
        found = log_report("openai_chat", watched(pieces(body, 1000)), len(body))
        assert (found.output_bytes >= tokens) is (believed is not None)
        assert found.told_at == found.output_bytes


@each_api
def test_a_long_answer_without_usage_counts_no_less_text(api):
    body = stream(api, 2000, usage=False)
    found, wanted = log_report(api, watched(by_event(body)), len(body)), body_report(api, body)
    assert found.output_bytes >= wanted.output_bytes
    assert found.output_events >= wanted.output_events
    if api != "openai_responses":  # says all of it twice
        assert found.output_bytes < 1.5 * wanted.output_bytes


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("words", [12, 300])
@pytest.mark.parametrize("api", ["openai_chat", "anthropic_messages"])
def test_every_end_of_line(api, words, line):
    body = stream(api, words).replace(b"\n", line)
    seen = watched(pieces(body, 1000))
    assert told(log_report(api, seen, len(body))) == told(body_report(api, body))
    assert seen.lines == body.count(b"data:")


@each_api
def test_lines_are_counted_however_they_are_cut(api):
    body = stream(api, 12)
    for size in range(1, 40):
        assert watched(pieces(body, size)).lines == len([1 for line in body.split(b"\n") if line.startswith(b"data:")])


@each_api
def test_data_over_several_lines(api):
    """JSON may be cut into lines where it has white space."""
    body = stream(api, 200).replace(b',"', b',\ndata: "')
    found, wanted = log_report(api, watched(pieces(body, 500)), len(body)), body_report(api, body)
    assert found.usage == wanted.usage is not None


def test_usage_that_comes_early():
    usage = event({"model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    word = event({"model": "m", "choices": [{"index": 0, "delta": {"content": " word"}}], "usage": None})
    for before, behind in ((0, 500), (250, 250), (500, 500)):
        body = word * before + usage + word * behind
        found = log_report("openai_chat", watched(by_event(body)), len(body))
        assert found.usage == body_report("openai_chat", body).usage is not None


def test_usage_in_every_event():
    body = b"".join(
        event(
            {
                "model": "m",
                "choices": [{"index": 0, "delta": {"content": " word"}}],
                "usage": {"prompt_tokens": 3, "completion_tokens": number},
            }
        )
        for number in range(1, 500)
    )
    for size in (61, 700, 1 << 20):
        assert log_report("openai_chat", watched(pieces(body, size)), len(body)).usage.output_tokens == 499


@pytest.mark.parametrize("words", [12, 300])
def test_an_answer_that_is_no_json(words):
    body = b"data: <html>oops</html>\n\n" * words * 10
    found, wanted = log_report("openai_chat", watched(by_event(body)), len(body)), body_report("openai_chat", body)
    assert found.output_bytes == pytest.approx(wanted.output_bytes, rel=0.01)
    assert found.output_bytes >= wanted.output_bytes - words * 10, "less the line ends between what is read together"
    assert found.usage is None


def test_nothing_at_all():
    assert log_report("openai_chat", Seen(ended=True), 0) == Report()
    assert log_report("openai_chat", Seen(), 5000) == Report()


# --- answers that broke off


@each_api
@pytest.mark.parametrize(("words", "cuts"), [(6, 500), (400, 50), pytest.param(6, 10_000, marks=exhaustive)])
def test_an_answer_cut_anywhere_is_charged_no_less(api, words, cuts):
    """The client may have left after any byte; Envoy tells how many there were, and the script of some more or less."""
    body = stream(api, words)
    for end in some(range(len(body)), cuts):
        watch = Watch()
        for piece in by_event(body[:end]):
            watch.feed(piece)
        found, wanted = log_report(api, watch.seen, end), body_report(api, body[:end], whole=False)
        assert found.usage == wanted.usage, end
        if wanted.usage is None or wanted.usage.source != "provider":  # else the text does not matter
            assert found.output_bytes >= wanted.output_bytes, end
        assert found.output_events >= wanted.output_events, end
        assert bool(found.output_bytes) == bool(wanted.output_bytes), end  # else the whole bound is charged


@each_api
@pytest.mark.parametrize("after", [1, 17, 40, 63])
def test_what_came_after_the_last_word_of_the_script_counts(api, after):
    body = stream(api, 2000)
    events = by_event(body)
    told_of, left = events[: 5 * 64], events[: 5 * 64 + after]
    watch = Watch()
    for piece in told_of:
        watch.feed(piece)
    size = sum(map(len, left))
    found, wanted = log_report(api, watch.seen, size), body_report(api, b"".join(left), whole=False)
    assert wanted.output_bytes <= found.output_bytes <= 1.6 * wanted.output_bytes + 500
    assert found.output_events >= wanted.output_events


# --- the first text


def test_the_first_text_is_timed_by_the_piece_that_completed_it():
    body = stream("anthropic_messages", 5)
    watch = Watch()
    for number, piece in enumerate(by_event(body)):
        watch.feed(piece, number / 10)
    reading = Reading(watch.end(), len(body), client_apis()["anthropic_messages"], LIMIT)
    assert by_event(body)[2].count(b"thinking_delta") == 1
    assert reading.first_token(watch.seen) == pytest.approx(0.2)


def test_an_answer_without_text_has_no_first_token():
    body = event({"model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    seen = watched([body])
    assert Reading(seen, len(body), client_apis()["openai_chat"], LIMIT).first_token(seen) is None


# --- the parts


def test_windows_are_joined_where_they_touch():
    seen = Seen(head=b"abcdef", usage=b"efg", usage_at=4, tail=b"xyz", tail_at=20)
    assert spans(seen) == [(0, b"abcdefg"), (20, b"xyz")]
    assert spans(Seen(tail=b"abc")) == [(0, b"abc")]
    assert spans(Seen(head=b"abc", tail=b"bc", tail_at=1, usage=b"c", usage_at=2)) == [(0, b"abc")]


def test_a_request_that_is_echoed_tells_no_usage():
    """The final event of responses repeats the request's tools, whose schemas a client writes."""
    lie = {"properties": {"usage": {"usage": {"input_tokens": 1, "output_tokens": 1}}}}
    response = {
        "id": "r",
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "x" * TAIL}]}],
        "tools": [{"type": "function", "name": "f", "parameters": lie}],
        "usage": {"input_tokens": 300, "output_tokens": 77},
        "metadata": {"usage": '"usage":{"input_tokens":2,"output_tokens":2}'},
    }
    for document in (response, dict(reversed(response.items()))):
        body = event({"type": "response.completed", "response": document}, "response.completed")
        usage = log_report("openai_responses", watched(pieces(body, 1000)), len(body)).usage
        assert usage is None or (usage.input_tokens, usage.output_tokens) == (300, 77)
    assert (
        log_report("openai_responses", watched([event({"response": response, "type": "x"})]), 10**5).usage is not None
    )


def test_arbitrary_bytes_and_pieces_never_raise():
    chance = random.Random(7)
    alphabet = [b"data: ", b"\n", b"\r", b'"usage":', b'{"usage":{', b"}", b'"', b"\\", b"\xff", b"x" * 500, b": c\n\n"]
    for _ in range(300):
        parts = [chance.choice(alphabet) for _ in range(chance.randrange(200))]
        ended = chance.random() < 0.5
        seen = watched(parts, ended=ended)
        total = sum(map(len, parts)) + chance.choice([0, 10, 10**5])
        assert len(seen.head) <= HEAD
        assert len(seen.tail) <= TAIL
        assert len(seen.usage) <= 2 * BESIDE
        for api in APIS:
            report = log_report(api, seen, total)
            assert report.output_bytes >= 0
