"""Types of personal data: what each looks like, and the checks behind the patterns.

A check gets the `BEFORE` characters in front of a candidate, and the candidate. It gives the number of characters that it
accepts, from the candidate's beginning: 0 for none.
"""

# ruff: noqa: E501  a pattern is one line
from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from extproc.guardrails._checks import iban, luhn

BEFORE = 64
"""Characters in front of a candidate in which a word may tell its meaning."""


def _accept(before: str, found: str) -> int:  # noqa: ARG001
    return len(found)


@dataclass(slots=True, frozen=True)
class Type:
    """A type of personal data. Group `v` of a pattern is the candidate where the pattern needs text before it."""

    name: str
    patterns: Sequence[str]
    check: Callable[[str, str], int] = _accept


def _context(words: str) -> Callable[[str], object]:
    return re.compile(rf"(?i)\b(?:{words})", re.ASCII).search


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


# --- e-mail

_FILES = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "js",
        "ts",
        "css",
        "py",
        "md",
        "json",
        "html",
        "ico",
        "woff",
        "mp4",
        "pdf",
    ]
)  # icon@2x.png


def _email(before: str, found: str) -> int:  # noqa: ARG001
    name, _, host = found.rpartition("@")
    if host.rpartition(".")[2].lower() in _FILES or name == "git":
        return 0
    return len(found)


# --- cards

_card_name = _context("card|visa|master ?card|maestro|amex|american express|diners|discover|jcb|credit|debit|cc|pan")
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

_IBAN_LENGTHS: Final = dict(
    pair.split(":")
    for pair in [
        "AD:24",
        "AE:23",
        "AL:28",
        "AT:20",
        "AZ:28",
        "BA:20",
        "BE:16",
        "BG:22",
        "BH:22",
        "BI:27",
        "BR:29",
        "BY:28",
        "CH:21",
        "CR:22",
        "CY:28",
        "CZ:24",
        "DE:22",
        "DJ:27",
        "DK:18",
        "DO:28",
        "EE:20",
        "EG:29",
        "ES:24",
        "FI:18",
        "FK:18",
        "FO:18",
        "FR:27",
        "GB:22",
        "GE:22",
        "GI:23",
        "GL:18",
        "GR:27",
        "GT:28",
        "HN:28",
        "HR:21",
        "HU:28",
        "IE:22",
        "IL:23",
        "IQ:23",
        "IS:26",
        "IT:27",
        "JO:30",
        "KW:30",
        "KZ:20",
        "LB:28",
        "LC:32",
        "LI:21",
        "LT:20",
        "LU:20",
        "LV:21",
        "LY:25",
        "MC:27",
        "MD:24",
        "ME:22",
        "MK:19",
        "MN:20",
        "MR:27",
        "MT:31",
        "MU:30",
        "NI:28",
        "NL:18",
        "NO:15",
        "OM:23",
        "PK:24",
        "PL:28",
        "PS:29",
        "PT:25",
        "QA:29",
        "RO:24",
        "RS:22",
        "RU:33",
        "SA:24",
        "SC:31",
        "SD:18",
        "SE:24",
        "SI:19",
        "SK:24",
        "SM:27",
        "SO:23",
        "ST:25",
        "SV:28",
        "TL:23",
        "TN:24",
        "TR:26",
        "UA:29",
        "VA:22",
        "VG:24",
        "XK:20",
        "YE:30",
    ]
)
"""Lengths by country, from the IBAN registry of SWIFT."""


def _iban(before: str, found: str) -> int:  # noqa: ARG001
    compact = re.sub("[ -]", "", found).upper()
    size = int(_IBAN_LENGTHS.get(compact[:2], 0))
    if not size or len(compact) < size or not iban(compact[:size]):
        return 0
    seen = 0
    for index, letter in enumerate(found):
        seen += letter not in " -"
        if seen == size:
            return index + 1
    return 0


_account = _context("account (?:number|no|#)|acct|routing|aba|sort code|kontonummer|bank account|rtn")


