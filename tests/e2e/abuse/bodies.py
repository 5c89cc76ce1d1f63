"""JSON that parsers read differently, and fields with a wrong type or value."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping

from tests.e2e.abuse.requests import (
    CHAT,
    DEPTH_LIMIT,
    USER,
    Refused,
    chat,
    http,
)

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
ALIKE = {
    name: chat(f'"{name}":"spare"')
    for name in (
        *(
            "Model",
            "MODEL",
            "mOdel",
            "\\u004dodel",
            "\uff4dodel",
            "ſtream",
            "\\u017ftream",
            "Stream",
            "Max_Tokens",
            "N",
        ),
        *("Messages", "Tools", "toolſ", "Reasoning_Effort", "reaſoning", "Api_Base", "Thin\u212aing"),
    )
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
    for name, body in ALIKE.items():
        yield Refused(
            f"alike: {name}", 400, "invalid_request", (http(body.encode() if isinstance(body, str) else body),)
        )
    for family, cases in families.items():
        for name, body in cases.items():
            raw = body if isinstance(body, bytes) else body.encode()
            yield Refused(f"{family}: {name}", 400, "invalid_json", (http(raw),))
    for text in NOT_OBJECTS:
        yield Refused(f"not an object: {text[:20]}", 400, "invalid_request", (http(text.encode()),))


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
