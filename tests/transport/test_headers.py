"""Header blocks: cached, refused, and always decoded."""

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from extproc.wire.transport import TransportLimits
from extproc.wire.transport.frames import Fault
from extproc.wire.transport.headers import LONGEST_REMEMBERED, MOST_REMEMBERED, HeaderReader
from tests.transport.peers import PATH, REQUEST, block


class Counted(HeaderReader):
    """A reader that counts the blocks it really decodes."""

    def __init__(self, limits=None):
        super().__init__(limits or TransportLimits())
        self.decoded = 0
        decode = self._decoder.decode

        def counted(data, raw):
            self.decoded += 1
            return decode(data, raw)

        self._decoder.decode = counted


def test_identical_bytes_are_decoded_once():
    reader = Counted()
    one = reader.read(block())
    assert one.path == PATH
    assert all(reader.read(block()) is one for _ in range(100))
    assert reader.decoded == 1


def test_blocks_that_only_refer_to_the_table_are_cached():
    reader, encoder = Counted(), Encoder()
    first, *others = [encoder.encode(REQUEST) for _ in range(10)]
    assert len(set(others)) == 1
    assert first != others[0]
    assert {reader.read(data).path for data in [first, *others]} == {PATH}
    assert reader.decoded == 2


def test_a_changed_table_invalidates_the_cache():
    reader, encoder = Counted(), Encoder()
    encoder.encode([("x-first", "1")])  # the reader must not know it
    encoder = Encoder()
    headers = [*REQUEST, ("x-value", "one")]
    reader.read(encoder.encode(headers))
    known = encoder.encode(headers)
    assert reader.read(known).metadata["x-value"] == "one"
    reader.read(encoder.encode([*REQUEST, ("x-value", "two")]))
    assert encoder.encode(headers) != known
    moved = reader.read(known)  # the same bytes now refer to another entry
    assert moved.metadata.get("x-value") != "one"
    assert reader.decoded == 4


def test_a_table_that_shrinks_and_grows_invalidates_the_cache():
    """The newest entry and the size are as before, but older entries are gone."""
    reader, encoder = Counted(), Encoder()
    reader.read(encoder.encode([*REQUEST, ("x-old", "o" * 100), ("x-new", "n" * 100)]))
    newest = reader._table()[0]
    uses_old = encoder.encode([*REQUEST, ("x-old", "o" * 100)])
    assert reader.read(uses_old).metadata["x-old"] == "o" * 100
    plain = [(name, value, True) for name, value in REQUEST]
    shrunk = b"\x3f\x81\x01" + b"\x3f\xe1\x1f"  # 160 bytes, then 4,096 again
    reader.read(shrunk + Encoder().encode(plain))
    assert reader._table()[0] is newest
    with pytest.raises(Fault) as fault:
        reader.read(uses_old)
    assert fault.value.code.name == "COMPRESSION_ERROR"


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["1", "2" * 1500, "3" * 2500])), max_size=3),
            st.booleans(),
            st.sampled_from([None, 0, 100, 4096]),
        ),
        min_size=2,
        max_size=30,
    )
)
def test_the_cache_never_changes_a_result(blocks):
    """Any output of an encoder reads the same with the cache and without."""
    encoder, reader, forgetful = Encoder(), HeaderReader(TransportLimits()), HeaderReader(TransportLimits())
    for extra, sensitive, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        data = encoder.encode([(name, value, sensitive) for name, value in [*REQUEST, *extra]])
        forgetful._remembered.clear()
        assert reader.read(data) == forgetful.read(data)
        assert reader._decoder.header_table.dynamic_entries == forgetful._decoder.header_table.dynamic_entries


def test_the_cache_is_bounded():
    reader = Counted()
    for number in range(10 * MOST_REMEMBERED):
        reader.read(block([*REQUEST, ("x-id", str(number))]))
        assert len(reader._remembered) <= MOST_REMEMBERED
    long = block([*REQUEST, ("x-id", "~" * LONGEST_REMEMBERED)])
    assert len(long) > LONGEST_REMEMBERED
    before = reader.decoded
    reader.read(long)
    reader.read(long)
    assert reader.decoded == before + 2