def _bank_account(before: str, found: str) -> int:
    return len(found) if _account(before) else 0


# --- identity numbers

_ssn_name = _context(r"ssn|social security|soc\.? sec|social insurance|tax ?payer|itin|tin\b")


def _ssn(before: str, found: str) -> int:
    number = _digits(found)
    named = _ssn_name(before)
    if found == number or " " in found or "." in found:
        return len(found) if named else 0
    valid = number[:3] not in ("000", "666") and number[3:5] != "00" and number[5:] != "0000"
    return len(found) if named or (valid and number[0] != "9") else 0


_id_name = _context(
    r"national insurance|nino|nhs|aadhaar|aadhar|tfn|tax file|medicare|cpf|cnpj|dni\b|nie\b|nif\b|curp|rfc\b|bsn|pesel|"
    r"steuer-?id|steuernummer|codice fiscale|personnummer|cpr|fødselsnummer|henkilötunnus|hkid|nric|fin\b|pan\b|"
    r"national id|identity (?:card|number)|id (?:card|number|no)|personal id|citizen id|voter|tax id|sin\b"
)


def _national_id(before: str, found: str) -> int:
    return len(found) if _id_name(before) and sum(map(str.isdigit, found)) >= 4 else 0


def _nino(before: str, found: str) -> int:  # noqa: ARG001
    return 0 if found[:2].upper() in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ") else len(found)


_licence_name = _context(
    r"driv(?:er|ing)(?:'?s)?'? ?(?:licen[cs]e|permit)|licen[cs]e (?:number|no|#|is|id)|dl ?(?:#|no|number|:)|"
    "führerschein|permis de conduire|permiso de conducir"
)


def _licence(before: str, found: str) -> int:
    return len(found) if _licence_name(before) and sum(map(str.isdigit, found)) >= 4 else 0


PASSPORTS: Final[Mapping[str, str]] = {
    "au": "[A-Z]{1,2}[0-9]{7}",
    "br": "[A-Z]{2}[0-9]{6}",
    "ca": "[A-Z]{2}[0-9]{6}|[A-Z][0-9]{6}[A-Z]{2}",
    "cn": "[EG][A-Z0-9][0-9]{7}",
    "eu": "[A-Z]{1,3}[0-9]{5,8}[A-Z]?|[0-9]{2}[A-Z]{2}[0-9]{5}|[CFGHJKLMNPRTVWXYZ][CFGHJKLMNPRTVWXYZ0-9]{8}",
    "in": "[A-Z][0-9]{7}",
    "jp": "[A-Z]{2}[0-9]{7}",
    "uk": "[0-9]{9}",
    "us": "[A-Z][0-9]{8}|[0-9]{9}",
}
"""Numbers of passports by region (ICAO 9303 allows nine letters and digits)."""

LICENCES: Final[Mapping[str, str]] = {
    "au": "[0-9]{6,10}",
    "br": "[0-9]{11}",
    "ca": "[A-Z][0-9]{4}-?[0-9]{5}-?[0-9]{5}|[0-9]{6,9}|[A-Z][0-9]{12}",
    "cn": "[0-9]{17}[0-9X]",
    "eu": "[A-Z0-9]{8,13}",
    "in": "[A-Z]{2}[ -]?[0-9]{2}[ -]?(?:19|20)[0-9]{2}[ -]?[0-9]{7}",
    "jp": "[0-9]{12}",
    "uk": "[A-Z9]{5}[ ]?[0-9]{6}[ ]?[A-Z9]{2}[0-9][A-Z]{2}",
    "us": "[A-Z]{1,3}[0-9]{5,13}[A-Z]?|[0-9]{6,12}|[A-Z][0-9]{3}-[0-9]{3,4}-[0-9]{2,4}(?:-[0-9]{1,4}){0,2}|[0-9]{2}-[0-9]{3}-[0-9]{4}",
}
"""Numbers of driving licences by region."""

# --- telephone

