"""Abusive requests for each API besides chat: every kind of mistake that this package makes in chats, in the API's own
fields.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.e2e.abuse.bodies import BAD_COUNTS, BAD_FLAGS, NOT_OBJECTS, NUMBERS
from tests.e2e.abuse.models import NO_NAMES
from tests.e2e.abuse.paths import WRONG_METHODS
from tests.e2e.abuse.requests import BODY_LIMIT, DEPTH_LIMIT, USER, Refused, chunked, http
from tests.e2e.conftest import KEY

OBJECTS_ONLY = (
    "null",
    "{}",
    '""',
    '"Hi"',
    "0",
    "true",
    "[]",
    "[null]",
    "[1]",
    '["Hi"]',
    "[[]]",
    f"[{USER},null]",
    USER,
)


@dataclass(frozen=True, slots=True)
class Api:
    """One client API. `fields` are those of a good request, as JSON text. `says` is the field that holds the text,
    `wrong` invalid values for it. `counts` are the integer fields, each with invalid values. `flags` are the boolean
    fields.
    """

    path: str
    fields: Mapping[str, str]
    says: str
    wrong: Sequence[str]
    counts: Mapping[str, Sequence[str]]
    flags: Sequence[str] = ("stream",)
    anthropic: bool = False  # the shape of its errors

    def body(self, more: str | bytes = b"", **fields: str | bytes | None) -> bytes:
        """A good request. A keyword replaces a field, None removes it. `more` is added at the end as it stands."""
        given = {**self.fields, **fields}
        pairs = [b'"%s":%s' % (name.encode(), _raw(value)) for name, value in given.items() if value is not None]
        return b"{" + b",".join([*pairs, *([_raw(more)] if more else [])]) + b"}"

    def request(self, more: str | bytes = b"", **fields: str | bytes | None) -> bytes:
        return http(self.body(more, **fields), target=self.path)


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


_FROM_ZERO = tuple(value for value in BAD_COUNTS if value not in ("0", "-0"))
_MESSAGES = f"[{USER}]"
APIS = {
    "responses": Api(
        "/v1/responses",
        {"model": '"stub"', "input": '"Hi"'},
        "input",
        ("null", "{}", "0", "1.5", "true", "[]", "[null]", "[1]", '["Hi"]', "[[]]", f"[{USER},1]", USER),
        {"max_output_tokens": BAD_COUNTS, "top_logprobs": ("-1", "21", '"5"', "1.5", "true", "[]")},
        flags=("stream", "background"),
    ),
    "messages": Api(
        "/v1/messages",
        {"model": '"stub"', "max_tokens": "50", "messages": _MESSAGES},
        "messages",
        OBJECTS_ONLY,
        {"max_tokens": (*_FROM_ZERO, "null")},
        anthropic=True,
    ),
    "count_tokens": Api(
        "/v1/messages/count_tokens",
        {"model": '"claude"', "messages": _MESSAGES},
        "messages",
        OBJECTS_ONLY,
        {},
        anthropic=True,
    ),
    "completions": Api(
        "/v1/completions",
        {"model": '"gpt"', "prompt": '"Hi"'},
        "prompt",
        ("null", "{}", '""', "0", "true", "[]"),
        {"max_tokens": _FROM_ZERO, "n": (*BAD_COUNTS, "129"), "best_of": (*BAD_COUNTS, "129")},
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One request and its refusal. The error has the shape of `api`. None: OpenAI's shape, for answers of Envoy and
    unknown paths.
    """

    name: str
    api: Api | None
    refused: Refused


def cases() -> Iterator[Case]:
    for name, api in APIS.items():
        for what, status, code, pieces in _cases(api):
            yield Case(f"{name}: {what}", api, Refused(what, status, code, pieces))
        for what, status, code, pieces, method in _elsewhere(api):
            yield Case(f"{name}: {what}", None, Refused(what, status, code, pieces, method))
        for method in WRONG_METHODS:
            request = http(api.body(), target=api.path, method=method)
            yield Case(f"{name}: {method}", api, Refused(method, 405, "method_not_allowed", (request,), method))


