"""Personal data of every type, made at random; numbers that are none; disguises; streams."""

# ruff: noqa: E501  a row is one line
import base64
import random
import re

import pytest
from pydantic import ValidationError

from extproc.guardrails import kinds
from extproc.guardrails._checks import luhn
from extproc.guardrails._normal import normalised
from extproc.guardrails._personal import _TABLE, NAMES
from extproc.guardrails.pii import Pii

PII = Pii()


def digits(template, rng):
    """`#` becomes a digit, `%` a digit other than 0."""
    return re.sub("[#%]", lambda match: str(rng.randrange(match[0] == "%", 10)), template)


def card(rng):
    template = rng.choice(
        (
            "4###############",
            "51##############",
            "55##############",
            "34#############",
            "37#############",
            "6011############",
            "300###########",
            "35##############",
            "65##############",
            "2221############",
        )
    )
    number = digits(template[:-1], rng)
    number += next(last for last in "0123456789" if luhn(number + last))
    separator = rng.choice(("", "", " ", "-"))
    return separator.join(re.findall(".{1,4}", number))


def iban(rng):
    country = rng.choice(("DE", "AT", "BE", "CH", "ES", "FR", "IT", "NL", "PL", "PT", "SE", "NO", "GB"))
    inner = digits("#" * (_TABLE.iban[country] - 4), rng)
    if country in ("GB", "NL"):
        inner = "WEST" + inner[4:]
    value = int("".join(str(int(letter, 36)) for letter in inner + country + "00"))
    found = f"{country}{98 - value % 97:02}{inner}"
    return " ".join(re.findall(".{1,4}", found)) if rng.random() < 0.5 else found


PHONES = [
    "(%##) %##-####", "%##-%##-####", "%##.%##.####", "+1 %## %## ####", "+1-%##-%##-####", "001-%##-%##-####x#####", "+44 20 7### ####",
    "+44 7### ######", "020 7### ####", "07### ######", "+49 30 ########", "030 %#######", "+33 1 ## ## ## ##", "0# ## ## ## ##",
    "+39 06 #### ####", "+34 6## ### ###", "+31 6 ########", "0%# ### ## ##", "+61 4## ### ###", "(0#) #### ####", "+91 9#### #####",
    "+81 3-####-####", "+55 11 9####-####", "+86 138 #### ####", "(%##)%##-####x###", "+%##########", "1-800-%##-####",
]  # fmt: skip

MADE = {
    "email": lambda rng: rng.choice(("ana.silva{}@example.org", "j{}@mail.example.co.uk", "o'neil+{}@sub.example.travel", "zoë{}@münchen.example")).format(rng.randrange(999)),
    "card": card,
    "iban": iban,
    "us_ssn": lambda rng: f"{rng.randrange(1, 665):03}-{rng.randrange(1, 99):02}-{rng.randrange(1, 9999):04}",
    "phone": lambda rng: digits(rng.choice(PHONES), rng),
    "ip": lambda rng: rng.choice((".".join(str(rng.randrange(1, 223)) for _ in range(4)), ":".join(f"{rng.randrange(1, 65536):x}" for _ in range(8)), f"2001:db8::{rng.randrange(1, 65536):x}")),
}  # fmt: skip
PLACES = [
    "{}",
    "Please reach me: {}.",
    "My data ({}), as asked",
    "a line\n{}\nanother line",
    "write {} on it, thanks",
    "customer said: '{}'",
]


@pytest.mark.parametrize(
    ("kind", "bar"), [("email", 1), ("card", 0.99), ("iban", 1), ("us_ssn", 0.99), ("phone", 0.95), ("ip", 0.98)]
)
def test_structured_types_are_found_with_exact_spans(kind, bar):
    rng = random.Random(kind)
    tries = [(place, MADE[kind](rng)) for place in PLACES for _ in range(100)]
    hits = 0
    for place, value in tries:
        text = place.format(value)
        hits += any(found.kind == kind and text[slice(*found.span)] == value for found in PII.find(text, "user", "x"))
    assert hits >= bar * len(tries)


IN_CONTEXT = [
    ("us_ssn", "my SSN is 531217351", "531217351"),
    ("passport", "Passport number: C01X0006H", "C01X0006H"),
    ("passport", "her passport no. is 512345678", "512345678"),
    ("licence", "driver's license number is 481195160", "481195160"),
    ("licence", "My driving licence: MORGA657054SM9IJ", "MORGA657054SM9IJ"),
    ("national_id", "National Insurance number QQ 12 34 56 C".replace("QQ", "AB"), "AB 12 34 56 C"),
    ("national_id", "Aadhaar 2345 6789 0123", "2345 6789 0123"),
    ("date_of_birth", "Jane, born on 12/27/1986, called", "12/27/1986"),
    ("date_of_birth", "DOB: 1986-12-27", "1986-12-27"),
    ("date_of_birth", "date of birth is March 3rd, 1971", "March 3rd, 1971"),
    ("bank_account", "account number 12345678", "12345678"),
    ("phone", "call 4203357509 please", "4203357509"),
    ("address", "I live at 12 Long Meadow Street, Apt 4, Springfield, IL 62704", "12 Long Meadow Street, Apt 4, Springfield, IL 62704"),
    ("address", "Ship it to 1600 Oak Avenue", "1600 Oak Avenue"),
    ("address", "Sie wohnt in der Lindenstraße 12", "Lindenstraße 12"),
    ("address", "P.O. Box 1234", "P.O. Box 1234"),
    ("email", "write to ana [at] example [dot] org", "ana [at] example [dot] org"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "value"), IN_CONTEXT)