_phone_name = _context(
    r"phone|tele?phone|tel\b|call|mobile|cell|fax|whatsapp|sms|text (?:me|us|him|her)|contact|dial|reach|ring|desk|office|"
    "hotline|handy|numéro|telefon|teléfono|number is|numbers? (?:to|for) "
)
_not_phone = _context(
    r"isbn|issn|doi|order|invoice|ticket|serial|version|tracking|part no|sku|score|pin|zip|postal|id\b|card|account|iban|"
    r"population|about|approximately|usd|eur|\$|€|£|coordinates?|latitude|longitude|port|year|pages?|no\.|#"
)
_date_like = re.compile(
    r"(?:19|20)\d\d[-./ ](?:0?[1-9]|1[0-2])[-./ ]\d{1,2}\b.*|\d{1,2}[-./ ]\d{1,2}[-./ ](?:\d\d|(?:19|20)\d\d(?:[ T]\d\d)?)"
).fullmatch
_years = re.compile(r"(?:1[5-9]|20)\d\d ?[-/ ] ?(?:1[5-9]|20)\d\d").match
_thousands = re.compile(r"[1-9]\d{0,2}(?:([ .])\d{3})(?:\1\d{3})*").fullmatch
_dotted_quad = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}").fullmatch
_groups = re.compile(r"\d+").findall
_extension = re.compile(r"\s?(?:x|ext\.?|extension)\s?\d{1,6}$", re.IGNORECASE).sub


def _no_phone(text: str) -> object:
    return _date_like(text) or _years(text) or _thousands(text) or _dotted_quad(text)


def _phone(before: str, found: str) -> int:
    core = _extension("", found)
    groups = _groups(core)
    size = sum(map(len, groups))
    if not 7 <= size <= 15 or len(set("".join(groups))) < 2 or _no_phone(core):
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
        return len(found) if named and (9 <= size <= 13) else 0
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

_version_name = _context(r"version|release|v\.?$|build|section|chapter|upgrade|firmware|driver")


def _ip(before: str, found: str) -> int:
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return 0
    if address.is_loopback or address.is_unspecified or address.is_multicast or found.startswith(("255.", "0.")):
        return 0
    return 0 if address.version == 4 and _version_name(before[-20:]) else len(found)


# --- dates of birth, addresses

_MONTH = r"(?:jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]{0,6}\.?"
_DATE = (
    r"[0-9]{1,2}[-./][0-9]{1,2}[-./](?:[0-9]{4}|[0-9]{2})|[0-9]{4}[-./][0-9]{1,2}[-./][0-9]{1,2}"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th|\.)?(?:\s|-|\sof\s){_MONTH}[\s,-]{{1,2}}[0-9]{{4}}|{_MONTH}\s[0-9]{{1,2}}(?:st|nd|rd|th)?,?\s[0-9]{{4}}"
)
_birth = r"(?:born|birth ?(?:day|date)?|d\.?o\.?b\.?|geboren|geburtsdatum|né[e]?|nacimiento|nascita|naissance)"