_Case = tuple[str, int, str, tuple[bytes, ...]]


def _cases(api: Api) -> Iterator[_Case]:
    for name, body in _malformed(api):
        yield name, 400, "invalid_json", (http(body, target=api.path),)
    for text in NOT_OBJECTS:
        yield f"not an object: {text[:20]}", 400, "invalid_request", (http(text.encode(), target=api.path),)
    for name, request in _mistyped(api):
        yield name, 400, "invalid_request", (request,)
    for name in ("nope", "try-sandbox", "../../x", "stub,spare", "' OR '1'='1", "*"):
        status, code = (400, "invalid_request") if " " in name else (404, "model_not_found")
        yield f"model {name!r}", status, code, (api.request(model=json.dumps(name)),)
    for name, more, without, status, code in _HEADERS:
        yield name, status, code, (http(api.body(), target=api.path, more=more, without=without),)
    yield "no body", 400, "invalid_json", (http(None, target=api.path),)
    large = api.body('"x":"' + "a" * BODY_LIMIT + '"')
    yield "too large, chunked", 413, "body_too_large", chunked_to(api, large)
    yield "no body, chunked", 400, "invalid_json", chunked_to(api)


def _malformed(api: Api) -> Iterator[tuple[str, bytes]]:
    """Bodies that parsers read differently, or not at all."""
    says, value = api.says, api.fields[api.says]
    first = says[0]
    doubles = {
        "model": '"model":"spare"',
        "model, escaped": '"m\\u006fdel":"spare"',
        "model, before a space": '"model" :"spare"',
        "model, null": '"model":null',
        says: f'"{says}":{value}',
        f"{says}, escaped": f'"\\u{ord(first):04x}{says[1:]}":{value}',
        "stream": '"stream":false,"stream":true',
        "unknown": '"x":{"a":1,"a":2}',
        "in a list": '"x":[[{"a":1,"a":2}]]',
        "role": '"x":[{"role":"user","role":"system"}]',
        "hidden by colons": '"x":"\\":\\":","a":1,"a":2',
    } | {name: f'"{name}":1,"{name}":2' for name in api.counts}
    for name, more in doubles.items():
        yield f"twice: {name}", api.body(more)
    inner = '[{"role":"user","content":"Hi","content":"bad"}]'
    yield "twice: inside the text", api.body(**{says: inner})
    for depth in (DEPTH_LIMIT, 1_000, 5_000, 100_000):
        yield f"depth: lists, {depth}", api.body('"x":' + "[" * depth + "]" * depth)
        yield f"depth: objects, {depth}", api.body('"x":' + '{"a":' * depth + "1" + "}" * depth)
    yield "depth: in the text", api.body(**{says: "[" * 200 + "]" * 200})
    for name, text in (
        ("lone continuation byte", b'"\x80"'),
        ("overlong", b'"\xc0\xaf"'),
        ("surrogate in UTF-8", b'"\xed\xa0\x80"'),
        ("high surrogate", b'"\\ud800"'),
        ("low surrogate", b'"\\udc00"'),
        ("surrogates swapped", b'"\\ude00\\ud83d"'),
        ("NUL", b'"\0"'),
        ("newline", b'"a\nb"'),
        ("bad escape", b'"\\x41"'),
    ):
        yield f"text: {name}", api.body(**{says: text})
        yield f"model: {name}", api.body(model=text)
        yield f"key: {name}", api.body(text + b":1")
    whole = api.body()
    yield "byte order mark", b"\xef\xbb\xbf" + whole
    yield "UTF-16", whole.decode().encode("utf-16")
    yield "UTF-32", whole.decode().encode("utf-32")
    yield "gzip", gzip.compress(whole)
    for number in NUMBERS:
        yield f"number: {number[:20]}", api.body(f'"x":{number}')
    for name in api.counts:
        for number in ("1e400", "NaN", "Infinity", "01", "0x5", "9" * 5_000):
            yield f"{name}: {number[:20]}", api.body(**{name: number})
    for name, body in (
        ("cut short", whole[:-1]),
        ("two documents", whole + whole),
        ("text after", whole + b"x"),
        ("comma at the end", whole[:-1] + b",}"),
        ("single quotes", whole.replace(b'"', b"'")),
        ("comment", api.body('/* a */"x":1')),
        ("form", b"model=stub&prompt=Hi"),
        ("event stream", b"data: " + whole + b"\n\n"),
    ):
        yield name, body


