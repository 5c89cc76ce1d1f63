"""Bytes that are not an HTTP request."""

from __future__ import annotations

from collections.abc import Iterator

from tests.e2e.abuse.requests import (
    AUTH,
    CHAT,
    HOST,
    PATH,
    Garbage,
    http,
)
from tests.e2e.conftest import KEY
from tests.e2e.raw import Headers, message

LENGTH = str(len(CHAT))
BAD_LENGTHS = (
    "-1",
    f"+{LENGTH}",
    "0x42",
    "1e2",
    "abc",
    "",
    "6 6",
    "1.0",
    "٣",
    f"{LENGTH}, {LENGTH}",
    "9" * 30,
    f"{LENGTH};a",
)
BAD_TRANSFERS = (
    "identity",
    "gzip",
    "gzip, chunked",
    "chunked, chunked",
    "chunked, identity",
    "xchunked",
    "chunked;q=1",
    "chunked\x0b",
    "",
)
BAD_METHODS = ("post", "Post", "POSTX", "PO ST", "", " POST", "P\tOST", "M\u00d6VE", "POST\0", "A" * 100, "{}", "PRI")


def garbage() -> Iterator[Garbage]:
    def framed(name: str, headers: Headers, body: bytes = CHAT, status: int | None = 400) -> Garbage:
        return Garbage(f"framing: {name}", (http(body, more=headers, without=["content-length"]),), status)

    length, te = ("content-length", LENGTH), ("transfer-encoding", "chunked")
    one = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CHAT), CHAT)
    yield framed("length, then chunked", [length, te], one)
    yield framed("chunked, then length", [te, length], one)
    yield framed("chunked and length 0", [te, ("content-length", "0")], one)
    yield framed("length and chunked, body not chunked", [length, te])
    yield framed("length and chunked, two requests", [("content-length", "4"), te], b"0\r\n\r\n" + http())
    yield framed("two lengths, same", [length, length])
    yield framed("two lengths, other", [length, ("content-length", "1")])
    for value in BAD_LENGTHS:
        yield framed(f"length {value!r}", [("content-length", value)])
    for value in BAD_TRANSFERS:
        yield framed(f"transfer-encoding {value!r}", [("transfer-encoding", value)], one)
    yield framed("two transfer-encodings", [te, ("transfer-encoding", "identity")], one)
    for size, data in (("zz", CHAT), ("-1", CHAT), ("f" * 20, CHAT), ("", CHAT), ("0x42", CHAT), ("3g", CHAT)):
        chunk = size.encode() + b"\r\n" + data + b"\r\n0\r\n\r\n"
        yield Garbage(f"framing: chunk of size {size!r}", (http(None, more=[te]), chunk), None)
    yield Garbage("framing: chunk ended by LF", (http(None, more=[te]), b"%x\n%s\n0\n\n" % (len(CHAT), CHAT)), None)

    for method in BAD_METHODS:
        yield Garbage(f"method: {method[:20]!r}", (http(method=method),))
    for version in ("FOO/1.1", "http/1.1", "HTTP/1", "HTTP/1.1.1", "HTTP/1.1 x", "HTTP 1.1"):
        yield Garbage(f"version: {version}", (http(version=version),))

    for name, target, status in (
        ("NUL", PATH + "\0", 400),
        ("escaped NUL", PATH + "%00", 400),
        ("escaped NUL in a model", "/v1/models/any%2f%00", 400),
        ("not ASCII", "/v1/chät/completions", 400),
        ("DEL", PATH + "\x7f", 400),
        ("escape", PATH + "\x1b[31m", 400),
        ("fragment", PATH + "#x", 400),
        ("fragment after a query", PATH + "?x#y", 400),
        ("asterisk", "*", 400),
        ("no slash", "v1/chat/completions", 400),
        ("backslash first", "\\v1\\chat\\completions", 400),
        ("escaped slashes only", "%2fv1%2fchat%2fcompletions", 400),
        ("other scheme", "ftp://gateway.test/v1/chat/completions", 400),
        ("script", "javascript://x/v1/chat/completions", 400),
        ("https on plain HTTP", "https://gateway.test/v1/chat/completions", 403),
        ("authority only", "gateway.test:80", 400),
        ("space", "/v1/chat completions", 400),
        ("70 KB", "/" + "a" * 70_000, 431),
        ("70 KB of query", PATH + "?" + "a" * 70_000, 431),
    ):
        yield Garbage(f"target: {name}", (http(target=target),), status)
    tunnel = message("CONNECT", PATH, [HOST, AUTH])
    yield Garbage("target: path with CONNECT", (tunnel,))
    udp = http(more=[("connection", "upgrade"), ("upgrade", "connect-udp")])
    yield Garbage("upgrade: connect-udp", (udp,), 404, "path_not_found")

    for host in ("a b", "gateway/../x", "gateway\\x", "ü.test", "a\0b", "<x>", "a\tb"):
        yield Garbage(f"host: {host!r}", (http(without=["host"], more=[("host", host)]),))
    yield Garbage("host: none", (http(without=["host"]),))
    for name, header in (
        ("NUL in a value", ("x-a", b"a\0b")),
        ("escape in a value", ("x-ai-agent", "\x1b[31mred")),
        ("DEL in a value", ("x-ai-agent", "a\x7f")),
        ("backspace in a value", ("x-ai-agent", "a\b")),
        ("NUL in the key", ("authorization", f"Bearer {KEY}\0")),
        ("empty name", ("", "a")),
        ("space in a name", ("x a", "b")),
        ("space after a name", ("x-a ", "b")),
        ("not ASCII in a name", ("x-ü", "b")),
        ("NUL in a name", (b"x-\0a", "b")),
        ("colon first", (":path", "/x")),
        ("comma in a name", ("x-a,b", "c")),
    ):
        yield Garbage(f"header: {name}", (http(more=[header]),))
    no_colon = http().replace(b"\r\n\r\n", b"\r\nnonsense\r\n\r\n", 1)
    yield Garbage("header: no colon", (no_colon,))
    for name in (
        "x_extproc_translate",
        "x-extproc_translate",
        "X_ExtProc_Targets",
        "x_envoy_max_retries",
        "x_ai_team",
        "x_forwarded_for",
    ):
        yield Garbage(f"header: underscore in {name}", (http(more=[(name, "1")]),))
    many = [(f"x-h-{index}", "v") for index in range(101)]
    yield Garbage("header: more than a hundred", (http(more=many),), 431)
    for name, header in (
        ("a key", ("authorization", "Bearer " + "a" * (1 << 20))),
        ("a label", ("x-ai-agent", "a" * 70_000)),
    ):
        yield Garbage(f"header: too long, {name}", (http(more=[header]),), 431)

    for name, data in (
        ("TLS", bytes.fromhex("1603010005010000010303") + b"\r\n\r\n"),
        ("words", b"hello there, how are you?\r\n\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n\r\n"),
        ("SMTP", b"EHLO x\r\n\r\n"),
        ("zeros", bytes(100) + b"\r\n\r\n"),
        ("binary", bytes(range(128, 256)) + b"\r\n\r\n"),
    ):
        yield Garbage(f"bytes: {name}", (data,))
