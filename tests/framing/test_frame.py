"""An event: its JSON, and edits of it."""

import pytest
from msgspec import UNSET

from extproc.wire.framing import Frame


def test_an_event_is_parsed_once():
    event = Frame(b'data: {"a":1}\n\n', b'{"a":1}')
    assert event.tree is UNSET
    assert event.parse() == {"a": 1}
    assert event.parse() is event.parse() is event.tree


@pytest.mark.parametrize("data", [None, b"[DONE]", b'{"a":', b"\xff", b"[" * 100_000])
def test_an_event_without_json_has_no_tree(data):
    assert Frame(data or b"", data).parse() is UNSET


@pytest.mark.parametrize(
    ("raw", "edited"),
    [
        (b'event: e\ndata: {"a":1}\n\n', b'event: e\ndata: {"a":2}\n\n'),
        (b'event: e\r\ndata: {"a":\r\ndata: 1}\r\n\r\n', b'event: e\ndata: {"a":2}\n\n'),
        (b'{"a":1}', b'{"a":2}'),
    ],
)
def test_an_edit_changes_the_data_alone(raw, edited):
    data = b'{"a":1}' if b'{"a":1}' in raw else b'{"a":\n1}'
    event = Frame(raw, data)
    event.parse()
    event.edit(data)
    assert (event.raw, event.tree) == (raw, {"a": 1})
    event.edit(b'{"a":2}')
    assert (event.raw, event.data, event.parse()) == (edited, b'{"a":2}', {"a": 2})
