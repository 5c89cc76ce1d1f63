"""Usage is found wherever it stands in an event too long to be read, however the event is cut."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.wire.framing.edges import KEPT, Edges

KEYS = st.sampled_from(["usage", "use", "usag", "x", 'x"usage', "\\", 'usage"', "usageMetadata\\", "Länge", "😀"])
VALUES = st.recursive(
    st.none() | st.integers() | KEYS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)


def told(event, level=1):
    """The values under keys of usage in the two outermost levels; the last one in the text counts."""
    found = {}
    for key, value in event.items() if isinstance(event, dict) else [("", one) for one in event]:
        if key == "usage":
            found[level] = value
        if isinstance(value, dict | list) and level == 1:
            found |= told(value, 2)
    return found


@example(event={"usage": 1}, cuts=[8], blanks="", plain=True)  # behind the name
@given(
    event=VALUES, cuts=st.lists(st.integers(0, 400)), blanks=st.sampled_from(["", " ", "\n\t  "]), plain=st.booleans()
)
def test_the_values_are_those_of_a_decoder(event, cuts, blanks, plain):
    text = json.dumps(event, ensure_ascii=plain, separators=(f"{blanks},", f"{blanks}:{blanks}")).encode()
    ends = sorted({cut for cut in cuts if cut < len(text)} | {len(text)})
    edges, at = Edges(text[: ends[0]]), ends[0]
    for end in ends[1:]:
        edges.add(text[at:end])
        at = end
    assert (edges.head, edges.tail) == (text[: ends[0]], text)
    read = json.JSONDecoder().raw_decode
    values = {level: read(value.decode().lstrip())[0] for level, value in edges.usages.items()}
    assert values == (told(event) if isinstance(event, dict | list) else {})


def test_what_is_kept_is_bounded():
    edges = Edges(b'{"data":"')
    for _ in range(100):
        edges.add(b"a" * KEPT)
    edges.add(b'","usage":{"x":"')
    for _ in range(100):
        edges.add(b"a" * KEPT)
    assert len(edges.tail) == KEPT
    assert [len(value) for value in edges.usages.values()] == [16 << 10]


@pytest.mark.parametrize(
    "pattern",
    [b'"', b"\\", b"[", b"[]", b'{"usage":', b'"usage":1,', b'["usage",', b'\\"', b'"",', b"1,", b"abcdefgh"],
)
def test_no_pattern_costs_more_than_50_ms_a_mib(pattern):
    pieces = [(pattern * 16_384)[:16_384]] * 64
    spent = []
    for _ in range(3):
        began = time.process_time()
        edges = Edges(b"{")
        for piece in pieces:
            edges.add(piece)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.05
