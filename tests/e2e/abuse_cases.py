"""The abusive requests, family by family. What is expected of each family is said where it is tested."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.e2e.conftest import KEY
from tests.e2e.raw import Headers, message

PATH = "/v1/chat/completions"
BODY_LIMIT = 1 << 20  # bytes, of the gateway under test
DEPTH_LIMIT = 128
WEBSOCKET = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]


def chat(fields: str | bytes = b"", *, model: str | bytes = b'"stub"', messages: str | bytes | None = None) -> bytes:
    """A chat as JSON text, so that what `json` would never write can be put anywhere in it."""
    fields, model, messages = (text.encode() if isinstance(text, str) else text for text in (fields, model, messages))
    messages = b'[{"role":"user","content":"Hi"}]' if messages is None else messages
    return b'{"model":' + model + b',"messages":' + messages + (b"," + fields if fields else b"") + b"}"


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
    """A good request, apart from what is added to it and taken from it."""
    headers = [header for header in (HOST, AUTH, JSON) if header[0] not in without] + list(more)
    if body is not None and "content-length" not in without:
        headers.append(("content-length", str(len(body))))
    return message(method, target, headers, body or b"", version=version)


def chunked(*chunks: bytes, more: Headers = (), end: bytes = b"0\r\n\r\n") -> tuple[bytes, ...]:
    head = http(None, more=[("transfer-encoding", "chunked"), *more])
    return (head, *(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks), end)


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the gateway answers with `status` and `code`, in its own name."""

    name: str
    status: int
    code: str
    pieces: tuple[bytes, ...]
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that only looks bad: it is served, and the provider sees `path` and `body`."""

    name: str
    pieces: tuple[bytes, ...]
    body: bytes = CHAT
    path: str = PATH
    model: str = "stub"


@dataclass(frozen=True, slots=True)
class Garbage:
    """What is no request at all to Envoy: a 4xx without a request id and the end of the connection, or only that."""

    name: str
    pieces: tuple[bytes, ...]
    status: int | None = 400  # None: closed without an answer
    code: str = "invalid_request"


# --- keys

NEAR = [KEY[:index] + ("x" if KEY[index] != "x" else "y") + KEY[index + 1 :] for index in range(len(KEY))]
WRONG_KEYS: list[str | bytes] = [
    *NEAR,
    KEY + "x",
    KEY[:-1],
    KEY[1:],
    KEY.upper(),
    KEY.title(),
    KEY + "\t" + KEY,
    f"{KEY} {KEY}",
    f"{KEY},{KEY}",
    f"{KEY}, Bearer {KEY}",
    f'"{KEY}"',
    f"'{KEY}'",
    f"<{KEY}>",
    f"{KEY};",
    f"{KEY}%00",
    f"{KEY}\\0",
    KEY.replace("-", "%2d"),
    KEY.replace("-", "_"),
    KEY.replace("-", "*"),
    KEY.replace("-", "?"),
    KEY.replace("-", "\u2010"),
    KEY.replace("e", "\u0435"),
    KEY.replace("e", "\u00e9"),
    KEY.replace("-", "-\u200b"),
    "\ufeff" + KEY,
    KEY.encode().replace(b"e", b"\xe9"),
    b"\xff\xfe\xfd",
    b"\xed\xa0\x80",
    "*",
    "%",
    "_",
    ".",
    "null",
    "undefined",
    "None",
    "true",
    "0",
    "[]",
    "{}",
    "' OR '1'='1",
    "' OR 1=1 --",
    '" OR ""="',
    "'; DROP TABLE keys; --",
    "x' UNION SELECT key FROM consumers --",
    "1; SELECT pg_sleep(10)",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "$(id)",
    "`id`",
    "; id",
    "| id",
    '{"$ne": null}',
    '{"$gt": ""}',
    '{"$where": "sleep(1000)"}',
    "*)(uid=*))(|(uid=*",
    "KEYS *",
    "x\\r\\nFLUSHALL\\r\\n",
    "GET consumer:demo",
    "../../etc/passwd",
    "file:///etc/passwd",
    "env:EXTPROC_DEMO_KEY",
    "$EXTPROC_DEMO_KEY",
    "hmac-sha256:" + "0" * 64,
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJkZW1vIn0.",
    "a" * 4096,
    "a" * 4097,
    KEY + " " * 10 + "a",
    KEY * 400,
    "a" * 50_000,
]
WRONG_AUTHORIZATIONS = [
    "",
    "Bearer",
    "Bearer ",
    "bearer",
    "BEARER",
    KEY,
    f"Bearer\t{KEY}",
    f"Bearer={KEY}",
    f"Bearer:{KEY}",
    f"Bearer: {KEY}",
    f"Bearer Bearer {KEY}",
    f"Basic {KEY}",
    "Basic c2stZ3ctZGVtbzo=",
    "Basic OnNrLWd3LWRlbW8=",
    f"Token {KEY}",
    f"ApiKey {KEY}",
    f"Negotiate {KEY}",
    f"AWS4-HMAC-SHA256 Credential={KEY}",
    f'Digest username="demo", response="{KEY}"',
    f"Bearer\u00a0{KEY}",
    f"Веarer {KEY}",
]


def keys() -> Iterator[Refused]:
    def refused(name: str, code: str, more: Headers, *, target: str = PATH) -> Refused:
        return Refused(f"key: {name}", 401, code, (http(more=more, without=["authorization"], target=target),))

    for key in WRONG_KEYS:
        text = key if isinstance(key, bytes) else key.encode()
        yield refused(f"bearer {text[:40]!r}", "invalid_key", [("authorization", b"Bearer " + text)])
    for key in (*NEAR[:3], "*", "' OR '1'='1", '{"$ne": null}', f"Bearer {KEY}", f"{KEY},{KEY}", "a" * 5000):
        yield refused(f"x-api-key {key[:40]!r}", "invalid_key", [("x-api-key", key)])
        yield refused(f"api-key {key[:40]!r}", "invalid_key", [("api-key", key)])
    for value in WRONG_AUTHORIZATIONS:
        yield refused(f"authorization {value[:40]!r}", "invalid_key", [("authorization", value)])
    for first, second in (("x", KEY), (KEY, "x"), (KEY, KEY), ("", KEY), (KEY, "")):
        both = [("authorization", f"Bearer {first}"), ("Authorization", f"Bearer {second}")]
        yield refused(f"two authorizations {first!r} {second!r}", "invalid_key", both)
        yield refused(
            f"two x-api-keys {first!r} {second!r}", "invalid_key", [("x-api-key", first), ("x-api-key", second)]
        )
        if first != second:
            mixed = [("authorization", f"Bearer {first}"), ("x-api-key", second)]
            yield refused(f"authorization {first!r} and x-api-key {second!r}", "invalid_key", mixed)
            mixed = [("api-key", first), ("x-api-key", second)]
            yield refused(f"api-key {first!r} and x-api-key {second!r}", "invalid_key", mixed)
    elsewhere = (
        "proxy-authorization",
        "x-goog-api-key",
        "x-auth-token",
        "cookie",
        "x-forwarded-authorization",
        "ocp-key",
    )
    yield refused("none", "missing_key", [])
    for name in elsewhere:
        yield refused(f"in {name}", "missing_key", [(name, f"Bearer {KEY}")])
    for name in ("access_token", "api_key", "api-key", "key", "x-api-key", "authorization", "token", "Bearer"):
        yield refused(f"in ?{name}=", "missing_key", [], target=f"{PATH}?{name}={KEY}")
    yield refused("in user info", "missing_key", [], target=f"http://x/v1/chat/completions?u={KEY}")
    for named in ("authorization", "Authorization", "close, authorization", "keep-alive, Authorization, te"):
        dropped = http(more=[("connection", named)])
        yield Refused(f"key: Connection: {named}", 401, "missing_key", (dropped,))
    trailer = chunked(
        CHAT, more=[("trailer", "authorization")], end=b"0\r\nauthorization: Bearer %s\r\n\r\n" % KEY.encode()
    )
    head = trailer[0].replace(b"authorization: Bearer " + KEY.encode() + b"\r\n", b"")
    yield Refused("key: in a trailer", 401, "missing_key", (head, *trailer[1:]))
    for path in ("/v1/models", "/v1/models/stub"):
        bare = http(None, method="GET", target=path, without=["authorization"])
        yield Refused(f"key: none for {path}", 401, "missing_key", (bare,), "GET")
    yield Refused("key: disabled", 401, "invalid_key", (_as("sk-gw-off"),))
    yield Refused("key: expired", 401, "expired_key", (_as("sk-gw-old"),))
    yield Refused("key: not granted", 403, "model_not_allowed", (_as("sk-gw-narrow", chat(model='"spare"')),))
    yield Refused(
        "key: not granted by wildcard", 403, "model_not_allowed", (_as("sk-gw-narrow", chat(model='"any/x"')),)
    )


def _as(key: str, body: bytes = CHAT) -> bytes:
    return http(body, without=["authorization"], more=[("authorization", f"Bearer {key}")])


# --- JSON

USER = '{"role":"user","content":"Hi"}'
DUPLICATES = {
    "model, cheap first": f'{{"model":"any/cheap","model":"stub","messages":[{USER}]}}',
    "model, same value": f'{{"model":"stub","model":"stub","messages":[{USER}]}}',
    "model, last": f'{{"model":"stub","messages":[{USER}],"model":"spare"}}',
    "model, escaped m": f'{{"model":"stub","\\u006dodel":"spare","messages":[{USER}]}}',
    "model, escaped first": f'{{"m\\u006Fdel":"spare","model":"stub","messages":[{USER}]}}',
    "model, all escaped": f'{{"model":"stub","\\u006d\\u006f\\u0064\\u0065\\u006c":"spare","messages":[{USER}]}}',
    "model, space before colon": f'{{"model" :"stub","model" :"spare","messages":[{USER}]}}',
    "model, tab before colon": f'{{"model":"stub","model"\t:"spare","messages":[{USER}]}}',
    "model, newline before colon": f'{{"model":"stub","model"\n:"spare","messages":[{USER}]}}',
    "model, return before colon": f'{{"model":"stub","model"\r:"spare","messages":[{USER}]}}',
    "model, null second": f'{{"model":"stub","model":null,"messages":[{USER}]}}',
    "messages": f'{{"model":"stub","messages":[{USER}],"messages":[]}}',
    "messages, escaped": f'{{"model":"stub","messages":[{USER}],"messa\\u0067es":[{USER}]}}',
    "stream": chat('"stream":false,"stream":true'),
    "max_tokens": chat('"max_tokens":1,"max_tokens":1000000'),
    "n": chat('"n":1,"n":128'),
    "tools": chat('"tools":[],"tools":[{"type":"function"}]'),
    "role": chat(messages='[{"role":"user","role":"system","content":"Hi"}]'),
    "content": chat(messages='[{"role":"user","content":"Hi","content":"bad"}]'),
    "content, escaped": chat(messages='[{"role":"user","content":"Hi","c\\u006fntent":"bad"}]'),
    "in a part": chat(messages='[{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}]'),
    "in the last message": chat(messages=f'[{",".join([USER] * 50)},{{"role":"user","role":"user","content":"a"}}]'),
    "in an unknown field": chat('"x":{"a":1,"a":2}'),
    "in a list of lists": chat('"x":[[[{"a":1,"a":2}]]]'),
    "deep": chat('"x":' + '{"a":' * 60 + '{"b":1,"b":2}' + "}" * 60),
    "empty key": chat('"":1,"":2'),
    "key with a quote": chat('"a\\"":1,"a\\"":2'),
    "key with a backslash": chat('"\\\\":1,"\\\\":2'),
    "key of a colon": chat('":":1,":":2'),
    "key with a slash": chat('"a/b":1,"a\\/b":2'),
    "key beyond the BMP": chat('"\U0001f600":1,"\\ud83d\\ude00":2'),
    "key not ASCII": chat('"ключ":1,"\\u043a\\u043b\\u044e\\u0447":2'),
    "hidden by a string of colons": chat('"x":"\\":\\":\\":","a":1,"a":2'),
    "hidden by strings that begin with a colon": chat('"x":[":",":",":"],"a":1,"a":2'),
    "hidden by an escaped backslash": chat('"x":"\\\\","a":1,"a" :2'),
    "thrice": chat('"a":1,"a":2,"a":3'),
}
DEPTHS = {
    f"{name}, {depth}": chat(f'"x":{opened * depth}{inner}{closed * depth}')
    for name, opened, inner, closed in (("lists", "[", "", "]"), ("objects", '{"a":', "1", "}"))
    for depth in (DEPTH_LIMIT, 500, 1_000, 1_024, 5_000, 100_000)
} | {
    "mixed, 2000": chat('"x":' + '[{"a":' * 1_000 + "1" + "}]" * 1_000),
    "in a message, 200": chat(messages='[{"role":"user","content":' + "[" * 200 + "]" * 200 + "}]"),
    "open lists": b"[" * 100_000,
    "open objects": b'{"a":' * 100_000,
    "open after a chat": CHAT[:-1] + b',"x":' + b"[" * 1_000_000,
}
NUMBERS = (
    *(
        "1e400",
        "-1e400",
        "1e999999",
        "1E+400",
        "9" * 400 + "e1",
        "1" + "0" * 5_000,
        "NaN",
        "-NaN",
        "Infinity",
        "-Infinity",
    ),
    *(
        "nan",
        "inf",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "-.5",
        "-",
        "--1",
        "1e",
        "1e+",
        "1.e1",
        "0x1F",
        "0b1",
        "0o7",
        "1_000",
    ),
    *("1,000", "1 000", "½", "١", "１", "1f", "1n", "1L"),
)
ENCODINGS = {
    "byte order mark": b"\xef\xbb\xbf" + CHAT,
    "UTF-16": CHAT.decode().encode("utf-16"),
    "UTF-16 LE": CHAT.decode().encode("utf-16-le"),
    "UTF-16 BE": CHAT.decode().encode("utf-16-be"),
    "UTF-32": CHAT.decode().encode("utf-32"),
    "UTF-32 LE": CHAT.decode().encode("utf-32-le"),
    "UTF-7": chat(messages='[{"role":"user","content":"Hi"}]').replace(b'"stub"', b"+ACI-stub+ACI-"),
    "Latin-1": chat('"x":"é"').decode().encode("latin-1"),
    "lone continuation byte": chat(b'"x":"\x80"'),
    "lead byte alone": chat(b'"x":"\xc3"'),
    "overlong slash": chat(b'"x":"\xc0\xaf"'),
    "overlong quote": chat(b'"x":"\xc0\xa2"'),
    "overlong NUL": chat(b'"x":"\xc0\x80"'),
    "surrogate as UTF-8": chat(b'"x":"\xed\xa0\x80"'),
    "surrogate pair as UTF-8": chat(b'"x":"\xed\xa0\xbd\xed\xb8\x80"'),
    "beyond U+10FFFF": chat(b'"x":"\xf4\x90\x80\x80"'),
    "five bytes": chat(b'"x":"\xf8\x88\x80\x80\x80"'),
    "bytes FE FF": chat(b'"x":"\xfe\xff"'),
    "invalid in a key": chat(b'"\xff":1'),
    "invalid in the model": chat(model=b'"st\xffub"'),
    "invalid in the content": chat(messages=b'[{"role":"user","content":"\xff"}]'),
    "high surrogate": chat('"x":"\\ud800"'),
    "low surrogate": chat('"x":"\\udc00"'),
    "surrogates swapped": chat('"x":"\\ude00\\ud83d"'),
    "high surrogate, text": chat('"x":"\\ud83dx"'),
    "two high surrogates": chat('"x":"\\ud83d\\ud83d"'),
    "surrogate in a key": chat('"\\ud800":1'),
    "surrogate in the model": chat(model='"\\ud800"'),
    "surrogate in the content": chat(messages='[{"role":"user","content":"\\udfff"}]'),
    "NUL in a string": chat(b'"x":"\0"'),
    "NUL between": chat(b'\0"x":1'),
    "NUL before": b"\0" + CHAT,
    "NUL after": CHAT + b"\0",
    "newline in a string": chat(b'"x":"a\nb"'),
    "tab in a string": chat(b'"x":"a\tb"'),
    "escape in a string": chat(b'"x":"\x1b[31m"'),
    "form feed between": chat(b'\x0c"x":1'),
    "vertical tab between": chat(b'\x0b"x":1'),
    "no-break space between": chat('\u00a0"x":1'),
    "line separator between": chat('\u2028"x":1'),
    "gzip": gzip.compress(CHAT),
    "deflate": zlib.compress(CHAT),
}
SYNTAX = {
    "nothing": b"",
    "white space": b" \r\n\t ",
    "open": b"{",
    "close": b"}",
    "cut short": CHAT[:-1],
    "cut in a string": CHAT[:20],
    "one brace too many": CHAT + b"}",
    "two documents": CHAT + CHAT,
    "two documents in lines": CHAT + b"\n" + CHAT,
    "text after": CHAT + b"x",
    "comma after": CHAT + b",",
    "comma in the end": CHAT[:-1] + b",}",
    "comma in the beginning": b"{," + CHAT[1:],
    "two commas": CHAT.replace(b",", b",,"),
    "no comma": CHAT.replace(b',"messages"', b' "messages"'),
    "no colon": CHAT.replace(b'"model":', b'"model" '),
    "equals sign": CHAT.replace(b'"model":', b'"model"='),
    "comma in a list": chat('"x":[1,]'),
    "single quotes": CHAT.replace(b'"', b"'"),
    "keys without quotes": CHAT.replace(b'"model"', b"model"),
    "typographic quotes": CHAT.replace(b'"model"', "“model”".encode()),
    "comment": chat('/* a */"x":1'),
    "line comment": CHAT + b"// a",
    "hash comment": CHAT + b"# a",
    "True": chat('"x":True'),
    "None": chat('"x":None'),
    "undefined": chat('"x":undefined'),
    "bad escape": chat('"x":"\\x41"'),
    "bad unicode escape": chat('"x":"\\u00g1"'),
    "short unicode escape": chat('"x":"\\u41"'),
    "escape at the end": b'{"x":"\\',
    "number as key": chat("1:2"),
    "form": b"model=stub&messages=Hi",
    "XML": b"<chat><model>stub</model></chat>",
    "YAML": b"model: stub\nmessages: []\n",
    "JSON in JSON": json.dumps(CHAT.decode())[:-1].encode(),
    "JSONP": b"f(" + CHAT + b")",
    "anti-hijacking prefix": b")]}'\n" + CHAT,
    "event stream": b"data: " + CHAT + b"\n\n",
    "concatenated null": CHAT + b"null",
    "binary": bytes(range(256)),
}
NOT_OBJECTS = ("null", "true", "false", "0", "-0", "1.5", '""', '"stub"', "[]", "[1]", f"[{CHAT.decode()}]", '"{}"')


def bodies() -> Iterator[Refused]:
    families: Mapping[str, Mapping[str, str | bytes]] = {
        "duplicate": DUPLICATES,
        "depth": DEPTHS,
        "encoding": ENCODINGS,
        "syntax": SYNTAX,
        "number": {number[:20]: chat(f'"x":{number}') for number in NUMBERS},
    }
    for family, cases in families.items():
        for name, body in cases.items():
            raw = body if isinstance(body, bytes) else body.encode()
            yield Refused(f"{family}: {name}", 400, "invalid_json", (http(raw),))
    for text in NOT_OBJECTS:
        yield Refused(f"not an object: {text[:20]}", 400, "invalid_request", (http(text.encode()),))


# --- fields

BAD_FLAGS = ('"true"', '"false"', '""', "1", "0", "1.0", "[]", "[true]", "{}", '"on"')
BAD_COUNTS = (
    *("-1", "0", "-0", "1.5", "1.0", "1e3", '"5"', '""', "true", "false", "[1]", "[]", "{}", "1e18", "1000000001"),
    *("99999999999999999999", "-9223372036854775809", "18446744073709551616", "0.1e1", '"1e3"', '"∞"'),
)
BAD_MESSAGES = (
    *("null", "[]", "{}", '""', '"Hi"', "0", "1", "true", "[null]", "[1]", '["Hi"]', "[[]]", "[true]", "[[{}]]"),
    *(f"[{USER},null]", f'[{USER},"Hi"]', f"[{USER},[{USER}]]", USER),
)


def fields() -> Iterator[Refused]:
    def refused(name: str, body: bytes) -> Refused:
        return Refused(f"field: {name}", 400, "invalid_request", (http(body),))

    for value in BAD_FLAGS:
        yield refused(f"stream {value}", chat(f'"stream":{value}'))
    for field in ("max_tokens", "max_completion_tokens", "n"):
        for value in BAD_COUNTS:
            yield refused(f"{field} {value}", chat(f'"{field}":{value}'))
    for value in ("129", "1000000"):
        yield refused(f"n {value}", chat(f'"n":{value}'))
    yield refused("both limits", chat('"max_tokens":1,"max_completion_tokens":1'))
    for value in ("1", '"x"', "[]", "true"):
        yield refused(f"stream_options {value}", chat(f'"stream":true,"stream_options":{value}'))
    for value in BAD_MESSAGES:
        yield refused(f"messages {value[:40]}", chat(messages=value))
    yield refused("no messages", b'{"model":"stub"}')
    yield refused("no model", f'{{"messages":[{USER}]}}'.encode())
    yield refused("empty object", b"{}")
    yield refused("keys in capitals", CHAT.replace(b'"model"', b'"Model"'))
    yield refused("a key that only looks like model", CHAT.replace(b'"model"', '"mоdel"'.encode()))
    for value in ("null", "[]", '""', "{}", "1", "true"):
        body = f'{{"model":"stub","input":{value}}}'.encode()
        yield Refused(f"embeddings: input {value}", 400, "invalid_request", (http(body, target="/v1/embeddings"),))
    tokens = b'{"model":"stub","input":[[1,2,3]]}'
    yield Refused("embeddings: tokens", 400, "guardrail_blocked", (http(tokens, target="/v1/embeddings"),))


# --- models

NO_NAMES = ("null", "0", "1", "-0", "1.5", "true", "false", '""', "[]", '["stub"]', '[["stub"]]', "{}", '{"id":"stub"}')
BAD_NAMES: tuple[str, ...] = (
    *(
        "a\r\nx-extproc-translate: 1",
        "a\nb",
        "a\rb",
        "a\tb",
        "stub\n",
        "\nstub",
        " stub",
        "stub ",
        "st ub",
        "stub\0",
        "\0",
    ),
    *(
        "\x1b[31mstub",
        "stub\x7f",
        "ѕtub",
        "stub\u200b",
        "stub\u00ad",
        "\ufeffstub",
        "ｓｔｕｂ",
        "stüb",
        "stu\u0308b",
        "\u202estub",
    ),
    *(
        "any/\u0660",
        "any/a b",
        "any/%0d%0ax: y",
        "any/\r\nx: y",
        "any/\x00",
        "any/ü",
        "\U000e0073tub",
        "stub\u2028",
        "a" * 257,
    ),
    *("any/" + "a" * 253, "a" * 5_000, "../" * 2_000, "a" * 900_000),
)
UNKNOWN_NAMES = (
    *(
        "../../x",
        "..",
        ".",
        "/",
        "//",
        "/stub",
        "stub/",
        "./stub",
        "stub/..",
        "..%2fstub",
        "%73tub",
        "stub%00",
        "STUB",
        "Stub",
    ),
    *(
        "*",
        "**",
        "any/*",
        "any/",
        "any/.",
        "any/..",
        "st*",
        "s?ub",
        "stub*",
        "an*/x",
        "any*",
        "any",
        "Any/x",
        "xany/x",
        "ANY/x",
        "%61ny/x",
    ),
    *(
        "sandbox",
        "sandbox/spare",
        "try-sandbox",
        "provider-sandbox",
        "stub,spare",
        "stub=spare",
        "stub;spare",
        "stub|spare",
    ),
    *(
        "__proto__",
        "constructor",
        "toString",
        "__class__",
        "{stub}",
        "${stub}",
        "{{stub}}",
        "$stub",
        "#stub",
        "?stub",
        "@stub",
    ),
    *(
        "'stub'",
        '"stub"',
        "`stub`",
        "<stub>",
        "(stub)",
        "[stub]",
        "\\stub",
        "stub\\",
        "st\\ub",
        "stub\\n",
        "\\u0073tub",
        "nul",
    ),
    *(
        "' OR '1'='1",
        "stub'--",
        "stub;DROP",
        "$(id)",
        "http://127.0.0.1:1/x",
        "file:///etc/passwd",
        "env:EXTPROC_DEMO_KEY",
    ),
    *("-", "_", "~", "!", "0", "-1", "null", "true", "undefined", "a" * 256, "any" + "a" * 253),
)
# A wildcard covers these: what the client wrote after `any/` is only ever a string in the body.
WILD_NAMES = (
    *(
        "../../v1",
        "...",
        "../x",
        "./x",
        "/x",
        "//",
        "a/b/c",
        "a,b=c",
        "x=spare,y=z",
        "a=b",
        "a,b",
        "%0d%0ax:y",
        "%2e%2e/x",
        "%00",
    ),
    *(
        "%2f..%2f",
        "x?y#z",
        "x;y",
        "a&b=c",
        "{0}",
        "{{x}}",
        "${jndi:ldap://x}",
        "<script>",
        'a"b',
        "a'b",
        "\\",
        "a\\b",
        "\\r\\n",
    ),
    *(
        "$(id)",
        "`id`",
        "|id",
        "a:b",
        "a@b",
        "~",
        "!",
        "\u005c\u005c",
        "x-extproc-translate:1",
        "other",
        "stub",
        "spare",
        "a" * 252,
    ),
)


def models() -> Iterator[Refused]:
    for value in NO_NAMES:
        yield Refused(f"model: {value}", 400, "invalid_request", (http(chat(model=value)),))
    for name in BAD_NAMES:
        body = chat(model=json.dumps(name))
        yield Refused(f"model: {len(name)} {name[:30]!r}", 400, "invalid_request", (http(body),))
    for name in UNKNOWN_NAMES:
        status, code = (400, "invalid_request") if " " in name else (404, "model_not_found")
        yield Refused(f"model: {len(name)} {name[:30]!r}", status, code, (http(chat(model=json.dumps(name))),))
    million = b'{"model":"' + b"m" * BODY_LIMIT + b'"}'
    yield Refused("model: a million characters", 413, "body_too_large", (http(million),))


# --- paths

UNKNOWN_PATHS = (
    *(
        "/",
        "/v1",
        "/v1/",
        "/v2/chat/completions",
        "/chat/completions",
        "/completions",
        "/responses",
        "/messages",
    ),
    *(
        "/v1/responses/resp_1",
        "/v1/responses/resp_1/cancel",
        "/v1/responses/resp_1/input_items",
        "/v1/responses/input_tokens",
        "/v1/responses/compact",
        "/v1/conversations",
        "/v1/messages/batches",
        "/v1/messages/count_tokens/",
        "/v1/messages/count-tokens",
        "/v1/messages%2fcount_tokens",
        "/v1/complete",
        "/v1/Messages",
        "/v1/responses/",
        "/v1/messages;x",
        "/v1/completions%2f",
    ),
    *(
        "/v1/batches",
        "/v1/files",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/moderations",
        "/v1/rerank",
        "/mcp",
        "/a2a",
    ),
    *(
        "/v1/fine_tuning/jobs",
        "/v1/assistants",
        "/v1/threads",
        "/v1/realtime",
        "/v1beta/models/x:generateContent",
        "/api/chat",
    ),
    *(
        "/openai/deployments/stub/chat/completions",
        "/model/stub/invoke",
        "/metrics",
        "/healthz",
        "/readyz",
        "/exchanges",
    ),
    *(
        "/stats",
        "/config_dump",
        "/quitquitquit",
        "/server_info",
        "/requests",
        "/control",
        "/v1/control",
        "/.env",
        "/favicon.ico",
    ),
    *(
        PATH + tail
        for tail in ("/", "//", "/.", "/..", "/../..", "/x", ";", ";a=b", "%20", "%2f", "%2F", "%2f..", "%5c", ".json")
    ),
    *(
        PATH + tail
        for tail in (
            "%",
            "%zz",
            "%3f",
            "%3Fx",
            "%23",
            "%0d%0ax:%20y",
            "%0a",
            "%ff",
            "%c0%af",
            "%e2%80%8b",
            "*",
            "~",
            "\\",
        )
    ),
    *(
        "/v1/chat%2fcompletions",
        "/v1/chat%2Fcompletions",
        "/v1%2fchat/completions",
        "/%2fv1/chat/completions",
    ),
    *(
        "/v1/chat%5ccompletions",
        "/v1/..%2fv1/chat/completions",
        "/v1/%2e%2e%2fv1/chat/completions",
        "/v1/%252e%252e/chat/completions",
    ),
    *(
        "/v1/chat%252fcompletions",
        "/v1/chat;/completions",
        "/v1;a/chat/completions",
        "/V1/chat/completions",
    ),
    *(
        "/v1/Chat/Completions",
        "/v1/chat/COMPLETIONS",
        "/v1/chat/completion",
        "/v1/chat",
        "/v1/chat/",
        "/v1/chat./completions",
    ),
    *(
        "/v1/chat/completions/../x",
        "//evil.test/v1/chat/completions",
        "/x" + PATH,
        PATH * 2,
        PATH + "/" + "a" * 9_000,
        "/" + "a" * 50_000,
    ),
    *(
        "/v1/models%2fstub",
        "/v1%2fmodels",
        "/v1/models;x",
        "/v1/models.json",
        "/v1/modelsx",
        "/v1/models/",
        "/v1/models/any/",
    ),
    *("/v1/embeddings/", "/v1/embeddings%2f", "/v1/Embeddings", "/v1/embeddings;x"),
)
# The provider and the processor see what Envoy made of it, and both the same.
SAME_PATHS = (
    *("//v1/chat/completions", "/v1//chat/completions", "///v1///chat///completions", "/./v1/chat/completions"),
    *(
        "/v1/./chat/./completions",
        "/v1/x/../chat/completions",
        "/../v1/chat/completions",
        "/../../../v1/chat/completions",
    ),
    *(
        "/v1/%2e%2e/v1/chat/completions",
        "/v1/%2E/chat/completions",
        "/%76%31/chat/completions",
        "/v1/%63hat/complet%69ons",
    ),
    *(
        "/v1\\chat\\completions",
        "/x\\..\\v1/chat/completions",
        "http://evil.test/v1/chat/completions",
    ),
    *(
        "http://127.0.0.1:1/v1/chat/completions",
        "http://a@evil.test/v1/chat/completions",
        "http://evil.test//v1/chat/completions",
    ),
)
MODEL_PATHS = {
    "any%2Fx": "any/x",
    "any%2fx": "any/x",
    "any/x": "any/x",
    "any%2fa%2fb": "any/a/b",
    "any%2Fa,b=c": "any/a,b=c",
    "any%2f%2525": "any/%25",
    "%73tub": "stub",
    "any/../stub": "stub",
    "/stub": "stub",
    "stub?api_key=x": "stub",
}
BAD_MODEL_PATHS = (
    *(
        "..%2fx",
        "%2e%2e%2fx",
        "%2E%2E%2Fx",
        ".%2e%2fx",
        "any%2f..",
        "any%2f%2e%2e",
        "any%2f..%2fstub",
        "any%2f..%2f..%2fv1",
        "any%2f.",
    ),
    *(
        "any%2f%2e%2fx",
        "any%2f%2fx",
        "%2fstub",
        "stub%2f",
        "any%2f",
        "%2f",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "any/x%2f..",
        "any%2f/x",
    ),
)
UNKNOWN_MODEL_PATHS = (
    *(
        "x",
        "STUB",
        "*",
        "any%2f*",
        "any%252fx",
        "any%5cx",
        "stub;x",
        "stub%20",
        "%20stub",
        "stub%0a",
        "any%2f%0d%0ax:%20y",
        "any%2f%ff",
    ),
    *(
        "any%2f%ed%a0%80",
        "any%2f%c3%bc",
        "stub%e2%80%8b",
        "__proto__",
        "{stub}",
        "%7bstub%7d",
        "a" * 257,
        "any%2f" + "a" * 253,
        "%zz",
        "%",
    ),
    *("any%2f%1b%5b31m", "any%2f%20", "a" * 9_000, "stub,spare", "'", "%22", "<script>"),
)
WRONG_METHODS = (
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "MKCOL",
    "LOCK",
    "SEARCH",
    "REPORT",
)
OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")


def paths() -> Iterator[Refused]:
    for path in UNKNOWN_PATHS:
        name, request = f"path: {path[:60]!r}", http(target=path)
        yield Refused(name, 404, "path_not_found", (request,))
    for path in ("/", "/v1/chat/completions%2f", "/v1/responses/x", "/metrics", "/v1/models/..%2fx"):
        request = http(target=path, without=["authorization"])
        yield Refused(f"path: {path!r} without a key", 404, "path_not_found", (request,))
    for id in BAD_MODEL_PATHS:
        request = http(None, method="GET", target=f"/v1/models/{id}")
        yield Refused(f"path: model {id!r}", 404, "path_not_found", (request,), "GET")
    for id in UNKNOWN_MODEL_PATHS:
        request = http(None, method="GET", target=f"/v1/models/{id}")
        yield Refused(f"path: model {id[:60]!r}", 404, "model_not_found", (request,), "GET")
    for method in WRONG_METHODS:
        yield Refused(f"method: {method}", 405, "method_not_allowed", (http(method=method),), method)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in ("/v1/models", "/v1/models/stub"):
            request = http(None, method=method, target=path)
            yield Refused(f"method: {method} {path}", 405, "method_not_allowed", (request,), method)
    for name in OVERRIDES:
        request = http(method="GET", more=[(name, "POST")])
        yield Refused(f"method: GET with {name}", 405, "method_not_allowed", (request,), "GET")
    asked = http(method="GET", target=PATH + "?_method=POST")
    yield Refused("method: GET with ?_method=POST", 405, "method_not_allowed", (asked,), "GET")
    for name, more in (
        ("websocket", WEBSOCKET),
        ("TLS", [("connection", "upgrade"), ("upgrade", "TLS/1.0")]),
        ("websocket, mixed", [("connection", "Upgrade, keep-alive"), ("upgrade", "h2c, websocket")]),
    ):
        for method, path, body in (("POST", PATH, CHAT), ("GET", PATH, None), ("GET", "/v1/models", None)):
            request = http(body, method=method, target=path, more=more)
            yield Refused(f"upgrade: {name} {method} {path}", 403, "invalid_request", (request,), method)
    tunnel = message("CONNECT", "evil.test:443", [("host", "evil.test:443"), AUTH])
    yield Refused("method: CONNECT", 404, "path_not_found", (tunnel,), "CONNECT")


# --- bodies and their headers

OTHER_TYPES = (
    *(
        "",
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/json, text/plain",
        "application/vnd.api+json",
        "*/*",
        "json",
    ),
    *(
        "application/x-ndjson",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ),
    *(
        "application/json+x",
        "application/json5",
        "application /json",
        "text/html;application/json",
        "application/javascript",
    ),
    *("application/json; charset=utf-7", "application/json;charset=UTF-16", "application/json; charset=latin1"),
    *(
        "application/json; charset = utf-16",
        "application/json; charset=utf-8; charset=utf-16",
        'application/json; charset="utf-16"',
    ),
    *(
        "application/json; x=charset=utf-8; charset=utf-16",
        "application/json; charset=",
        "application/json; charset",
        "application/xml",
    ),
    *(
        "application/json; charset=\tutf-16",
        "application/json; CHARSET=UTF-32",
        "application/json; charset*=utf-16''x",
        "a/b" * 3_000,
    ),
)
OTHER_ENCODINGS = (
    *(
        "gzip",
        "br",
        "deflate",
        "zstd",
        "x-gzip",
        "compress",
        "GZIP",
        "identity, gzip",
        "gzip, identity",
        "identity,identity",
    ),
    *(
        "aws-chunked",
        "none",
        "utf-8",
        "*",
        "gzip;q=0",
        "identity;q=1",
        "unknown",
        "exi",
        "dcb",
        "gzip\tbr",
        "g" * 3_000,
    ),
)


def payloads() -> Iterator[Refused]:
    for value in OTHER_TYPES:
        request = http(more=[("content-type", value)], without=["content-type"])
        yield Refused(f"content-type: {value[:60]!r}", 415, "unsupported_encoding", (request,))
    both = http(more=[("content-type", "text/plain")])
    yield Refused("content-type: two", 415, "unsupported_encoding", (both,))
    for value in OTHER_ENCODINGS:
        request = http(more=[("content-encoding", value)])
        yield Refused(f"content-encoding: {value[:60]!r}", 415, "unsupported_encoding", (request,))
    for name, compressed in (
        ("gzip", gzip.compress(CHAT)),
        ("gzip", gzip.compress(bytes(1 << 24))),
        ("deflate", zlib.compress(CHAT)),
    ):
        request = http(compressed, more=[("content-encoding", name)])
        yield Refused(
            f"content-encoding: {name}, {len(compressed)} bytes of it", 415, "unsupported_encoding", (request,)
        )
    twice = http(more=[("content-encoding", "identity"), ("content-encoding", "gzip")])
    yield Refused("content-encoding: two", 415, "unsupported_encoding", (twice,))

    large = _padded(BODY_LIMIT + 1)
    for name, pieces in (
        ("one byte too many", (http(large),)),
        ("one byte too many, chunked", chunked(large)),
        ("one byte too many, without a key", (http(large, without=["authorization"]),)),
        ("2 MiB in chunks of 64 KiB", chunked(*[b"[" * (64 << 10)] * 32)),
        ("1 GiB, declared", (http(None, more=[("content-length", str(1 << 30))]),)),
        ("8 EiB, declared", (http(None, more=[("content-length", str((1 << 63) - 1))]),)),
        (
            "1 GiB, declared, expecting 100",
            (http(None, more=[("content-length", str(1 << 30)), ("expect", "100-continue")]),),
        ),
        ("to a path nobody serves", (http(large, target="/nope"),)),
        ("to embeddings", (http(large, target="/v1/embeddings"),)),
        ("to the list of models", (http(large, target="/v1/models"),)),
    ):
        yield Refused(f"body: {name}", 413, "body_too_large", pieces)
    for name, pieces in (
        ("none", (http(None),)),
        ("none, length 0", (http(b""),)),
        ("none, chunked", chunked()),
        ("none, expecting 100", (http(None, more=[("content-length", "0"), ("expect", "100-continue")]),)),
        ("a chunk longer than it says", (*chunked()[:1], b"5\r\n" + CHAT + b"\r\n0\r\n\r\n")),
        ("none, but trailers", chunked(end=b"0\r\nx-body: " + b"a" * 100 + b"\r\n\r\n")),
        ("only in the query", (http(None, target=f"{PATH}?model=stub&messages=Hi"),)),
    ):
        yield Refused(f"body: {name}", 400, "invalid_json", pieces)


def _padded(size: int) -> bytes:
    return chat('"x":"' + "a" * (size - len(chat('"x":""'))) + '"')


# --- what is no HTTP

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
    for version, status in (
        ("HTTP/1.0", 426),
        ("HTTP/2.0", 426),
        ("HTTP/0.9", 426),
        ("HTTP/1.2", 426),
        ("HTTP/9.9", 426),
    ):
        yield Garbage(f"version: {version}", (http(version=version),), status)
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

    yield Garbage("bytes: HTTP/0.9", (b"GET /v1/models\r\n\r\n",), 426)
    for name, data in (
        ("TLS", bytes.fromhex("1603010005010000010303") + b"\r\n\r\n"),
        ("words", b"hello there, how are you?\r\n\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n\r\n"),
        ("SMTP", b"EHLO x\r\n\r\n"),
        ("zeros", bytes(100) + b"\r\n\r\n"),
        ("binary", bytes(range(128, 256)) + b"\r\n\r\n"),
    ):
        yield Garbage(f"bytes: {name}", (data,))


# --- what is allowed, although it looks bad

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
    "where the provider is": '"api_base":"http://127.0.0.1:1","base_url":"http://127.0.0.1:1","api_key":"x","extra_headers":{"a":"b"}',
    "stream null": '"stream":null',
    "limits null": '"max_tokens":null,"max_completion_tokens":null,"n":null,"stream_options":null',
    "keys alike": '"é":1,"e\u0301":2,"E\u0301":3,"Model":"spare","mоdel":"spare","models":["spare"]',
    "same keys in two objects": '"x":[{"a":1},{"a":2}],"y":{"a":{"a":{"a":1}}}',
    "a number of 400 digits": '"x":1' + "0" * 400,
    "as deep as allowed": '"x":' + "[" * (DEPTH_LIMIT - 1) + "]" * (DEPTH_LIMIT - 1),
    "an empty key": '"":""',
    "__proto__": '"__proto__":{"model":"spare"},"constructor":{"prototype":{}}',
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
    exact = _padded(BODY_LIMIT)
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


# --- headers nobody may forge

FORGED: Mapping[str, str] = {
    "x-extproc-id": "forged",
    "x-extproc-targets": "spare=spare-v2",
    "x-extproc-translate": "1",
    "x-extproc-provider": "backup",
    "x-extproc-hop": "forged",
    "x-extproc-attachment": "attempt",
    "x-extproc-edits": '[[{"model": "forged"}, [], ["openai", "openai_chat", "forged", null, true, true, false]]]',
    "x-extproc-attend": "all",
    "x-extproc-dialect": "anthropic_messages",
    "x-extproc-back-off": "5000",
    "x-extproc-timeout": "1",
    "x-extproc-translated": "1",
    "x-extproc-usage": "[0, 0, 0, 0, 0]",
    "x-extproc-ignored": "forged",
    "x-extproc-anything": "forged",
    "x-envoy-retry-on": "5xx,gateway-error,reset",
    "x-envoy-max-retries": "9",
    "x-envoy-retriable-status-codes": "200",
    "x-envoy-retriable-header-names": "content-type",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-upstream-rq-per-try-timeout-ms": "1",
    "x-envoy-upstream-rq-timeout-alt-response": "forged",
    "x-envoy-expected-rq-timeout-ms": "1",
    "x-envoy-hedge-on-per-try-timeout": "true",
    "x-envoy-upstream-alt-stat-name": "forged",
    "x-envoy-upstream-stream-duration-ms": "1",
    "x-envoy-original-path": "/v1/forged",
    "x-envoy-original-host": "forged.test",
    "x-envoy-original-dst-host": "127.0.0.1:1",
    "x-envoy-decorator-operation": "forged",
    "x-envoy-force-trace": "true",
    "x-envoy-internal": "true",
    "x-envoy-attempt-count": "9",
    "x-envoy-external-address": "10.0.0.1",
    "x-envoy-peer-metadata": "forged",
    "x-envoy-downstream-service-cluster": "forged",
    "x-envoy-fault-abort-request": "503",
    "x-envoy-fault-delay-request": "60000",
    "x-envoy-ip-tags": "forged",
    "x-forwarded-for": "10.0.0.1",
    "x-forwarded-host": "forged.test",
    "x-forwarded-proto": "https",
    "x-forwarded-port": "1",
    "x-forwarded-client-cert": "By=forged",
    "x-forwarded-anything": "forged",
    "forwarded": "for=10.0.0.1;host=forged.test",
    "x-ai-provider": "backup",
    "x-ai-model": "forged",
    "x-ai-team": "forged",
    "x-ai-consumer": "forged",
    "x-ai-error-origin": "provider",
    "x-ai-attempts": "9",
    "x-ai-cost": "-1",
    "x-ai-ignored": "forged",
    "x-request-id": "forged",
    "cookie": "forged=1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "forged=1",
    "baggage": "forged=1",
}
# What the envoy configuration lets through today, and should not.
LEAKED: Mapping[str, str] = {
    "proxy-authorization": "Basic Zm9yZ2Vk",
    "x-http-method-override": "DELETE",
    "x-http-method": "DELETE",
    "x-method-override": "DELETE",
    "x-real-ip": "10.0.0.1",
    "true-client-ip": "10.0.0.1",
    "x-original-url": "/v1/forged",
    "x-rewrite-url": "/v1/forged",
}

PSEUDO: list[tuple[str, str]] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "gateway.test"),
    (":path", PATH),
]


def http2(*more: tuple[str, str], without: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The headers of a good request over HTTP/2, pseudo-headers first."""
    good = [header for header in (*PSEUDO, AUTH, JSON) if header[0] not in without]
    return sorted([*good, *more], key=lambda header: not header[0].startswith(":"))


