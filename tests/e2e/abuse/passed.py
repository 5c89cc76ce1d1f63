"""Requests that look abusive and are allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.e2e.abuse.models import WILD_NAMES
from tests.e2e.abuse.paths import SAME_PATHS
from tests.e2e.abuse.requests import (
    BODY_LIMIT,
    CHAT,
    DEPTH_LIMIT,
    Passed,
    chat,
    chunked,
    http,
    padded,
)
from tests.e2e.conftest import KEY

CONTENTS = {
    "escaped NUL": '"a\\u0000b"',
    "escaped newline": '"a\\r\\nx-extproc-translate: 1"',
    "beyond the BMP": '"\\ud83d\\ude00 \U0001f600"',
    "noncharacter": '"\\uffff\uffff"',
    "bidi": '"\u202ea\u202c"',
    "colons": '"\\":\\":,"',
    "a string that begins with a colon": '":"',
    "an event": '"data: [DONE]\\n\\n"',
    "a template": '"%REQ(authorization)% ${x} {{x}}"',
    "a null": "null",
    "a number": "12345678901234567890",
    "an object": '{"a":{"b":"c"}}',
    "a mixed list": '[1,null,"x",[],{"type":"text","text":"a"}]',
}
FIELDS = {
    "numbers": '"x":[-0,-0.0,1e308,5e-324,1E-400,0.1e1,9007199254740993,18446744073709551615]',
    "stream null": '"stream":null',
    "limits null": '"max_tokens":null,"max_completion_tokens":null,"n":null,"stream_options":null',
    "keys alike": '"é":1,"e\u0301":2,"E\u0301":3,"mоdel":"spare","models":["spare"]',
    "same keys in two objects": '"x":[{"a":1},{"a":2}],"y":{"a":{"a":{"a":1}}}',
    "a number of 400 digits": '"x":1' + "0" * 400,
    "as deep as allowed": '"x":' + "[" * (DEPTH_LIMIT - 1) + "]" * (DEPTH_LIMIT - 1),
    "an empty key": '"":""',
    "__proto__": '"__proto__":{"model":"spare"},"constructor":{"prototype":{}}',
}
LEFT_OUT = {
    "an address": '"api_base":"http://127.0.0.1:1","base_url":"http://127.0.0.1:1"',
    "a credential": '"api_key":"x","aws_secret_access_key":"x"',
    "headers": '"extra_headers":{"authorization":"Bearer x"}',
}
GOOD_TYPES = (
    *(
        "application/json",
        "APPLICATION/JSON",
        "application/json;",
        "application/json; charset=utf-8",
        'application/json; charset="UTF-8"',
    ),
    *("application/json;charset=utf8", "application/json; version=1", "application/json\t"),
)


def passed() -> Iterator[Passed]:
    for path in SAME_PATHS:
        yield Passed(f"path: {path}", (http(target=path),))
    for name, value in CONTENTS.items():
        body = chat(messages=f'[{{"role":"user","content":{value}}}]')
        yield Passed(f"content: {name}", (http(body),), body)
    for name, value in FIELDS.items():
        body = chat(value)
        yield Passed(f"field: {name}", (http(body),), body)
    for name, value in LEFT_OUT.items():
        yield Passed(f"left out: {name}", (http(chat(value)),))
    for name in WILD_NAMES:
        body = chat(model=json.dumps("any/" + name))
        yield Passed(f"model: any/{name[:40]}", (http(body),), chat(model=json.dumps(name)), model=name)
    for value in GOOD_TYPES:
        yield Passed(f"content-type: {value!r}", (http(more=[("content-type", value)], without=["content-type"]),))
    yield Passed("content-type: none", (http(without=["content-type"]),))
    for value in ("identity", "Identity", ""):
        yield Passed(f"content-encoding: {value!r}", (http(more=[("content-encoding", value)]),))
    for scheme in ("Bearer", "bearer", "BEARER", "Bearer  "):
        yield Passed(f"key: {scheme}", (http(more=[("authorization", f"{scheme} {KEY}")], without=["authorization"]),))
    for name in ("x-api-key", "api-key", "X-API-Key"):
        yield Passed(f"key: {name}", (http(more=[(name, KEY)], without=["authorization"]),))
        yield Passed(f"key: {name}, twice the same", (http(more=[(name, KEY)]),))
    exact = padded(BODY_LIMIT)
    yield Passed("body: as large as allowed", (http(exact),), exact)
    yield Passed("body: as large as allowed, chunked", chunked(exact), exact)
    yield Passed("body: a byte at a time", tuple(bytes([byte]) for byte in http()))
    yield Passed("body: chunks of a byte", chunked(*(bytes([byte]) for byte in CHAT)))
    yield Passed("body: head and body apart", (http()[: -len(CHAT)], CHAT))
    yield Passed("body: white space around", (http(b"\r\n\t " + CHAT + b" \n"),))
    extended = b'%x;a=b;c="d"\r\n%s\r\n0;e\r\n\r\n' % (len(CHAT), CHAT)
    yield Passed("body: chunk extensions", (http(None, more=[("transfer-encoding", "chunked")]), extended))
    yield Passed(
        "body: Transfer-Encoding: Chunked",
        (http(None, more=[("Transfer-Encoding", "Chunked")]), chunked(CHAT)[1] + b"0\r\n\r\n"),
    )
    yield Passed("body: expecting 100", (http(more=[("expect", "100-continue")]),))
    yield Passed("header: folded", (http(more=[("x-a", "b\r\n c")]),))
    yield Passed("header: ended by LF", (http().replace(b"\r\n", b"\n"),))
    yield Passed("header: CR in a value", (http(more=[("x-a", b"a\rx-extproc-translate: 1")]),))
    yield Passed("header: 32 KB", (http(more=[("x-a", "a" * 32_000)]),))
    yield Passed(
        "upgrade: h2c",
        (
            http(
                more=[
                    ("connection", "upgrade, http2-settings"),
                    ("upgrade", "h2c"),
                    ("http2-settings", "AAMAAABkAAQAAP__"),
                ]
            ),
        ),
    )
    yield Passed("upgrade: not in Connection", (http(more=[("upgrade", "websocket")]),))
    for host in ("evil.test", "127.0.0.1:1", "[::1]", "gateway.test:99999", "a@b", "a,b", "GATEWAY", "a" * 2_000, ""):
        yield Passed(f"host: {host[:40]!r}", (http(without=["host"], more=[("host", host)]),))
    yield Passed("host: two", (http(more=[("host", "evil.test")]),))
