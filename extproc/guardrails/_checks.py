"""Checks beyond patterns: variety, entropy, checksums, tokens that decode."""

from __future__ import annotations

import binascii
import math
import re
from collections import Counter

import msgspec

_placeholder = re.compile(
    r"(?i)x{5,}|\*{3,}|\.{3}|your[_-]|[_-]here\b|example[_-]|placeholder|changeme|redacted|dummy|insert[_-]|replace|<|>|\$\{|\{\{"
).search
_weak = frozenset(
    ("password", "passwd", "pass", "pwd", "user", "username", "token", "null", "none", "true", "false", "undefined")
)
_header = msgspec.json.Decoder(dict[str, object]).decode
_digit, _lower, _upper = (re.compile(one).search for one in ("[0-9]", "[a-z]", "[A-Z]"))
_word_like = re.compile(
    r"[_.]*[a-z]+(?:[._/-]+[a-z]+[0-9]{0,3})*|[A-Z][a-z]+(?:[A-Z][a-z]+)*|[\w.]+\([\w.]*\)?|[a-z_.]+\[.*"
).fullmatch
_version = re.compile(r"v?[0-9]+(?:[.-][0-9a-z]+)*").fullmatch


def entropy(text: str) -> float:
    """Shannon entropy of a text, in bits a character."""
    size = len(text)
    return -sum(n / size * math.log2(n / size) for n in Counter(text).values()) if size else 0.0


def varied(text: str) -> bool:
    """False for `AKIAXXXXXXXXXXXXXXXX` and the like: few characters, repeated."""
    return len(set(text[-24:])) >= 5 and not _repeats(text[-16:])


def digits(text: str) -> bool:
    """True for a text with digits: long random text contains some, words with hyphens none."""
    return varied(text) and (sum(map(str.isdigit, text)) >= 2 or entropy(text) > 4.2)


def mixed(text: str) -> bool:
    """True for a text with upper case, lower case and digits, as random base64 has."""
    return bool(_digit(text) and _lower(text) and _upper(text)) and entropy(text) > 3.5


def jwt(text: str) -> bool:
    """True for a token whose first part is a JSON object, as a JOSE header is."""
    first = text.partition(".")[0]
    try:
        head = _header(binascii.a2b_base64(first.replace("-", "+").replace("_", "/") + "=" * (-len(first) % 4)))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError):
        return False
    return "alg" in head or "typ" in head or "enc" in head


def password(text: str) -> bool:
    """True for a password in a URL that is not a placeholder."""
    return text.lower() not in _weak and not _placeholder(text) and text[0] not in "$%[(" and len(set(text)) > 2


def credential(text: str) -> bool:
    """True for a token in a header that is random enough, or the base64 of user:password."""
    if _placeholder(text) or _word_like(text):
        return False
    try:
        pair = binascii.a2b_base64(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        pair = ""
    return (":" in pair and pair.isprintable()) or (len(text) >= 16 and digits(text) and entropy(text) >= 3.0)


def generic(text: str) -> bool:
    """True for a value in an assignment with random characters: not a word, a name, a version or code."""
    if _placeholder(text) or _word_like(text) or _version(text) or not varied(text):
        return False
    kinds = sum(map(bool, (_digit(text), _lower(text), _upper(text))))
    if not _digit(text):
        return False
    if len(text) < 16:
        return kinds == 3 and entropy(text) >= 3.0 and not text.isalnum()
    return (
        entropy(text) >= (3.0 if kinds == 2 and re.fullmatch("[0-9a-f]+", text) else 3.5)
        and sum(map(str.isdigit, text)) >= 2
    )


def _repeats(text: str) -> bool:
    return len(set(text)) < 4


def luhn(digits_: str) -> bool:
    """True for digits whose last one is the check digit of ISO/IEC 7812-1."""
    total = 0
    for index, digit in enumerate(reversed(digits_)):
        value = int(digit) * (1 + index % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban(text: str) -> bool:
    """True for an IBAN with valid check digits (ISO 13616): with its first four characters moved to the end, the number
    is 1 modulo 97.
    """
    moved = text[4:] + text[:4]
    return int("".join(str(int(letter, 36)) for letter in moved)) % 97 == 1
