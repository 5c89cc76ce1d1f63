"""Abusive messages of MCP: each changes the good call of one era, and must not reach a server.

The profile `dev` has the servers `a` (tool `b__c`, as `a__b__c`), `a__b` (tools `d` and `secret`, as `a__b__d` and
`a__b__secret`) and `plain` (no prefix: `echo`). The consumer is granted `a__b__d` and `echo`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.e2e.abuse.requests import AUTH, HOST
from tests.e2e.mcp_agent import LEGACY, META, MODERN
from tests.e2e.raw import Headers, message

PATH = "/mcp/dev"
ACCEPT = ("accept", "application/json, text/event-stream")
JSON = ("content-type", "application/json")
TRUE = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
CALL = {"name": "echo", "arguments": {"text": "abuse"}, "_meta": TRUE}
LIMIT = 1 << 20  # bytes of a message, by the settings of the gateway under test


@dataclass(frozen=True, slots=True)
class Case:
    """`pieces` is a request of 2026-07-28, or of a legacy session where it has a `{session}`."""

    name: str
    pieces: tuple[bytes, ...]
    method: str = "POST"
    statuses: tuple[int, ...] = ()  # empty: any refusal


def body(**changes: Any) -> bytes:
    """The good call with some members of the message changed; a member that is `...` is left out."""
    whole = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL} | changes
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def call(**changes: Any) -> bytes:
    """The good call with some params changed."""
    return body(params={name: value for name, value in (CALL | changes).items() if value is not ...})


def request(
    content: bytes | None,
    more: Headers = (),
    without: Sequence[str] = (),
    *,
    method: str = "POST",
    target: str | bytes = PATH,
    name: str | bytes = "echo",
    verb: str = "tools/call",
    version: str = MODERN,
) -> tuple[bytes, ...]:
    modern: Headers = [("mcp-protocol-version", version), ("mcp-method", verb), ("mcp-name", name)]
    headers = [each for each in (HOST, AUTH, JSON, ACCEPT, *modern) if each[0] not in without]
    if content is not None and "content-length" not in without:
        headers.append(("content-length", str(len(content))))
    return (message(method, target, [*headers, *more], content or b""),)


def legacy(
    content: bytes, more: Headers = (), without: Sequence[str] = (), session: str = "{session}"
) -> tuple[bytes, ...]:
    given: Headers = [("mcp-protocol-version", LEGACY), *([("mcp-session-id", session)] if session else [])]
    headers = [each for each in (HOST, AUTH, JSON, ACCEPT, *given) if each[0] not in without]
    return (message("POST", PATH, [*headers, ("content-length", str(len(content))), *more], content),)


GOOD = request(call())
OLD = {"name": "echo", "arguments": {"text": "abuse"}}
GOOD_LEGACY = legacy(body(params=OLD))


def b64(text: bytes | str) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def shapes() -> Iterator[Case]:
    """Bodies that are not one JSON-RPC message."""
    good = call()
    for number, text in enumerate(
        (
            b"",
            b" ",
            b"{",
            b"}",
            b"null",
            b"true",
            b"1",
            b'"x"',
            b"[]",
            b"[1]",
            b"{}",
            b"\xff\xfe",
            b"\xef\xbb\xbf" + good,
            b"NaN",
        )
    ):
        yield Case(f"shape: {number} {text[:8]!r}", request(text), statuses=(400,))
    for name, text in {
        "a batch": b"[" + good + b"]",
        "a batch of two": b"[" + good + b"," + good + b"]",
        "two messages": good + good,
        "a comma at the end": good[:-1] + b",}",
        "a comment": good[:-1] + b"/**/}",
        "single quotes": good.replace(b'"', b"'"),
        "UTF-16": good.decode().encode("utf-16"),
        "a NUL behind it": good + b"\0",
        "cut": good[:-5],
        "a lone surrogate": good.replace(b"abuse", b"\\ud800"),
        "invalid UTF-8": good.replace(b"abuse", b"\xc3\x28"),
        "an endless number": good.replace(b'"id": 1', b'"id": 1e999'),
        "deep arguments": call(arguments=0).replace(b'"arguments": 0', b'"arguments": ' + b"[" * 5_000 + b"]" * 5_000),
        "deep objects": call(arguments=0).replace(
            b'"arguments": 0', b'"arguments": ' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000
        ),
        "a million values": call(arguments=0).replace(
            b'"arguments": 0', b'"arguments": {"a":[' + b"1," * 400_000 + b"1]}"
        ),
    }.items():
        yield Case(f"shape: {name}", request(text), statuses=(400, 413))
    for name, value in {
        "version 1.0": {"jsonrpc": "1.0"},
        "version as a number": {"jsonrpc": 2.0},
        "no version": {"jsonrpc": ...},
        "a method that is a number": {"method": 1},
        "a method that is null": {"method": None},
        "a method that is a list": {"method": ["tools/call"]},
        "no method": {"method": ...},
        "params that are a list": {"params": [CALL]},
        "params that are text": {"params": "x"},
        "params that are null": {"params": None},
        "no params": {"params": ...},
        "an id that is null": {"id": None},
        "an id that is true": {"id": True},
        "an id with a fraction": {"id": 1.5},
        "an id that is an object": {"id": {}},
        "an id that is a list": {"id": [1]},
        "an enormous id": {"id": 10**30},
        "a long id": {"id": "x" * 100_000},
        "a result, too": {"result": {}},
        "an error, too": {"error": {"code": 1, "message": "x"}},
        "a result alone": {"method": ..., "params": ..., "result": {}},
        "an error alone": {"method": ..., "params": ..., "error": {"code": 1, "message": "x"}},
    }.items():
        yield Case(f"shape: {name}", request(body(**value)))


def keys_twice() -> Iterator[Case]:
    """A key twice, at every level that the gateway reads: one parser takes the first, another the last."""
    good = call().decode()
    for number, (key, other) in enumerate(
        (
            ('"jsonrpc": "2.0"', '"jsonrpc": "2.0"'),
            ('"id": 1', '"id": 2'),
            ('"method": "tools/call"', '"method": "tools/list"'),
            ('"params": {', '"params": {}'),
            ('"name": "echo"', '"name": "a__b__secret"'),
            ('"arguments": {"text": "abuse"}', '"arguments": {}'),
            ('"_meta": {', '"_meta": {}'),
            (f'"{META}protocolVersion": "{MODERN}"', f'"{META}protocolVersion": "{LEGACY}"'),
            (f'"{META}clientCapabilities": {{}}', f'"{META}clientCapabilities": {{"elicitation": {{}}}}'),
            ('"text": "abuse"', '"text": "other"'),
        )
    ):
        escaped = f'"\\u{ord(other[1]):04x}{other[2:]}'  # the same key, written in another way
        for way, added in (("plain", other), ("escaped", escaped)):
            yield Case(f"twice: {number} before, {way}", request(good.replace(key, f"{added}, {key}", 1).encode()))
        if not key.endswith("{"):
            yield Case(f"twice: {number} after", request(good.replace(key, f"{key}, {other}", 1).encode()))


def names() -> Iterator[Case]:
    """Names of tools that are not granted, or that resemble one."""
    for number, name in enumerate(
        (
            *(
                "a__b__secret",
                "a__b__c",
                "secret",
                "b__c",
                "c",
                "d",
                "a__b",
                "a__",
                "a",
                "__",
                "__d",
                "a__b__",
                "a___b__d",
            ),
            *("A__B__D", "Echo", "ECHO", "echo ", " echo", "echo\t", "echo\n", "echo\0", "echo\u200b", "\ufeffecho"),
            *(
                "\u0435cho",
                "ech\u043e",
                "e\u0301cho",
                "\uff45cho",
                "echo\u202e",
                "echo/",
                "/echo",
                "plain/echo",
                "dev/echo",
            ),
            *(
                "plain__echo",
                "../echo",
                "..",
                ".",
                "*",
                "a__*",
                "a__b__?",
                "[a-z]*",
                "echo%00",
                "%65cho",
                "echo;x",
                "echo,a__b__secret",
            ),
            *(
                "",
                "x" * 1_000,
                "x" * 100_000,
                "x" * 1_000_000,
                "echo\r\nx-extproc-order: a",
                "${jndi:ldap://x}",
                "' OR 1=1 --",
            ),
            *("__proto__", "constructor", "toString", "\ud83d\ude00", "echo" * 200),
        )
    ):
        yield Case(f"name: {number} {name[:16]!r}", request(call(name=name), name=encoded(name)))
    for number, wrong in enumerate((None, True, 1, 1.5, [], ["echo"], {}, {"name": "echo"}, ...)):
        yield Case(f"name: wrong type {number}", request(call(name=wrong)))
        yield Case(
            f"name: wrong type {number}, legacy", legacy(body(params=OLD | {"name": None if wrong is ... else wrong}))
        )
    for number, wrong in enumerate((None, True, 1, "x", [], [1])):
        if wrong is not None:
            yield Case(f"arguments: wrong type {number}", request(call(arguments=wrong)))


def encoded(name: str) -> str:
    if name.isascii() and name.isprintable() and name == name.strip() and len(name) < 2_000 and name:
        return name
    return f"=?base64?{b64(name[:2_000].encode(errors='replace'))}?="


def headers() -> Iterator[Case]:
    """Headers that say something else than the body, which alone decides."""
    good = call()
    for number, value in enumerate(
        (
            *(
                "a__b__d",
                "Echo",
                "ECHO",
                "echo, a__b__d",
                "echo,echo",
                "",
                "=?base64??=",
                "=?base64?!!?=",
                "=?base64?ZWNobw?=",
            ),
            *(
                f"=?base64?{b64('a__b__d')}?=",
                f"=?BASE64?{b64('echo')}?=",
                f"=?base64?{b64('echo')}",
                f"=?base64?{b64(b64('echo'))}?=",
            ),
            *(
                f"=?base64?{b64(b'echo' + bytes([0]))}?=",
                f"=?base64?{b64(bytes([255, 254]))}?=",
                "=?utf-8?B?ZWNobw==?=",
                '"echo"',
                "x" * 5_000,
            ),
        )
    ):
        yield Case(f"Mcp-Name: {number} {value[:20]}", request(good, name=value), statuses=(400, 431))
    hidden = call(name="a__b__secret")
    for number, value in enumerate(("echo", "a__b__d", f"=?base64?{b64('echo')}?=")):
        yield Case(f"Mcp-Name: hides a tool {number}", request(hidden, name=value), statuses=(400,))
    for value in (
        "tools/list",
        "TOOLS/CALL",
        "tools/call, tools/list",
        "",
        "ping",
        "=?base64?dG9vbHMvY2FsbA==?=",
        "initialize",
    ):
        yield Case(f"Mcp-Method: {value}", request(good, verb=value), statuses=(400,))
    for name in ("mcp-name", "mcp-method", "mcp-protocol-version"):
        yield Case(f"{name}: missing", request(good, without=[name]))
    for name, value in (
        ("mcp-name", "echo"),
        ("mcp-name", "a__b__d"),
        ("mcp-method", "tools/call"),
        ("mcp-method", "tools/list"),
    ):
        yield Case(f"{name}: twice, {value}", request(good, [(name, value)]), statuses=(400,))
    for value in (LEGACY, "2024-11-05", "2099-01-01", "1.0", "", "latest", f"{MODERN},{LEGACY}", "x" * 500):
        yield Case(f"version: header {value[:12]}", request(good, version=value))
        changed = TRUE | {META + "protocolVersion": value}
        yield Case(f"version: body {value[:12]}", request(call(_meta=changed)))
        if value != LEGACY:
            yield Case(f"version: both {value[:12]}", request(call(_meta=changed), version=value))
    yield Case("version: twice", request(good, [("mcp-protocol-version", LEGACY)]))
    for number, meta in enumerate(
        (
            None,
            [],
            "x",
            1,
            {},
            {META + "protocolVersion": MODERN},
            {META + "clientCapabilities": {}},
            TRUE | {META + "clientCapabilities": []},
        )
    ):
        yield Case(f"_meta: {number}", request(call(_meta=meta)))
    yield Case("_meta: missing", request(call(_meta=...)))
    for name, value in (
        *(
            ("origin", origin)
            for origin in (
                "https://evil.example",
                "null",
                "http://127.0.0.1.evil.example",
                "https://chat.acme.test.evil.example",
                "file://",
                "https://chat.acme.test@evil.example",
            )
        ),
        *(
            ("content-type", kind)
            for kind in ("text/plain", "application/xml", "multipart/form-data", "application/x-www-form-urlencoded")
        ),
        *(("content-encoding", kind) for kind in ("gzip", "br", "zstd", "deflate")),
    ):
        yield Case(f"{name}: {value}", request(good, [(name, value)], without=[name]))
    for header in ("x-extproc-order", "x-extproc-provider", "x-extproc-mcp-server", "x-envoy-original-path"):
        yield Case(f"forged: {header}", request(hidden, [(header, "mcp-a__b")], name="a__b__secret"))


def addresses() -> Iterator[Case]:
    """Paths and methods. Everything but a POST or DELETE of a profile is refused."""
    good = call()
    for target in (
        *(
            "/mcp",
            "/mcp/",
            "/mcp/others",
            "/mcp/dev/",
            "/mcp/dev/x",
            "/mcp//dev",
            "/mcp/DEV",
            "/mcp/dev%2f",
            "/mcp/%64ev",
            "/mcp/de%76",
        ),
        *(
            "/mcp/dev%00",
            "/mcp/../mcp/dev",
            "/mcp/./dev",
            "/mcp/dev;x",
            "/mcp/dev/../others",
            "/MCP/dev",
            "/v1/../mcp/dev",
            "/mcp/*",
        ),
        *("/mcp/dev\\x", "/mcp/a__b", "/mcp/plain", "/x/mcp/dev", "/mcp/" + "x" * 5_000),
    ):
        # Envoy turns ../ and ./ and escaped letters into the plain path, which then is the profile's own.
        if target not in ("/mcp/../mcp/dev", "/mcp/./dev", "/v1/../mcp/dev", "/mcp/%64ev", "/mcp/de%76", "/mcp//dev"):
            yield Case(f"path: {target[:24]}", request(good, target=target))
    for verb in ("GET", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "FOO"):
        content = None if verb in ("GET", "HEAD", "TRACE") else good
        yield Case(f"method: {verb}", request(content, method=verb), verb, (400, 404, 405, 501))
    yield Case("DELETE without a session", request(None, method="DELETE"), "DELETE")
    for length in ("-1", "99999999999999999999", "1, 2", "0x10", "+5", ""):
        yield Case(
            f"length: {length}", request(good, [("content-length", length)], ["content-length"]), statuses=(400, 413)
        )
    both = [("transfer-encoding", "chunked"), ("content-length", str(len(good)))]
    yield Case("length: both ways", request(good, both, ["content-length"]), statuses=(400,))
    yield Case("length: twice", request(good, [("content-length", "5")]), statuses=(400,))
    for kind in ("chunked, chunked", "gzip, chunked", "identity", "xchunked"):
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(good), good)
        yield Case(f"encoding: {kind}", request(chunk, [("transfer-encoding", kind)], ["content-length"]))
    large = call(arguments={"text": "x" * (LIMIT + 10)})
    yield Case("size: beyond the limit", request(large), statuses=(413,))
    stated = [("content-length", str(50 << 30))]
    yield Case("size: 50 GiB announced", request(good, stated, ["content-length"]), statuses=(413,))
    for name, value in (("authorization", "Bearer wrong"), ("authorization", "Basic eDp4"), ("authorization", "")):
        yield Case(f"key: {value[:12]}", request(good, [(name, value)], ["authorization"]), statuses=(400, 401))
    yield Case("key: none", request(good, without=["authorization"]), statuses=(401,))
    yield Case(
        "key: in the query",
        request(good, without=["authorization"], target=PATH + "?key=" + AUTH[1][7:]),
        statuses=(401,),
    )


def methods() -> Iterator[Case]:
    """Methods that the gateway does not know, or that belong to servers or to the other era."""
    for verb in (
        *(
            "sampling/createMessage",
            "elicitation/create",
            "roots/list",
            "tools/delete",
            "tools/Call",
            "tools/call ",
            "tasks/get",
        ),
        *(
            "tasks/cancel",
            "server/shutdown",
            "rpc.discover",
            "__proto__",
            "x" * 100_000,
            "",
            "../tools/call",
            "tools\\call",
        ),
        *("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"),
    ):
        safe = verb if verb.isprintable() and len(verb) < 1_000 else "x"
        yield Case(f"method: modern {verb[:24]}", request(body(method=verb, params={"_meta": TRUE}), verb=safe))
        if verb not in ("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
            yield Case(f"method: legacy {verb[:24]}", legacy(body(method=verb, params={})))
    for uri in (
        "",
        "file:///etc/passwd",
        "test://\0",
        "http://169.254.169.254/",
        "x" * 100_000,
        1,
        None,
        [],
        "hidden://x",
        "TEST://one",
    ):
        text = uri if isinstance(uri, str) else "x"
        yield Case(
            f"uri: {str(uri)[:24]!r}",
            request(
                body(method="resources/read", params={"uri": uri, "_meta": TRUE}),
                verb="resources/read",
                name=encoded(text),
            ),
        )
    for ref in (
        None,
        {},
        [],
        "x",
        {"type": "ref/prompt"},
        {"type": "ref/prompt", "name": "a__b__hidden"},
        {"type": "ref/resource", "uri": "hidden://x"},
        {"type": "ref/tool", "name": "echo"},
        {"type": ["ref/prompt"], "name": "greet"},
        {"type": "ref/prompt", "name": ["greet"]},
        {"type": "ref/resource", "uri": {}},
    ):
        params = {"ref": ref, "argument": {"name": "x", "value": "y"}, "_meta": TRUE}
        told = body(method="completion/complete", params=params)
        yield Case(f"ref: {ref}", request(told, verb="completion/complete"))
        yield Case(f"ref: legacy {ref}", legacy(body(method="completion/complete", params={"ref": ref})))
    for cursor in ("x", "-1", "0", "9" * 1_000, 5, [], {}, True):
        yield Case(
            f"cursor: {str(cursor)[:12]}",
            request(body(method="tools/list", params={"cursor": cursor, "_meta": TRUE}), verb="tools/list"),
            statuses=(200, 400),
        )


def sessions() -> Iterator[Case]:
    """Sessions and answers to questions that were forged, or are another consumer's."""
    good = body(params=OLD)
    yield Case("session: none", legacy(good, session=""), statuses=(400, 404))
    for number, session in enumerate(
        (
            *(
                "x",
                "0",
                "null",
                "undefined",
                "../",
                "x" * 4_000,
                "a" * 64,
                "{session}x",
                "x{session}",
                "{session}{session}",
                "{half}",
            ),
            *(
                "{foreign}",
                "{other}",
                "{upper}",
                "eyJhbGciOiJub25lIn0.e30.",
                "canary-session",
                "{session}, {foreign}",
                "'; --",
                "%00",
            ),
        )
    ):
        yield Case(f"session: {number} {session[:12]}", legacy(good, session=session), statuses=(400, 404, 431))
        yield Case(
            f"session: {number} {session[:12]} ended",
            (legacy(b"", session=session)[0].replace(b"POST", b"DELETE", 1),),
            "DELETE",
        )
    yield Case("session: twice", legacy(good, [("mcp-session-id", "x")]), statuses=(400, 404))
    for version in ("2024-11-05", "2099-01-01", MODERN, "x"):
        yield Case(
            f"session: version {version}", legacy(good, [("mcp-protocol-version", version)], ["mcp-protocol-version"])
        )
    for number, id in enumerate(
        (0, 1, -1, "x", "a~b~1~mac", "plain~canary~0~" + "0" * 32, "~~~", "x" * 5_000, None, True, {})
    ):
        text = json.dumps({"jsonrpc": "2.0", "id": id, "result": {"action": "accept", "content": {}}}).encode()
        yield Case(f"answer: {number} to no question", legacy(text), statuses=(400, 404))
        yield Case(f"answer: {number} by a modern client", request(text), statuses=(400,))


CASES = (*shapes(), *keys_twice(), *names(), *headers(), *addresses(), *methods(), *sessions())