_SUFFIX = (
    r"(?:street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|way|court|ct|place|pl|square|sq|terrace|parkway|pkwy|"
    r"highway|hwy|crescent|close|circle|cir|row|alley|trail|trl|loop|path|plaza|walk|gardens?|grove|mews|hill|quay|ridge|"
    r"heights|view|crossing|manor|estates?|meadows?|park|turnpike|spur|villas?|springs?|shores?|island|ranch|point|harbors?|"
    r"isle|knolls?|landing|lodge|bypass|causeway|center|cliffs?|common|corner|course|cove|creek|forks?|glen|green|junction|"
    r"mountain|motorway|oval|overpass|parade|pass|pike|pines|plains?|port|prairie|radial|rapids?|rest|river|route|run|shoal|"
    r"skyway|station|stravenue|stream|summit|throughway|trace|track|trafficway|tunnel|underpass|union|unions|valley|viaduct|"
    r"village|ville|vista|ways|wells?)"
)
_UNIT = r"(?:(?:,|\s|\n){1,3}(?:apt|apartment|suite|ste|unit|flat|floor|fl|room|rm|#)\.?\s?#?[0-9a-z-]{1,6})?"
_TOWN = r"(?:(?:,|\s|\n){1,3}[A-Z][A-Za-z.'-]{1,24}(?:\s[A-Z][A-Za-z.'-]{1,24}){0,2})?(?:(?:,|\s|\n){1,3}[A-Z]{2})?(?:(?:,|\s|\n){1,3}[0-9]{5}(?:-[0-9]{4})?|(?:,|\s|\n){1,3}[A-Z]{1,2}[0-9][0-9A-Z]?\s?[0-9][A-Z]{2})?"
_address_name = _context(
    r"address|lives? (?:at|on|in)|living (?:at|on)|resid(?:es?|ing|ence)|ship(?:ped|ping)? (?:it )?to|deliver(?:ed|y)? (?:it )?to|"
    r"mail(?:ing)? (?:it )?to|send (?:it|them|this) to|located at|moved to|home (?:is )?(?:at|on)|billing|my house|meet (?:me )?at|"
    r"wohn[et]|adresse|habite|vive en|dirección|pick ?up at|come to|visit (?:me|us) at|office at|street is"
)
_has_tail = re.compile(
    r"(?i)(?:apt|apartment|suite|ste|unit|flat)\b|\b[A-Z]{2},?\s[0-9]{5}\b|[A-Z]{1,2}[0-9][0-9A-Z]?\s[0-9][A-Z]{2}$",
    re.ASCII,
).search


def _address(before: str, found: str) -> int:
    return len(found.rstrip(" ,\n")) if _address_name(before) or _has_tail(found) else 0


def _numbers(words: str, shapes: Mapping[str, str], regions: Sequence[str]) -> str:
    """A number of one of the regions, behind one of `words`."""
    shape = "|".join(shapes[region] for region in regions)
    return rf"(?i:\b(?:{words})[^\n;]{{0,40}}?[^A-Za-z0-9.;\n-])(?P<v>{shape})\b"


def _licence_or_uk(before: str, found: str) -> int:
    uk = len(found) == 16 and found[:5].isalpha() and found[5:11].isdigit()
    return len(found) if uk else _licence(before, found)


def _address_or_box(before: str, found: str) -> int:
    return len(found) if found[:1] in "pP" and "box" in found.lower() else _address(before, found)


