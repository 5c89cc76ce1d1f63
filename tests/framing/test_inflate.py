import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.wire.framing.inflate import SLICE, Inflate

TEXT = b"data: hello\n\n" * 100


def slices(found, piece):
    """The slices that a piece of an answer becomes."""
    out = [found.feed(piece)]
    while found.more:
        out.append(found.feed())
    return out


def inflate(data, limit=1 << 20, step=7):
    found = Inflate(limit)
    out = [made for at in range(0, len(data), step) for made in slices(found, data[at : at + step])]
    found.end()
    return b"".join(out), found.broken


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_compressed_data_is_restored(compress):
    assert inflate(compress(TEXT)) == (TEXT, False)


def test_a_truncated_answer_is_broken():
    out, broken = inflate(gzip.compress(TEXT)[:-9])
    assert TEXT.startswith(out)
    assert broken


def test_uncompressed_data_is_broken():
    assert inflate(TEXT) == (b"", True)


def test_an_answer_that_grows_beyond_the_limit_ends():
    out, broken = inflate(gzip.compress(bytes(1 << 22)), limit=1000)
    assert len(out) <= 1000
    assert broken


def test_a_bomb_ends_before_it_is_large():
    bomb = gzip.compress(bytes(100 << 20))
    found = Inflate(128 << 20)
    pieces = [len(made) for at in range(0, len(bomb), 62_000) for made in slices(found, bomb[at : at + 62_000])]
    assert found.broken
    assert max(pieces) <= SLICE
    assert sum(pieces) < 100 << 20


def test_a_large_answer_that_is_no_bomb_is_read():
    text = b"".join(b'data: {"index":%d,"text":"word"}\n\n' % number for number in range(400_000))
    assert inflate(gzip.compress(text), limit=128 << 20, step=62_000) == (text, False)


def test_bytes_after_the_end_are_left_out():
    assert inflate(gzip.compress(TEXT) + b"more") == (TEXT, False)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_nothing(data):
    inflate(data)
