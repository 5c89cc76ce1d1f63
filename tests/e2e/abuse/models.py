"""Model names: missing, of a wrong type, unknown, and strange ones that are allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.e2e.abuse.requests import (
    BODY_LIMIT,
    Refused,
    chat,
    http,
)

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
# A wildcard covers these: the text after `any/` is only a string in the body.
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
