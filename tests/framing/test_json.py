import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from extproc.wire.framing.edges import KEPT
from extproc.wire.framing.json import InvalidJSON, WholeBody, parse

DEPTH = 128


def refused(body, depth=DEPTH):
    with pytest.raises(InvalidJSON) as error:
        parse(body, depth)
    return str(error.value)


# --- duplicate keys (T2)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"model":"cheap","model":"dear"}',
        rb'{"model":"cheap","m\u006fdel":"dear"}',
        rb'{"m\u006fdel":"cheap","\u006dodel":"dear"}',
        rb'{"a":1,"a" :2}',
        rb'{"a" :1,"a":2}',
        b'{"a"\t:1,"a"\n:2}',
        b'{"a"\r\n :1,"a":2}',
        rb'{"a":{"b":1,"b":1}}',
        rb'[[{"x":0},{"a":1,"b":{"c":[{"d":1,"d":2}]}}]]',
        rb'{"a\\":1,"a\\":2}',
        rb'{"a\\":1,"b":1,"b":2}',  # the backslash must not hide the duplicate
        rb'{"a\"":1,"a\"":2}',
        rb'{"a\\\"":1,"a\\\"":2}',
        rb'{"":1,"":2}',
        rb'{":":1,":":2}',
        rb'{"a":":","a":":"}',
        rb'{"a":"\":","a":1}',
        rb'{"a":"\\\":","a":"\":"}',
        rb'{"stream":false,"x":"\":\":\":","stream":true}',
        rb'{"max_tokens":1,"max_tokens":null}',
        '{"é":1,"\\u00e9":2}'.encode(),
    ],
)
def test_a_key_given_twice_is_refused(body):
    assert "twice" in refused(body)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"a":1,"A":2}',
        rb'{"a":{"a":{"a":1}}}',
        rb'[{"a":1},{"a":1}]',
        rb'{"a":":a\":","b":":"}',
        rb'{"a":"\"a\":1,\"a\":2"}',
        rb'{"a\\":1,"a":2}',
        rb'{"a\"":1,"a":2}',
        rb'{"a" :1, "b" : ":"}',
        rb'{"a":"\\","b":"\\\":"}',
        rb'{"":1," ":2}',
        '{"\u00e9":1,"e\u0301":2}'.encode(),  # composed and decomposed: two keys for every parser
    ],
)
def test_different_keys_that_look_alike_are_accepted(body):
    assert parse(body, DEPTH) == json.loads(body)


def test_the_message_names_the_key_and_truncates_it():
    assert "'model'" in refused(b'{"model":1,"model":2}')
    key = b"k" * 100_000
    assert len(refused(b'{"' + key + b'":1,"' + key + b'":2}')) < 200


def test_an_answer_may_begin_with_a_byte_order_mark():
    framing = WholeBody()
    framing.feed(b"\xef\xbb")
    framing.feed(b"\xbf{}")
    [event] = framing.end()
    assert (event.raw, event.data) == (b"\xef\xbb\xbf{}", b"{}")


STRINGS = st.text(st.sampled_from('a"\\:{} é\n') | st.characters(exclude_categories=["Cs"]), max_size=6)
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.floats(-1e300, 1e300), STRINGS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=15,
)
SPACES = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n  "])


def write_string(draw, text):
    """JSON of `text`. Each character is escaped or not, as hypothesis chooses."""
    if draw(st.booleans()):
        return json.dumps(text, ensure_ascii=draw(st.booleans()))
    return '"' + "".join(f"\\u{unit:04x}" for unit in utf16(text)) + '"'


def utf16(text):
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[start : start + 2], "big") for start in range(0, len(data), 2)]


def write(draw, tree, twice, place):
    """JSON of `tree` in any formatting. The object with the index `twice` has one of its keys again, anywhere in it."""
    space = lambda: draw(SPACES)  # noqa: E731
    if isinstance(tree, dict):
        items = list(tree.items())
        number, place[0] = place[0], place[0] + 1
        if number == twice:
            again = draw(st.sampled_from(sorted(tree)))
            items.insert(draw(st.integers(0, len(items))), (again, draw(TREES)))
        inside = [
            space() + write_string(draw, key) + space() + ":" + space() + write(draw, value, twice, place)
            for key, value in items
        ]
        return "{" + ",".join(inside) + space() + "}"
    if isinstance(tree, list):
        return "[" + ",".join(space() + write(draw, item, twice, place) + space() for item in tree) + space() + "]"
    return write_string(draw, tree) if isinstance(tree, str) else json.dumps(tree)


def objects(tree):
    """The objects in the order of `write`."""
    if isinstance(tree, dict):
        return [tree, *(found for value in tree.values() for found in objects(value))]
    if isinstance(tree, list):
        return [found for item in tree for found in objects(item)]
    return []


def has_duplicates(body):
    found = []

    def pairs(items):
        found.append(len({key for key, _ in items}) < len(items))

    json.loads(body, object_pairs_hook=pairs)
    return any(found)


@given(st.data())
def test_json_without_duplicates_is_always_accepted(data):
    tree = data.draw(TREES)
    body = write(data.draw, tree, None, [0]).encode()
    assert parse(body, DEPTH) == tree