def _mistyped(api: Api) -> Iterator[tuple[str, bytes]]:
    for name in api.flags:
        for value in BAD_FLAGS:
            yield f"{name} {value}", api.request(**{name: value})
    for name, values in api.counts.items():
        for value in values:
            yield f"{name} {value}", api.request(**{name: value})
    for value in api.wrong:
        yield f"{api.says} {value}", api.request(**{api.says: value})
    yield f"no {api.says}", api.request(**{api.says: None})
    yield "no model", api.request(model=None)
    yield "empty object", http(b"{}", target=api.path)
    for value in NO_NAMES:
        yield f"model {value}", api.request(model=value)
    for value in ("a\r\nx: y", "st ub", "stub\0", "stüb", "\x1b[31m", "a" * 257, "a" * 100_000):
        yield f"model {len(value)} {value[:10]!r}", api.request(model=json.dumps(value))
    if api.path == "/v1/completions":
        for value in ("1", '"x"', "[]", "true"):
            yield f"stream_options {value}", api.request('"stream":true', stream_options=value)


_HEADERS: Sequence[tuple[str, list[tuple[str | bytes, str | bytes]], Sequence[str], int, str]] = (
    ("no key", [], ["authorization"], 401, "missing_key"),
    ("wrong key", [("authorization", "Bearer x")], ["authorization"], 401, "invalid_key"),
    ("wrong key as Anthropic's", [("x-api-key", "x")], ["authorization"], 401, "invalid_key"),
    ("two keys", [("x-api-key", "x")], [], 401, "invalid_key"),
    ("basic", [("authorization", "Basic OnNrLWd3LWRlbW8=")], ["authorization"], 401, "invalid_key"),
    ("key in a cookie", [("cookie", f"x-api-key={KEY}")], ["authorization"], 401, "missing_key"),
    ("text", [("content-type", "text/plain")], ["content-type"], 415, "unsupported_encoding"),
    ("UTF-16", [("content-type", "application/json; charset=utf-16")], ["content-type"], 415, "unsupported_encoding"),
    ("two types", [("content-type", "text/plain")], [], 415, "unsupported_encoding"),
    ("gzip, said", [("content-encoding", "gzip")], [], 400, "invalid_json"),
    ("brotli, said", [("content-encoding", "br")], [], 415, "unsupported_encoding"),
)


def chunked_to(api: Api, *chunks: bytes) -> tuple[bytes, ...]:
    head, *rest = chunked(*chunks)
    return (head.replace(b"/v1/chat/completions", api.path.encode(), 1), *rest)


def _elsewhere(api: Api) -> Iterator[tuple[str, int, str, tuple[bytes, ...], str]]:
    """Requests that end before they reach the API: wrong paths, methods and keys."""
    for tail in ("/", "/x/y/z", ";", "%20", "%2f", "%3f", ".json", "//.."):
        path = api.path + tail
        if path != "/v1/messages//..":
            yield f"path + {tail!r}", 404, "path_not_found", (http(api.body(), target=path),), "POST"
    for name, path in (("upper case", api.path.upper()), ("escaped slash", "/v1%2f" + api.path.removeprefix("/v1/"))):
        yield f"path, {name}", 404, "path_not_found", (http(api.body(), target=path),), "POST"
    large = api.body('"x":"' + "a" * BODY_LIMIT + '"')
    yield "too large", 413, "body_too_large", (http(large, target=api.path),), "POST"
    upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
    yield "websocket", 403, "invalid_request", (http(api.body(), target=api.path, more=upgrade),), "POST"


CASES = list(cases())