_FIRST: Final = (
    Type(
        "email",
        (
            r"[\pL0-9](?:[\pL0-9._%+'-]{0,62}[\pL0-9_%+-])?@(?:[\pL0-9](?:[\pL0-9-]{0,61}[\pL0-9])?\.){1,6}\pL{2,24}\b",
            r"(?i)\b[a-z0-9][a-z0-9._+-]{0,62}\s?[\[({<]\s?at\s?[\])}>]\s?[a-z0-9-]{1,63}(?:(?:\s?[\[({<]\s?dot\s?[\])}>]\s?|\.)[a-z0-9-]{1,63}){1,4}",
        ),
        _email,
    ),
    Type("iban", (r"\b[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,4})?\b",), _iban),
    Type("card", (r"(?:^|[^0-9A-Za-z.+_-])(?P<v>[0-9](?:[ -]?[0-9]){11,18})(?:[^0-9A-Za-z_-]|[-.]\D|$)",), _card),
    Type(
        "us_ssn",
        (r"(?:^|[^0-9A-Za-z.-])(?P<v>[0-9]{3}([-. ]?)[0-9]{2}[-. ]?[0-9]{4})(?:[^0-9A-Za-z-]|-\D|$)",),
        _ssn,
    ),
)
_REST: Final = (
    Type(
        "national_id",
        (r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b",),
        _nino,
    ),
    Type(
        "national_id",
        (
            (
                r"\b(?P<v>[0-9]{3}[ -][0-9]{3}[ -][0-9]{3,4}|[0-9]{4}[ -][0-9]{4}[ -][0-9]{4}|[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}|[0-9]{6}[-+ ]?[0-9]{3,5}[A-Z0-9]?"
                r"|[0-9]{8,12}[A-Z]?|[A-Z]{1,6}[0-9]{2}[A-Z0-9]{5,13})\b"
            ),
        ),
        _national_id,
    ),
    Type(
        "ip",
        (
            r"(?:^|[^0-9A-Za-z.:-])(?P<v>(?:[0-9]{1,3}\.){3}[0-9]{1,3})(?:[^0-9A-Za-z._-]|\.\D|\.?$|[:/])",
            r"(?i)(?:^|[^0-9a-z:.])(?P<v>(?:[0-9a-f]{1,4}:|:){2,7}(?:[0-9a-f]{1,4}|:)(?:(?:\.[0-9]{1,3}){3})?)(?:[^0-9a-z:]|$)",
        ),
        _ip,
    ),
    Type("date_of_birth", (rf"(?i)\b{_birth}\b[^\n;0-9]{{0,40}}?(?P<v>{_DATE})\b",)),
    Type("bank_account", (r"(?:^|[^0-9A-Za-z.-])(?P<v>[0-9]{2}-[0-9]{2}-[0-9]{2}|[0-9]{6,17})\b",), _bank_account),
    Type(
        "phone",
        (
            r"(?:^|[^0-9A-Za-z.,_/=$€£%-])(?P<v>(?:\+|\(\+?[0-9]{1,5}\)[-. ]{0,2})?[0-9](?:[-. /()]{0,3}[0-9]){4,16}(?:\s?(?:x|ext\.?|extension)\s?[0-9]{1,6})?)(?:[^0-9A-Za-z_%-]|[-.]\D|[.-]?$)",
        ),
        _phone,
    ),
    Type(
        "address",
        (
            rf"\b[0-9]{{1,6}}[A-Za-z]?,?\s(?:[NSEW]\.?\s)?(?:[A-Z][A-Za-z.'-]{{1,24}}\s|[0-9]{{1,3}}(?:st|nd|rd|th)\s){{1,3}}(?i:{_SUFFIX})\b\.?(?i:{_UNIT}){_TOWN}",
            r"\b\p{Lu}\pL{2,24}(?:straße|strasse|str\.|straat|weg|gasse|platz|plein|laan|gracht|gatan|vägen|vej|gade|vei|katu|utca)\s[0-9]{1,4}[a-z]?\b(?:,?\s[0-9]{4,5}(?:\s[A-Z]{2})?\s\p{Lu}\pL{1,24})?",
            r"\b(?:[0-9]{1,4},?\s(?:bis\s)?)?(?i:rue|avenue|boulevard|place|chemin|via|piazza|corso|calle|avenida|plaza|rua|ulica|ul\.)\s(?:(?i:de|del|della|di|du|des|la|le|les|da|do|dos)\s){0,3}\p{Lu}[\pL'-]{1,24}(?:\s\p{Lu}[\pL'-]{1,24}){0,3},?\s?(?:[0-9]{1,4})?\b(?:,?\s[0-9]{4,5}\s\p{Lu}\pL{1,24})?",
            r"(?i)\bp\.?\s?o\.?\s?box\s[0-9]{1,6}\b",
        ),
        _address_or_box,
    ),
)


def types(regions: Sequence[str]) -> Sequence[Type]:
    """All types; an earlier one wins where two overlap."""
    return (
        *_FIRST,
        Type(
            "passport",
            (
                _numbers("passport|reisepass|passeport|pasaporte|passaporto", PASSPORTS, regions),
                r"\bP[A-Z<][A-Z]{3}[A-Z<]{39}\s[A-Z0-9<]{44}\b",
            ),
        ),
        Type(
            "licence",
            (
                _numbers("licen[cs]e|driving permit|dl|führerschein|permis", LICENCES, regions),
                r"\b[A-Z]{5}[0-9]{6}[A-Z9]{2}[0-9][A-Z]{2}\b",
            ),
            _licence_or_uk,
        ),
        *_REST,
    )


NAMES: Final = tuple(dict.fromkeys(one.name for one in types(tuple(PASSPORTS))))