HTTP2_REFUSED: dict[str, tuple[int, str, list[tuple[str, str]]]] = {
    "no key": (401, "missing_key", http2(without=["authorization"])),
    "two keys": (401, "invalid_key", http2(("authorization", "Bearer x"))),
    "unknown path": (404, "path_not_found", http2((":path", "/nope"), without=[":path"])),
    "escaped slash": (404, "path_not_found", http2((":path", "/v1/chat%2fcompletions"), without=[":path"])),
    "trailing slash": (404, "path_not_found", http2((":path", PATH + "/"), without=[":path"])),
    "GET with a body": (405, "method_not_allowed", http2((":method", "GET"), without=[":method"])),
    "gzip": (415, "unsupported_encoding", http2(("content-encoding", "gzip"))),
    "text": (415, "unsupported_encoding", http2(("content-type", "text/plain"), without=["content-type"])),
    "CONNECT": (404, "path_not_found", http2((":method", "CONNECT"), without=[":method", ":path", ":scheme"])),
}
HTTP2_GARBAGE: dict[str, list[tuple[str, str]]] = {
    "name in capitals": http2(("X-ExtProc-Translate", "1")),
    "underscore": http2(("x_extproc_translate", "1")),
    "connection": http2(("connection", "authorization")),
    "keep-alive": http2(("keep-alive", "timeout=1")),
    "transfer-encoding": http2(("transfer-encoding", "chunked")),
    "upgrade": http2(("upgrade", "websocket")),
    "te": http2(("te", "gzip")),
    "length too small": http2(("content-length", "1")),
    "two lengths": http2(("content-length", LENGTH), ("content-length", "1")),
    "two paths": http2((":path", "/nope")),
    "two methods": http2((":method", "GET")),
    "two authorities": http2((":authority", "evil.test")),
    "no path": http2(without=[":path"]),
    "no method": http2(without=[":method"]),
    "no authority": http2(without=[":authority"]),
    "unknown pseudo-header": http2((":forged", "1")),
    "pseudo-header of an answer": http2((":status", "200")),
    "newline in a value": http2(("x-ai-agent", "a\r\nx-extproc-translate: 1")),
    "newline in a name": http2(("x-ai-agent\r\nx-extproc-translate", "1")),
    "NUL in a value": http2(("x-ai-agent", "a\0b")),
    "newline in the path": http2((":path", PATH + " HTTP/1.1\r\nx: y"), without=[":path"]),
    "space in the path": http2((":path", PATH + " x"), without=[":path"]),
    "empty path": http2((":path", ""), without=[":path"]),
    "no path but an asterisk": http2((":path", "*"), without=[":path"]),
    "absolute path": http2((":path", "http://evil.test" + PATH), without=[":path"]),
    "newline in the method": http2((":method", "POST / HTTP/1.1\r\n\r\nGET"), without=[":method"]),
    "empty method": http2((":method", ""), without=[":method"]),
    "user info in the authority": http2((":authority", "a@b"), without=[":authority"]),
    "extended CONNECT": http2((":method", "CONNECT"), (":protocol", "websocket"), without=[":method"]),
    "more than a hundred headers": http2(*[(f"x-h-{index}", "v") for index in range(101)]),
    "70 KB in a header": http2(("x-ai-agent", "a" * 70_000)),
}

# --- text that would break a log line

INJECTIONS = (
    *(
        '{"event":"exchange","forged":true}',
        '","status":200,"forged":"',
        "a\\nb",
        "\\u000a",
        "\\",
        '"',
        "'",
        "%0a%0d",
        "${jndi:ldap://x}",
    ),
    *(
        "\u2028{}",
        "\u202e",
        "é",
        "\U0001f600",
        "a\tb",
        "%s%n%x",
        "{}",
        "{0.__class__}",
        "x" * 10_000,
        "<script>alert(1)</script>",
        "\u0085",
    ),
)


def embedded(case: bytes) -> bytes:
    """A case of JSON text as the value of a field that nobody knows, in an otherwise good chat."""
    return CHAT[:-1] + b',"x":' + case + b"}"


def content(text: str) -> dict[str, Any]:
    return {"model": "stub", "messages": [{"role": "user", "content": text}]}


REFUSED = [*keys(), *bodies(), *fields(), *models(), *paths(), *payloads()]
GARBAGE = list(garbage())
PASSED = list(passed())