def test_what_needs_a_context_is_found_in_it(kind, text, value):
    assert [(found.kind, text[slice(*found.span)]) for found in PII.find(text, "user", "x")] == [(kind, value)]


NONE = [
    "Python 3.11.7 and Envoy 1.40.0 since version 10.2.3.4",
    "from 2019-2023, on 2024-05-06 and 06/05/2024 10:11:12",
    "1 000 000 000 people, 12,345,678.90 USD, $4,532,276,644",
    "order 4532276644577021 shipped",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "pi is 3.14159265358979323846",
    "time 1700000000 and 1700000000000 and 1700000000000000",
    "icon@2x.png and git@github.com:example/repo.git",
    "@app.route('/users') def f(): pass",
    "std::vector<int>::iterator a::b::c and 12:30:45",
    "127.0.0.1:8080, 0.0.0.0/0 and 255.255.255.0",
    "ISBN 978-3-16-148410-0",
    "10 Downing Street is in London",
    "Who was born in 1986?",
    "section 1.2.3.4 of RFC 9110",
    "1 2 3 4 5 6 7 8 9 10",
    "[0.123, 0.456, 0.789, 1.234]",
    "uuid 123e4567-e89b-12d3-a456-426614174000",
    "DE89 3704 0044 0532 0130 01 has a wrong checksum",
    "000-12-3456 was never given out",
    "between 1914-1918 and 1939-1945",
    "width: 1920 1080 60",
    "My passport expired, how long does a licence take?",
]


@pytest.mark.parametrize("text", NONE)
def test_other_numbers_are_no_personal_data(text):
    assert PII.find(text, "user", "x") == []


DISGUISES = {
    "zero width": "\u200b".join,
    "full width": lambda text: "".join(chr(ord(letter) + 0xFEE0) for letter in text),
    "tags": lambda text: "".join(chr(0xE0000 + ord(letter)) for letter in text),
    "combining": lambda text: "".join(letter + "\u0336" for letter in text),
    "base64": lambda text: base64.b64encode(f"mail: {text}".encode()).decode(),
    "JSON": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "HTML": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_disguised_data_is_found(disguise):
    text = normalised(f"Take {DISGUISES[disguise]('ana@example.org')} now")
    [found] = PII.find(text, "user", "x")
    assert found.kind == "email"
    assert text[: found.span[0]] == "Take "


def test_what_is_held_of_a_stream_is_never_too_little():
    """A match that begins in front of the held characters is found already, with the same span."""
    rng = random.Random(3)
    values = [make(rng) for make in MADE.values() for _ in range(12)]
    texts = [f"well then: {value} and more words" for value in values] + [
        text + " and more words" for _, text, _ in IN_CONTEXT
    ]
    for text in texts:
        whole = [(found.kind, found.span) for found in PII.find(text, "assistant", "x")]
        for end in range(len(text)):
            begun = end - PII.hold(text[:end])
            early = [(found.kind, found.span) for found in PII.find(text[:end], "assistant", "x")]
            assert [one for one in whole if one[1][0] < begun] == [one for one in early if one[1][0] < begun], text[
                :end
            ]


def test_plain_prose_waits_for_its_last_words_only():
    assert PII.hold("A sentence without any numbers in it, and then some more of these words.") < 40


def test_types_and_regions_can_be_chosen():
    text = "ana@example.org, passport C01X0006H"
    only = kinds()["pii"](name="p", kind="pii", types=["passport"], regions=["eu"]).build()
    assert [found.kind for found in only.find(text, "user", "x")] == ["passport"]
    assert (
        kinds()["pii"](name="p", kind="pii", types=["passport"], regions=["uk"]).build().find(text, "user", "x") == []
    )
    with pytest.raises(ValidationError):
        kinds()["pii"](name="p", kind="pii", types=["shoe size"])


def test_every_type_is_a_choice_of_the_settings():
    field = kinds()["pii"].model_fields["types"].annotation
    assert set(field.__args__[0].__args__) == set(NAMES)


def test_long_hostile_text_takes_time_in_proportion():
    for text in ("1-" * 100_000, "a@" * 100_000, "1 Ab " * 40_000, "born " * 40_000, "::" * 100_000, "(1" * 100_000):
        PII.find(text, "user", "x")


def test_the_end_of_a_text_that_may_grow_is_the_longest_that_fits():
    """`hold` reads the text backwards, which is quicker; the same patterns, forwards."""
    search = re.compile(
        r"(?:[^\W\d_][\w'.-]*\s){0,4}[^\s]*\d[^\n!?;]*\Z|(?:[^\W\d_][\w'.-]*,?\s){0,5}[^\s]*\Z"
        r"|\S+\s?[\[({<]\s?(?:a(?:t.*)?)?\Z"
    ).search
    rand, detector = random.Random(1), Pii()
    for _ in range(2000):
        text = "".join(rand.choice("ab Z  12,.'-_!?;\n\t@([<é9 ") for _ in range(rand.randrange(60)))
        assert detector.hold(text) == len(search(text)[0]), text


@pytest.mark.parametrize(
    "text",
    [
        "social security office, ZIP 90210-1234",
        "ssn: 90210-1234",
        "2026-11-24T07:22:12.123456Z phone service started",
        "[1732432532.123] phone worker up",
        "2026-11-24 07:15:33,123 INFO call done in 1732432532123 ns",
    ],
)
def test_postal_codes_and_times_of_logs_are_no_findings(text):
    assert not [finding for finding in PII.find(text, "user", "x") if finding.kind in ("us_ssn", "phone")]
