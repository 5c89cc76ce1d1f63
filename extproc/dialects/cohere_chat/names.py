"""Tool names. Cohere allows only letters, digits and _, and no digit first; other APIs also allow a hyphen.

Source: https://docs.cohere.com/reference/errors ("tool names can only contain certain characters")

Every other character is written as its code point: get-it becomes get_0x2d_it.
"""

from __future__ import annotations

import re

_OTHERS = re.compile(r"[^A-Za-z0-9_]|^[0-9]|_(?=0x[0-9a-f])").sub
# Surrogates are excluded, because they are not characters.
_CODE = "(?!d[89a-f][0-9a-f]{2}_)[0-9a-f]{2,5}|10[0-9a-f]{4}"
_ESCAPES = re.compile(f"_0x({_CODE})_").sub


def escape(name: str) -> str:
    return _OTHERS(lambda found: f"_0x{ord(found[0]):02x}_", name)


def unescape(name: str) -> str:
    return _ESCAPES(lambda found: chr(int(found[1], 16)), name)
