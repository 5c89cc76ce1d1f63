"""Abusive requests as values, and the good request that each of them changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.e2e.conftest import KEY
from tests.e2e.raw import Headers, message

PATH = "/v1/chat/completions"
BODY_LIMIT = 1 << 20  # bytes; limit of the gateway under test
DEPTH_LIMIT = 128
WEBSOCKET = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]


def chat(fields: str | bytes = b"", *, model: str | bytes = b'"stub"', messages: str | bytes | None = None) -> bytes:
    """A chat as JSON text, so that a test can insert bytes that `json` would never write."""
    fields, model, messages = (text.encode() if isinstance(text, str) else text for text in (fields, model, messages))
    messages = b'[{"role":"user","content":"Hi"}]' if messages is None else messages
    return b'{"model":' + model + b',"messages":' + messages + (b"," + fields if fields else b"") + b"}"


USER = '{"role":"user","content":"Hi"}'
CHAT = chat()
AUTH = ("authorization", f"Bearer {KEY}")
JSON = ("content-type", "application/json")
HOST = ("host", "gateway.test")


def http(
    body: bytes | None = CHAT,
    *,
    method: str = "POST",
    target: str | bytes = PATH,
    more: Headers = (),
    without: Sequence[str] = (),
    version: str = "HTTP/1.1",
) -> bytes:
    """A good request with the headers `more` added and the headers `without` removed."""
    headers = [header for header in (HOST, AUTH, JSON) if header[0] not in without] + list(more)
    if body is not None and "content-length" not in without:
        headers.append(("content-length", str(len(body))))
    return message(method, target, headers, body or b"", version=version)


def chunked(*chunks: bytes, more: Headers = (), end: bytes = b"0\r\n\r\n") -> tuple[bytes, ...]:
    head = http(None, more=[("transfer-encoding", "chunked"), *more])
    return (head, *(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks), end)


def padded(size: int) -> bytes:
    return chat('"x":"' + "a" * (size - len(chat('"x":""'))) + '"')


def embedded(case: bytes) -> bytes:
    """JSON text as the value of an unknown field in an otherwise good chat."""
    return CHAT[:-1] + b',"x":' + case + b"}"


def content(text: str) -> dict[str, Any]:
    return {"model": "stub", "messages": [{"role": "user", "content": text}]}


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the gateway itself refuses with `status` and `code`."""

    name: str
    status: int
    code: str
    pieces: tuple[bytes, ...]
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that looks abusive and is served. The provider sees `path` and `body`."""

    name: str
    pieces: tuple[bytes, ...]
    body: bytes = CHAT
    path: str = PATH
    model: str = "stub"


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that Envoy does not accept as a request. The answer is a 4xx without a request id, or none; then the
    connection is closed.
    """

    name: str
    pieces: tuple[bytes, ...]
    status: int | None = 400  # None: closed without an answer
    code: str = "invalid_request"
