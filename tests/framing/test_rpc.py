"""Messages of JSON-RPC: what is read, and what is refused."""

import msgspec
import pytest

from extproc.wire.framing import rpc
from extproc.wire.framing.json import InvalidJSON
from extproc.wire.framing.rpc import InvalidMessageError


def read(body):
    return rpc.read(body if isinstance(body, bytes) else msgspec.json.encode(body), 32, 1000)


def test_the_three_kinds_of_messages_are_told_apart():
    base = {"jsonrpc": "2.0"}
    asked = read({**base, "id": "a", "method": "tools/call", "params": {"name": "x", "_meta": {"k": 1}}})
    assert (asked.kind, asked.method, asked.id, asked.params["name"], asked.meta) == (
        *("request", "tools/call", "a", "x"),
        {"k": 1},
    )
    assert read({**base, "id": 0, "method": "ping"}).kind == "request"
    assert read({**base, "method": "notifications/initialized"}).kind == "notification"
    assert read({**base, "id": 7, "result": {}}).kind == "response"
    assert read({**base, "id": 7, "error": {"code": 1, "message": "m"}}).kind == "response"


def test_messages_that_are_not_json_rpc_are_refused():
    base = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    wrong = [
        *([base], 1, "ping", None, {}, {"id": 1, "method": "ping"}, {**base, "jsonrpc": "1.0"}),
        *({**base, "id": id} for id in (None, True, 1.5, [], {}, 1 << 53, -(1 << 53), "x" * (rpc.MOST_ID + 1))),
        *({**base, "method": method} for method in (None, 1, [])),
        *({**base, "params": params} for params in (None, [], "x", {"_meta": None}, {"_meta": []})),
        *({**base, "result": {}}, {**base, "error": {}}, {**base, "Method": "x"}, {**base, "extra": 1}),
        *({"jsonrpc": "2.0", "id": 1}, {"jsonrpc": "2.0", "result": {}}),
        {"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}},
    ]
    for body in wrong:
        with pytest.raises(InvalidMessageError):
            read(body)


def test_bodies_that_two_readers_could_take_differently_are_refused():
    for body in (
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"x":2}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"p\xff"}',
        b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100 + b"]" * 100,
        b"",
    ):
        with pytest.raises(InvalidJSON):
            read(body)


def test_messages_that_are_written_can_be_read():
    asked = read(rpc.request("tools/list", "7", {"cursor": "c"}))
    assert (asked.method, asked.id, asked.params) == ("tools/list", "7", {"cursor": "c"})
    assert read(rpc.request("notifications/initialized", None)).kind == "notification"
    assert read(rpc.result(3, {"a": 1})).tree["result"] == {"a": 1}
    assert rpc.error(None, -32700, "text") == {"jsonrpc": "2.0", "error": {"code": -32700, "message": "text"}}
    assert rpc.error(1, -32602, "text", {"d": 1})["error"]["data"] == {"d": 1}
