"""gRPC messages, in any pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.wire.transport.messages import LARGE, Assembly, RefusedMessage
from tests.transport.peers import grpc


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_messages_survive_any_cutting(messages, data):
    whole = b"".join(map(grpc, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    assembly, found = Assembly(40, ""), []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += assembly.feed(whole[start:end])
    assert found == messages
    assert assembly.empty


@pytest.mark.parametrize("size", [1, 4, 5, 6, 100])
def test_a_message_appears_with_its_last_byte(size):
    assembly = Assembly(1000, "")
    whole = grpc(b"m" * 300)
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert [assembly.feed(part) for part in parts] == [[]] * (len(parts) - 1) + [[b"m" * 300]]


def test_a_message_is_refused_by_its_prefix():
    assembly = Assembly(10, "")
    assert assembly.feed(grpc(b"0123456789")) == [b"0123456789"]
    with pytest.raises(RefusedMessage) as refused:
        assembly.feed(grpc(b"0123456789a")[:5])
    assert (refused.value.status, refused.value.text) == (8, "a message of 11 bytes, more than 10")


@pytest.mark.parametrize(
    ("compressed", "encoding", "status"),
    [(1, "gzip", 12), (1, "", 13), (1, "identity", 13), (2, "gzip", 13), (255, "", 13)],
)
def test_compressed_messages_are_refused(compressed, encoding, status):
    with pytest.raises(RefusedMessage) as refused:
        Assembly(10, encoding).feed(grpc(b"x", compressed))
    assert refused.value.status == status


def test_an_unused_encoding_does_no_harm():
    assert Assembly(10, "gzip").feed(grpc(b"x")) == [b"x"]


LARGER = LARGE + 1000


@pytest.mark.parametrize("cut", [5, 6, 16_384, LARGE, LARGER, LARGER + 4])
def test_a_large_message_is_handed_over_as_it_arrived(cut):
    assembly, found = Assembly(LARGER, ""), []
    for part in (b"m" * LARGER, b"", b"n" * LARGER, b"o"):
        whole = grpc(part)
        for start in range(0, len(whole), cut):
            found += assembly.feed(whole[start : start + cut])
    assert [bytes(message) for message in found] == [b"m" * LARGER, b"", b"n" * LARGER, b"o"]
    assert assembly.empty


@pytest.mark.parametrize("cut", [5, 6, 16_384, LARGE, LARGER])
def test_a_large_message_without_room_is_dropped(cut):
    asked = []
    assembly, found = Assembly(LARGER, "", lambda size: asked.append(size) or len(asked) > 1), []
    stream = grpc(b"m" * LARGER) + grpc(b"small") + grpc(b"n" * LARGER) + grpc(b"o")
    held = 0
    for start in range(0, len(stream), cut):
        found += assembly.feed(stream[start : start + cut])
        held = max(held, len(assembly._large or b"")) if len(asked) == 1 else held
    assert [bytes(message) for message in found] == [b"", b"small", b"n" * LARGER, b"o"]
    assert asked == [LARGER, LARGER]
    assert held == 0
    assert assembly.empty
