"""JSON-RPC 2.0: strict reading of a client's message, and writing of messages.

Source: https://www.jsonrpc.org/specification, as MCP narrows it: no batches, ids are strings or whole numbers, and
`params` is an object (https://modelcontextprotocol.io/specification/2026-07-28/basic).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from extproc.wire.framing.json import parse

Id = str | int
MOST_ID = 256
"""Most characters of a string id."""
_EXACT = 1 << 53  # beyond it, readers with floating-point numbers alone confuse two ids
_KEYS = frozenset(("jsonrpc", "id", "method", "params", "result", "error"))
encode = msgspec.json.encode

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603


class InvalidMessageError(ValueError):
    """JSON that is not one message of JSON-RPC. The message can be shown to the client."""


@dataclass(slots=True)
class RpcMessage:
    """A message. A notification is a request without an id."""

    kind: Literal["request", "notification", "response"]
    method: str = ""
    id: Id | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    tree: Mapping[str, Any] = field(default_factory=dict)  # the whole message

    @property
    def meta(self) -> Mapping[str, Any]:
        """`params._meta`; empty where it is absent."""
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}


def read(body: bytes, max_depth: int, max_nodes: float) -> RpcMessage:
    """Read the message in `body`. Raises InvalidJSON or InvalidMessageError."""
    return message(parse(body, max_depth, max_nodes))


def message(tree: Any) -> RpcMessage:
    """Check that `tree` is a message, and return it. Raises InvalidMessageError."""
    if isinstance(tree, list):
        raise InvalidMessageError("The body is a batch: send one message at a time.")
    if not isinstance(tree, dict) or tree.get("jsonrpc") != "2.0":
        raise InvalidMessageError("The body must be one JSON-RPC message, with 'jsonrpc': '2.0'.")
    if strange := next((name for name in tree if name not in _KEYS), None):
        raise InvalidMessageError(f"A JSON-RPC message has no member {strange[:64]!r}.")
    id = tree.get("id")
    if "id" in tree and not _is_id(id):
        raise InvalidMessageError(f"An id is a string of up to {MOST_ID} characters, or a whole number.")
    if "method" not in tree:
        if ("result" in tree) == ("error" in tree) or "id" not in tree or "params" in tree:
            raise InvalidMessageError("The message has neither a method nor one of result and error with an id.")
        return RpcMessage("response", "", id, tree=tree)
    method, params = tree["method"], tree.get("params", {})
    if not isinstance(method, str) or "result" in tree or "error" in tree:
        raise InvalidMessageError("The method of a request is a string, and it has neither a result nor an error.")
    if not isinstance(params, dict) or not isinstance(params.get("_meta", {}), dict):
        raise InvalidMessageError("The params of a request are an object, and so is their '_meta'.")
    return RpcMessage("request" if "id" in tree else "notification", method, id, params, tree)


def _is_id(id: Any) -> bool:
    if isinstance(id, str):
        return len(id) <= MOST_ID
    return type(id) is int and -_EXACT < id < _EXACT


def request(method: str, id: Id | None, params: Mapping[str, Any] | None = None) -> bytes:
    """A request; a notification without `id`."""
    tree: dict[str, Any] = {"jsonrpc": "2.0"}
    if id is not None:
        tree["id"] = id
    tree["method"] = method
    if params is not None:
        tree["params"] = params
    return encode(tree)


def result(id: Id | None, value: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "id": id, "result": value})


def error(id: Id | None, code: int, text: str, data: Any = None) -> dict[str, Any]:
    """An error. An error without an id answers an unreadable message."""
    said: dict[str, Any] = {"code": code, "message": text}
    if data is not None:
        said["data"] = data
    return {"jsonrpc": "2.0", **({} if id is None else {"id": id}), "error": said}