@given(st.data())
def test_json_with_a_duplicate_anywhere_is_always_refused(data):
    tree = data.draw(TREES)
    candidates = [number for number, found in enumerate(objects(tree)) if found]
    assume(candidates)
    body = write(data.draw, tree, data.draw(st.sampled_from(candidates)), [0]).encode()
    assume(has_duplicates(body))
    refused(body)


@given(st.text(st.sampled_from('{}[]":,\\a1 \n'), max_size=40))
def test_every_accepted_body_reads_as_by_the_standard_library(text):
    body = text.encode()
    try:
        expected = json.loads(body)
        duplicates = has_duplicates(body)
    except ValueError:
        refused(body)
        return
    if duplicates:
        refused(body)
    else:
        assert parse(body, DEPTH) == expected


# --- depth (T3)


@pytest.mark.parametrize("levels", [DEPTH + 1, 500, 1024, 5000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_nesting_beyond_the_limit_is_refused(levels, opening, closing):
    assert "nested" in refused(opening * levels + b"1" + closing * levels)
    refused(opening * levels)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'{"a" :', b"}")])
def test_nesting_up_to_the_limit_is_read(opening, closing):
    parse(opening * DEPTH + b"1" + closing * DEPTH, DEPTH)
    assert f"{DEPTH + 1} levels deep" in refused(opening * (DEPTH + 1) + b"1" + closing * (DEPTH + 1))


def test_the_highest_limit_the_settings_allow_works_on_the_slow_path():
    parse(b'{"a" :' * 512 + b"1" + b"}" * 512, 512)


def test_width_is_not_depth():
    assert len(parse(b"[" + b"[]," * 100_000 + b"[]]", 2)) == 100_001


# --- numbers (T4)


@pytest.mark.parametrize(
    "number",
    [
        *(b"1e400", b"-1e400", b"1" + b"0" * 5000, b"NaN", b"Infinity", b"-Infinity"),
        *(b"01", b"+1", b".5", b"1.", b"0x10", b"--1"),
    ],
)
def test_numbers_that_parsers_read_differently_are_refused(number):
    refused(b"[" + number + b"]")
    refused(b'{"a" :' + number + b"}")


@pytest.mark.parametrize("number", [b"-0", b"1e308", b"18446744073709551616", b"0." + b"1" * 5000, b"1E+2", b"1e-400"])
def test_other_numbers_are_read_as_the_standard_library_reads_them(number):
    assert parse(b'{"a" :[' + number + b"]}", DEPTH) == {"a": [json.loads(number)]}


# --- encodings (T5)


@pytest.mark.parametrize(
    "body",
    [
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\xaf"',
        b'"\xf0\x9f\x8c"',
        rb'"\ud800"',
        rb'"\udc00\ud800"',
        rb'"\ud800a"',
        rb'{"\ud800":1}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-32"),
        b'"\x00"',
        b'{"a":1}\x00',
        b'"a\nb"',
        b"",
        b" ",
        b"{}{}",
        b"{'a':1}",
        b'{"a":1,}',
        b"// comment\n{}",
    ],
)
def test_a_body_that_is_not_json_in_utf8_is_refused(body):
    refused(body)


def test_escaped_nul_and_surrogate_pairs_are_text():
    assert parse(rb'"\u0000\ud83c\udf0d"', DEPTH) == "\0🌍"


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    try:
        tree = parse(body, DEPTH)
    except InvalidJSON:
        return
    assert tree == json.loads(body)


# --- a plain answer


def test_a_plain_answer_is_one_event_at_its_end():
    framing = WholeBody(100)
    assert framing.feed(b'{"a"') == []
    assert framing.feed(b":1}") == []
    [event] = framing.end()
    assert (event.raw, event.data) == (b'{"a":1}', b'{"a":1}')
    assert framing.end() == []


def test_an_empty_answer_is_no_event():
    assert WholeBody().end() == []


@pytest.mark.parametrize("sizes", [(100,), (60, 40), (1,) * 100])
def test_an_answer_of_exactly_the_limit_is_read(sizes):
    framing = WholeBody(100)
    for size in sizes:
        assert framing.feed(b"x" * size) == []
    assert framing.end()[0].data == b"x" * 100


def test_an_answer_over_the_limit_passes_in_pieces_without_data():
    framing = WholeBody(100)
    chunks = [b"a" * 60, b"b" * 60, b"c" * 60, b"d"]
    events = [event for chunk in chunks for event in framing.feed(chunk)]
    events += framing.end()
    assert [event.raw for event in events] == [b"a" * 60 + b"b" * 60, b"c" * 60, b"d", b""]
    assert all(event.data is None for event in events)
    assert [event.edges is None for event in events] == [True, True, True, False]
    assert events[-1].edges.head == b"a" * 60 + b"b" * 60
    assert events[-1].edges.tail == b"a" * 60 + b"b" * 60 + b"c" * 60 + b"d"


def test_only_the_start_and_the_end_of_a_long_answer_are_kept():
    framing = WholeBody(100)
    chunks = [bytes([65 + index]) * 50_000 for index in range(10)]
    events = [event for chunk in chunks for event in framing.feed(chunk)] + framing.end()
    assert b"".join(event.raw for event in events) == b"".join(chunks)
    assert (events[-1].edges.head, events[-1].edges.tail) == (chunks[0], b"".join(chunks)[-KEPT:])
