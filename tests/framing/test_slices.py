import json
import random
import weakref
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.wire.framing import slices
from extproc.wire.framing.json import InvalidJSON, parse

DEPTH = 16
LIMITS = {"depth": DEPTH, "nodes": 1_000_000, "text": 1 << 20}


def read(body, size=slices.SLICE, **limits):
    with mock.patch.object(slices, "SLICE", size):
        reader = slices.SlicedReader(body, **LIMITS | limits)
        for _ in reader.read():
            assert True, "others have their turn"
        return reader.root


def refused(body, size=slices.SLICE, **limits):
    with pytest.raises(InvalidJSON) as error:
        read(body, size, **limits)
    return str(error.value)


def outcome(work, *arguments, **more):
    """The value, with the types of its numbers; None where the body is refused."""
    try:
        return json.dumps(work(*arguments, **more))
    except InvalidJSON:
        return None


STRINGS = st.text(st.sampled_from('a"\\:,[]{} é\n\0\U0001f600') | st.characters(exclude_categories=["Cs"]), max_size=40)
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.floats(-1e300, 1e300), STRINGS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=20,
)
SIZES = st.integers(12, 40)
BLANKS = st.sampled_from(("", " ", "\r\n\t ", " " * 15, "\t" * 16, " \n" * 50))


@given(TREES, SIZES, st.sampled_from((None, 1)), st.booleans(), BLANKS)
def test_every_cut_reads_what_json_reads(tree, size, indent, ascii_only, blanks):
    """Also with more than a slice of blanks between a key and its colon, and around everything else."""
    separators = (f"{blanks},{blanks}", f"{blanks}:{blanks}")
    text = json.dumps(tree, indent=indent, ensure_ascii=ascii_only, separators=separators)
    body = f"{blanks}{text}{blanks}".encode()
    expected = outcome(parse, body, DEPTH)
    assert outcome(read, body, size) == expected or b"key of more than" in refused(body, size).encode()


@given(TREES, SIZES, st.data())
def test_what_is_no_json_is_refused_as_json_refuses_it(tree, size, data):
    body = bytearray(json.dumps(tree).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        change = data.draw(st.sampled_from([b"", b",", b'"', b"\\", b"[", b"]", b"{", b"}", b":", b"1", b" ", b"\xff"]))
        body[at : at + data.draw(st.integers(0, 2))] = change
    whole, cut = outcome(parse, bytes(body), DEPTH), outcome(read, bytes(body), size)
    assert whole == cut or (cut is None and "key of more than" in refused(bytes(body), size))


@given(st.text('[]{},:"\\ a1', max_size=30), SIZES)
def test_structure_alone(text, size):
    whole, cut = outcome(parse, text.encode(), DEPTH), outcome(read, text.encode(), size)
    assert whole == cut or (cut is None and "key of more than" in refused(text.encode(), size))


@pytest.mark.parametrize("size", [12, 13, 14, 15, 16, 17, 18, 19, 20])
def test_long_strings_are_cut_between_characters(size):
    text = 'aé中\U0001f600"\\\n' * 9
    for body in (json.dumps([text, 1.5]), json.dumps({"a": {"b": text}}, ensure_ascii=False), json.dumps(text)):
        assert read(body.encode(), size) == json.loads(body)


@pytest.mark.parametrize(
    "inside",
    [rb"\ud800", rb"\ud800\u0041", rb"\udc00", rb"\u12", rb"\x", b"\xc3", b"\xff", b"\x80" * 40, b"\n", b"\0", b"\\"],
)
def test_a_long_string_is_read_strictly(inside):
    for padding in range(12):
        body = b'["' + b"a" * (20 + padding) + inside + b"z" * 20 + b'"]'
        with pytest.raises((ValueError, msgspec.DecodeError)):
            msgspec.json.decode(body)
        refused(body, 16)


@pytest.mark.parametrize(
    "body",
    [
        b"[1,]", b"[,1]", b"[1,,2]", b'{"a":1,}', b'{,"a":1}', b"1,2", b"[1],2", b"[1]],2", b"[1,2}", b'{"a","b"}',
        b"[",
        b'[1"' + b"a" * 40 + b'"]', b'["' + b"a" * 40 + b'"1]', b'["' + b"a" * 40 + b'" "' + b"b" * 40 + b'"]',
        b'[-"' + b"a" * 40 + b'"]', b'["' + b"a" * 40, b"[" + b"1" * 400 + b"e9]", b"", b" " * 100,
    ],
)  # fmt: skip
def test_no_piece_hides_what_is_wrong(body):
    for size in range(12, 40):
        refused(body, size)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"b":2,"a":3}', b'{"a":[1,2],"b":1,"a":[3,4,5]}', b'{"a":{"x":1,"y":2},"a":{"z":1,"w":2},"b":1}',
        b'{"a":[1],"b":[2],"a":[3,4,5,6],"c":{"d":1,"d":2}}', rb'{"model":"m","messages":[1,2,3],"m\u006fdel":"n"}'
    ],
)  # fmt: skip
def test_a_key_given_twice_is_refused_wherever_the_cuts_are(body):
    for size in range(12, 60):
        assert "twice" in refused(body, size)