def changed(name, value):
    return [(one, value if one == name else other) for one, other in REQUEST if one != name or value is not None]


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (changed(":path", None), "no :path or :scheme"),
        (changed(":path", ""), "no :path or :scheme"),
        (changed(":scheme", None), "no :path or :scheme"),
        (changed(":method", None), "not a gRPC request"),
        (changed(":method", "GET"), "not a gRPC request"),
        (changed("content-type", "text/html"), "not a gRPC request"),
        (changed("content-type", None), "not a gRPC request"),
        ([*REQUEST, (":path", PATH)], "a pseudo-header out of place"),
        ([(":path", PATH), *REQUEST], "a pseudo-header out of place"),
        ([(":status", "200"), *REQUEST], "a pseudo-header out of place"),
        ([(":protocol", "websocket"), *REQUEST], "a pseudo-header out of place"),
        ([*REQUEST, ("connection", "close")], "a header that HTTP/2 does not allow"),
        ([*REQUEST, ("transfer-encoding", "chunked")], "a header that HTTP/2 does not allow"),
        ([*REQUEST, ("upgrade", "h2c")], "a header that HTTP/2 does not allow"),
        ([*REQUEST, ("te", "gzip")], "a header that HTTP/2 does not allow"),
        ([*REQUEST, ("X-Upper", "1")], "a header that HTTP/2 does not allow"),
        ([*REQUEST, ("", "1")], "a header that HTTP/2 does not allow"),
        ([*REQUEST, ("x-a", "1\r\nx-b: 2")], "a header with a line break"),
        ([*REQUEST, ("x-a", "1\0")], "a header with a line break"),
        ([], "no :path or :scheme"),
        ([("grpc-trailer", "1")], "no :path or :scheme"),
    ],
)
def test_headers_that_are_not_a_call_are_refused(headers, problem):
    assert HeaderReader(TransportLimits()).read(block(headers)).problem == problem


def test_the_headers_of_a_call_are_read():
    found = HeaderReader(TransportLimits()).read(block([*REQUEST, ("x-bytes", b"\xff\xfe"), ("content-type", "2")]))
    assert (found.path, found.problem) == (PATH, "")
    assert found.metadata == {"te": "trailers", "content-type": "application/grpc,2", "x-bytes": "\ufffd\ufffd"}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x80", "COMPRESSION_ERROR"),  # index 0
        (b"\xff\xff\xff\xff\xff\xff\xff", "COMPRESSION_ERROR"),  # a number without an end
        (b"\xbe", "COMPRESSION_ERROR"),  # an entry that the table does not have
        (b"\x40", "COMPRESSION_ERROR"),
        (b"\x00\x05ab", "COMPRESSION_ERROR"),
        (b"\x00\x01a\x85\xff\xff\xff\xff\xff", "COMPRESSION_ERROR"),  # Huffman's end of string
        (b"\x82\x3f\xe1\x1f", "COMPRESSION_ERROR"),  # a size update behind a header
        (b"\x3f\xe2\x1f", "COMPRESSION_ERROR"),  # a table of 4,097 bytes
        (b"\x00\x01a\x7f\x80\xff\x03" + b"v" * 65_535, "ENHANCE_YOUR_CALM"),
    ],
)
def test_blocks_that_cannot_be_decoded_are_refused(data, code):
    with pytest.raises(Fault) as fault:
        HeaderReader(TransportLimits()).read(data)
    assert fault.value.code.name == code


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_request_or_a_fault(data):
    reader = HeaderReader(TransportLimits())
    for _ in range(2):
        try:
            reader.read(data)
        except Fault as fault:
            assert fault.code.name in ("COMPRESSION_ERROR", "ENHANCE_YOUR_CALM")  # noqa: PT017
