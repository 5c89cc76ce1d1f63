"""Types of personal data: the checks behind the patterns of `_tables/personal.yaml`, see `TextKind`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from extproc.guardrails._checks import iban, luhn
from extproc.guardrails._shapes import Shapes, read
from extproc.guardrails._table import TextKind


def _accept(before: str, found: str) -> int:  # noqa: ARG001
    return len(found)


class _Shape(msgspec.Struct):
    """A type in the file. `near`: words after which the numbers of its regions count, too."""

    name: str
    patterns: Sequence[str]
    check: str = "accept"
    near: str = ""


class _Personal(Shapes):
    words: Mapping[str, str]
    files: Sequence[str]
    iban: Mapping[str, int]
    numbers: Mapping[str, Mapping[str, str]]
    types: Sequence[_Shape]


_TABLE: Final = read("personal", _Personal)
PASSPORTS: Final = _TABLE.numbers["passport"]


def _context(name: str) -> Callable[[str], object]:
    """A search for the words that the file lists under a name."""
    return re.compile(rf"(?i)\b(?:{_TABLE.words[name]})", re.ASCII).search


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


# --- e-mail


def _email(before: str, found: str) -> int:  # noqa: ARG001
    name, _, host = found.rpartition("@")
    if host.rpartition(".")[2].lower() in _TABLE.files or name == "git":
        return 0
    return len(found)


# --- cards

_card_name = _context("card")
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|3(?:0[0-5]|[689]\d)\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}|35\d{14}"
    r"|(?:1800|2131)\d{11}|9792\d{12}|220[0-4]\d{12}|(?:50|5[6-9]|6\d)\d{10,17}"
).fullmatch


def _card(before: str, found: str) -> int:
    number = _digits(found)
    if len(set(number)) < 3 or not luhn(number) or not _ISSUERS(number):
        return 0
    usual = len(number) in (15, 16) or (len(number) == 14 and number[0] == "3")
    return len(found) if usual or _card_name(before) else 0


# --- bank accounts


def _iban(before: str, found: str) -> int:  # noqa: ARG001
    compact = re.sub("[ -]", "", found).upper()
    size = _TABLE.iban.get(compact[:2], 0)
    if not size or len(compact) < size or not iban(compact[:size]):
        return 0
    seen = 0
    for index, letter in enumerate(found):
        seen += letter not in " -"
        if seen == size:
            return index + 1
    return 0


def _named(word: str, digits: int = 0) -> Callable[[str, str], int]:
    """A check that accepts a candidate after a word that the file lists under a name, with a minimum of digits."""
    is_named = _context(word)

    def check(before: str, found: str) -> int:
        return len(found) if is_named(before) and sum(map(str.isdigit, found)) >= digits else 0

    return check


# --- identity numbers

_ssn_name = _context("ssn")


def _ssn(before: str, found: str) -> int:
    number = _digits(found)
    named = _ssn_name(before)
    if found == number or " " in found or "." in found:
        return len(found) if named else 0
    valid = number[:3] not in ("000", "666") and number[3:5] != "00" and number[5:] != "0000"
    return len(found) if named or (valid and number[0] != "9") else 0


def _nino(before: str, found: str) -> int:  # noqa: ARG001
    return 0 if found[:2].upper() in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ") else len(found)


_licence = _named("licence", 4)


def _licence_or_uk(before: str, found: str) -> int:
    uk = len(found) == 16 and found[:5].isalpha() and found[5:11].isdigit()
    return len(found) if uk else _licence(before, found)


# --- telephone

_phone_name = _context("phone")
_not_phone = _context("not_phone")
_date_like = re.compile(
    r"(?:19|20)\d\d[-./ ](?:0?[1-9]|1[0-2])[-./ ]\d{1,2}\b.*"
    r"|\d{1,2}[-./ ]\d{1,2}[-./ ](?:\d\d|(?:19|20)\d\d(?:[ T]\d\d)?)"
).fullmatch
_years = re.compile(r"(?:1[5-9]|20)\d\d ?[-/ ] ?(?:1[5-9]|20)\d\d").match
_thousands = re.compile(r"[1-9]\d{0,2}(?:([ .])\d{3})(?:\1\d{3})*").fullmatch
_dotted_quad = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}").fullmatch
_groups = re.compile(r"\d+").findall
_extension = re.compile(r"\s?(?:x|ext\.?|extension)\s?\d{1,6}$", re.IGNORECASE).sub


def _no_phone(text: str) -> object:
    return _date_like(text) or _years(text) or _thousands(text) or _dotted_quad(text)


def _phone(before: str, found: str) -> int:
    core = _extension("", found) if "x" in found.lower() else found
    groups = _groups(core)
    size = sum(map(len, groups))
    if not 7 <= size <= 15 or len(set("".join(groups))) < 2 or (core[0] != "+" and _no_phone(core)):
        return 0
    plausible = core[0] == "+" or (core.startswith("00") and core[2] in "123456789")
    if plausible and size >= 8:
        return len(found)
    named = bool(_phone_name(before))
    if not named and _not_phone(before[-28:]):
        return 0
    if core[0] == "(" and 2 <= len(groups[0]) <= 5 and len(groups) > 1 and size >= 8:
        return len(found)
    if len(groups) == 1:
        time_of_log = size == 13 and core[:2] in ("16", "17", "18")  # milliseconds since 1970
        return len(found) if named and 9 <= size <= 13 and not time_of_log else 0
    if [len(group) for group in groups] == [5, 4]:  # ZIP+4
        return 0
    if len(groups) == 2:
        national = (
            size >= 9 and len(groups[0]) > 1 and (groups[0][0] == "0" or [len(group) for group in groups] == [3, 7])
        )
        return len(found) if named or national else 0
    sizes = [len(group) for group in groups]
    if sizes == [3, 2, 4] or max(sizes) > 8 or len(groups) > 6 or sizes.count(1) > 1:
        return len(found) if named and max(sizes) <= 8 else 0
    american = sizes[-3:] == [3, 3, 4]
    spread = 9 <= size <= 12 and 2 <= sizes[0] <= 3 and min(sizes) >= 2 and (len(sizes) > 3 or " " not in core)
    return len(found) if named or american or (groups[0][0] == "0" and size >= 8) or spread else 0


# --- addresses of machines

_version_name = _context("version")


def _ip(before: str, found: str) -> int:
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return 0
    if address.is_loopback or address.is_unspecified or address.is_multicast or found.startswith(("255.", "0.")):
        return 0
    return 0 if address.version == 4 and _version_name(before[-20:]) else len(found)


# --- addresses

_address_name = _context("address")
_has_tail = re.compile(
    r"(?i)(?:apt|apartment|suite|ste|unit|flat)\b|\b[A-Z]{2},?\s[0-9]{5}\b|[A-Z]{1,2}[0-9][0-9A-Z]?\s[0-9][A-Z]{2}$",
    re.ASCII,
).search


def _address(before: str, found: str) -> int:
    return len(found.rstrip(" ,\n")) if _address_name(before) or _has_tail(found) else 0


def _address_or_box(before: str, found: str) -> int:
    return len(found) if found[:1] in "pP" and "box" in found.lower() else _address(before, found)


def types(regions: Sequence[str]) -> Sequence[TextKind]:
    """All types, with the numbers of these regions; where two types overlap, the earlier wins."""
    found = []
    for one in _TABLE.types:
        patterns = [_TABLE.expanded(pattern) for pattern in one.patterns]
        if one.near:
            number = "|".join(_TABLE.numbers[one.name][region] for region in regions)
            patterns.insert(0, rf"(?i:\b(?:{one.near})[^\n;]{{0,40}}?[^A-Za-z0-9.;\n-])(?P<v>{number})\b")
        found.append(TextKind(one.name, tuple(patterns), _CHECKS[one.check]))
    return found


_CHECKS: Final[Mapping[str, Callable[[str, str], int]]] = {
    "accept": _accept,
    "address_or_box": _address_or_box,
    "bank_account": _named("account"),
    "card": _card,
    "email": _email,
    "iban": _iban,
    "ip": _ip,
    "licence_or_uk": _licence_or_uk,
    "national_id": _named("national_id", 4),
    "nino": _nino,
    "phone": _phone,
    "ssn": _ssn,
}
NAMES: Final = tuple(dict.fromkeys(one.name for one in _TABLE.types))
