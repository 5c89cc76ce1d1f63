"""Inputs of the fuzz targets: a seed, and a program of edits that hypothesis draws and shrinks.

Each edit of a program gives one input, so an example is `STEPS` inputs. After a few edits the program begins with the
seed again, because text that is all garbage is refused at its first byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

STEPS = 20
_WIDTH = 6  # bytes of an edit: operation, place, size, token
_FROM_SEED = 5  # edits before the seed comes again
_LARGEST = 20_000  # bytes
PROGRAMS = st.binary(min_size=STEPS * _WIDTH, max_size=STEPS * _WIDTH)

VALUES: Sequence[Any] = (
    *(None, True, False, 0, 1, -1, 2, 5, 0.5, -0.0, 1e300, 10**9, 2**53, 2**63, -(2**63), 2**64, 10**30),
    *("", " ", "a", "0", "null", "http://h/x", "data:image/png;base64,AAAA", "data:,", "\0", "\ud800"),
    "é中\U0001f600",
    *("x" * 300, '{"a":1}', "{", "AAAA", "%%%", "1:2", "base64", "[DONE]"),
    *([], {}, [[]], [{}], {"": {}}, [None], ["a", 1], {"type": None}, {"text": 1}),
)
"""Values that stand where an API has others."""

BYTES: Sequence[bytes] = (
    *(b"\0", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b" ", b"\t", b'"', b"\\", b'\\"', b"\\\\", b",", b":", b"\xff"),
    *(b"[", b"]", b"{", b"}", b"[]", b"{}", b"null", b"true", b"-0", b"1e400", b"1E5", b"0.1", b"-", b"9" * 30),
    *(
        b'"a":1,',
        b'"":',
        b"\\ud800",
        b"\\udc00",
        b"\\u0041",
        b"\xef\xbb\xbf",
        b"\xc3\xa9",
        b"\xf0\x9f\x98\x80",
        b"\x80",
    ),
    *(b"data:", b"data: ", b"event: x\n", b": c\n", b"data", b"id:1\n", b"retry:1\n", b"[DONE]"),
    *(b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\x10", b"\0\0\0\0", b"\x80\x80\x80\x80\x08"),
)
"""Tokens of the formats that are read as bytes."""


def _edits(program: bytes) -> Iterator[tuple[int, int, int, int]]:
    for at in range(0, len(program), _WIDTH):
        part = program[at : at + _WIDTH]
        yield part[0] % 8, part[1] << 8 | part[2], part[3], part[4] << 8 | part[5]


def changed_bytes(seed: bytes, program: bytes) -> Iterator[bytes]:
    """An input after each edit of bytes."""
    data = seed
    for number, (what, place, size, token) in enumerate(_edits(program)):
        if number % _FROM_SEED == 0 or len(data) > _LARGEST:
            data = seed
        at, count, new = place % (len(data) + 1), size % 40, BYTES[token % len(BYTES)]
        if what == 0:
            data = data[:at] + bytes((token & 255,)) + data[at + 1 :]
        elif what == 1:
            data = data[:at] + data[at + count + 1 :]
        elif what == 2:
            data = data[:at] + new + data[at:]
        elif what == 3:
            data = data[:at] + new + data[at + count :]
        elif what == 4:
            there = token % (len(data) + 1)
            data = data[:there] + data[at : at + count * 8] + data[there:]
        elif what == 5:
            data = data[:at]
        elif what == 6:
            data = data[:at] + bytes(byte ^ 1 << token % 8 for byte in data[at : at + 1]) + data[at + 1 :]
        else:
            data = data[:at] + new * count + data[at:]
        yield data


def changed_json(seed: Any, program: bytes, names: Sequence[str], words: Sequence[str]) -> Iterator[Any]:
    """An input after each edit of a JSON value, which is valid only until the next one. `names` and `words` are the
    keys and strings that an edit may write.
    """
    value = deepcopy(seed)
    for number, (what, place, size, token) in enumerate(_edits(program)):
        if number and (number % _FROM_SEED == 0 or len(json.dumps(value)) > _LARGEST):
            value = deepcopy(seed)
        places = list(_places(value))
        new = words[token % len(words)] if size % 3 == 0 else deepcopy(VALUES[token % len(VALUES)])
        if not places:
            value = new
            yield value
            continue
        holder, key = places[place % len(places)]
        if what == 1:
            del holder[key]
        elif what == 2:
            other, there = places[token % len(places)]
            holder[key] = deepcopy(other[there])
        elif what == 3 and isinstance(holder, dict):
            holder[names[size * 7 % len(names)]] = new
        elif what == 3:
            holder.insert(key, new)
        elif what == 4:
            holder[key] = [holder[key]] if size % 2 else {names[token % len(names)]: holder[key]}
        elif what == 5 and isinstance(holder, dict):
            holder[names[token % len(names)]] = holder.pop(key)
        elif what == 6 and isinstance(holder, list):
            holder.insert(token % (len(holder) + 1), deepcopy(holder[key]))
        else:
            holder[key] = new
        yield value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place of a value below the top, by its holder and key."""
    stack = [value] if isinstance(value, dict | list) else []
    while stack:
        holder = stack.pop()
        for key, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            yield holder, key
            if isinstance(item, dict | list):
                stack.append(item)


def vocabulary(seeds: Iterable[Any]) -> tuple[list[str], list[str]]:
    """The keys and the short strings of all seeds."""
    names, words = dict[str, None](), dict[str, None]()
    for seed in seeds:
        for holder, key in _places([seed]):
            if isinstance(key, str):
                names[key] = None
            if isinstance(holder[key], str) and len(holder[key]) < 40:
                words[holder[key]] = None
    return [*names, "", "extra", "Model", "__proto__"], [*words, ""]