CHANGES = [
    *(b"", b",", b'"', b"\\", b"[", b"]", b"{", b"}", b":", b"1", b" ", b"\xff", b"\xc3", b"e", b".", b"-", b" 0.5 "),
    *(b'"a":1,', b"\\ud83d", b"\\u0041"),
]


def grown(chance, depth=0):
    """A random value, with strings around the length of a slice."""
    kind = chance.random()
    if depth > 5 or kind < 0.45:
        texts = [
            "",
            "a",
            'é"' * chance.randint(0, 30),
            "\U0001f600" * chance.randint(0, 9),
            "x" * chance.randint(0, 60),
        ]
        return chance.choice([1, -0.5, 1.5, None, True, 12345678901234567890, ":,{}[]", *texts])
    below = [grown(chance, depth + 1) for _ in range(chance.randint(0, 5))]
    return (
        below if kind < 0.7 else {f"{chance.choice(['a', 'é', '', chr(34)])}{at}": one for at, one in enumerate(below)}
    )


@pytest.mark.parametrize("count", [500, pytest.param(200_000, marks=pytest.mark.exhaustive)])
def test_random_bodies_are_read_or_refused_as_json_does_it(count):
    chance = random.Random(7)
    for _ in range(count):
        body = bytearray(json.dumps(grown(chance), ensure_ascii=chance.random() < 0.5).encode())
        for _ in range(chance.choice((0, 0, 1, 2, 4))):
            at = chance.randint(0, len(body))
            body[at : at + chance.randint(0, 3)] = chance.choice(CHANGES)
        size = chance.randint(12, 64)
        whole, cut = outcome(parse, bytes(body), DEPTH), outcome(read, bytes(body), size)
        assert whole == cut or "key of more than" in refused(bytes(body), size), (size, bytes(body))


# --- limits


def test_values_are_counted_before_they_are_decoded():
    body = b"[" + b"{}," * 999 + b"{}]"
    assert len(read(body, 64, nodes=1001)) == 1000
    assert "more than 1000 values" in refused(body, 64, nodes=1000)
    reader = slices.SlicedReader(b"[" + b"{}," * 100_000 + b"{}]", depth=DEPTH, nodes=1000, text=100)
    with pytest.raises(InvalidJSON):
        list(reader.read())
    assert reader.root is None


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}"), ("[1,", ",1]"), ('{"a":1,"b":', ',"c":1}')])
def test_levels_are_limited(opened, closed):
    for size in (12, 64, 1 << 20):
        body = (opened * DEPTH + "1" + closed * DEPTH).encode()
        assert outcome(read, body, size) == json.dumps(json.loads(body))
        refused((opened * (DEPTH + 1) + "1" + closed * (DEPTH + 1)).encode(), size)
        refused((opened * 5000).encode(), size)
        refused((opened * 5000 + "1" + closed * 5000).encode(), size)


def test_the_memory_of_a_string_is_limited():
    for character, width in (("中", 2), ("\U0001f600", 4)):
        text = "a" * 999 + character
        body = json.dumps([text], ensure_ascii=False).encode()
        assert read(body, 64, text=1000 * width) == [text]
        assert "memory" in refused(body, 64, text=1000 * width - 1)
    for character in "aé":
        text = "a" * 999 + character
        assert read(json.dumps([text], ensure_ascii=False).encode(), 64, text=10) == [text]


def test_a_key_longer_than_a_slice_is_refused():
    assert "key of more" in refused(b'{"' + b"k" * 300 + b'" :1}', 64)


def test_white_space_takes_no_room():
    body = b'{"a" :' + b" \n" * 50_000 + b"[" + b"\t" * 70_000 + b'"x"' + b" " * 70_000 + b"]" + b" " * 70_000 + b"}"
    with mock.patch.object(slices, "_MOST_BETWEEN", 2000):
        assert read(body, 1000) == {"a": ["x"]}


def test_too_much_between_two_commas_is_refused():
    with mock.patch.object(slices, "_MOST_BETWEEN", 2000):
        assert "between two commas" in refused(b"[" + b"1" * 5000 + b"]", 64)


def test_nothing_keeps_a_body_that_was_read():
    reader = slices.SlicedReader(b'["' + b"a" * 300_000 + b'"]', **LIMITS)
    for _ in reader.read():
        pass
    gone = weakref.ref(reader)
    del reader
    assert gone() is None


def test_a_byte_order_mark_is_refused_by_name():
    assert "byte order mark" in refused(b"\xef\xbb\xbf{}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[' + b"{}," * 700_000 + b"{}]}",
        b'{"m":"' + b'\\"' * 1_000_000 + b'"}',
        b'{"m":"' + "\U0001f600".encode() + b"a" * 2_000_000 + b'"}',
        b"{" + b" " * 2_000_000 + b'"m":1}',
        b"[" * 2_000_000,
        b"[" + b'"",' * 600_000 + b'""]',
        b"[" + b'{"role":"user","content":"Hello, you"},' * 50_000 + b"1]",
    ],
)
def test_no_step_is_a_large_part_of_the_work(body):
    """In bytes: each step reads a slice at most, so the number of steps follows the size."""
    steps = slices.SlicedReader(body, depth=128, nodes=10_000_000, text=64 << 20).read()
    count = 0
    try:
        for _ in steps:
            count += 1
    except InvalidJSON:
        return
    assert count >= len(body) // slices.SLICE
