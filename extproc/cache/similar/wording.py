"""Words of a text: facts in which two questions must agree, and vectors of words for a comparison without a model.

`facts` are compared for equality before anything else: numbers with their units, operators, negations, words that come
in pairs of opposites, and the words that ask for a person, a time, a place, a reason or an amount. `names` are compared
in pairs of texts, because clients write them in capitals or not: every name and every fact in one text must stand in
the other, in the same order.

`features` are for texts that differ in form alone: capitals, punctuation, politeness, articles, endings of words, a
typing error. Two texts with another word of content are far from each other.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_token = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|[+#<>=*/%&|@$€£¥~^\\{}\[\]_-]+|[.!?\n]")
_QUOTED = re.compile(r"[\"“”„«»`]([^\"“”„«»`\n]{1,200})[\"“”„«»`]")
_NO_SPACES = re.compile(
    r"[\u0400-\u04ff\u0590-\u06ff\u0900-\u0dff\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)
_LONGEST = 24  # characters of a word that count


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EMPTY = _words("""
    a an the please kindly just really actually basically so well now then oh ok okay um hi hello hey thanks thank
    of to for in at by with about on and that this these those it its there here some also
""")
"""Words that rarely change a question."""
_LIGHT = _words("""
    i i'm i'd i've i'll im me my mine you your yours we our us he him his her they them their
    is are was were am be been being do does did doing has have had having will shall should may might must would could
    can what which want need like know let see get or any as if from
""")
"""Words that give a question its direction, and are a smaller part of it."""
_STARTS = (
    _EMPTY
    | _LIGHT
    | _words("""
    tell give show explain describe say help what's how how's who who's whom whose when where why write list find make
    create compare define name calculate compute translate summarize summarise convert generate provide suggest
    recommend discuss use using after before while during it's that's there's let's
""")
)
"""Words that are no names where they begin a sentence."""
_POLITE = re.compile(
    r"\A(?:\W|(?:hi|hello|hey|please|kindly|so|ok|okay|well|now|thanks|thank you"
    r"|(?:can|could|would|will) you(?: please)?(?= \w)|(?:tell|show) me|let me know|help me(?: to)?"
    r"|(?:i(?: would|['\u2019]d) (?:like|love)|i want|i need) (?:you )?to"
    r"|know(?= (?:what|which|how|who|whom|whose|when|where|why|if)\b))\b(?=\W+\w))+",
    re.IGNORECASE,
)
_THANKS = re.compile(r"(?<=\w)\W+(?:please|thanks|thank you|many thanks|thx)\W*\Z", re.IGNORECASE)
_KEYS = _words("who whom whose when where why")
_AMOUNTS = _words("many much long old far often big fast tall high deep heavy soon late")
_NEGATIONS = _words("""
    not no never none nobody nothing nowhere without neither nor cannot except unless only hardly barely
    nicht kein keine keinen keiner nie ohne pas jamais sans aucun aucune nunca sin ningún ninguna non mai senza não sem
""")
_OPPOSITES = _words("""
    before after more less fewer most least minimum maximum min max high low higher lower highest lowest first last
    best worst better worse big small bigger smaller large long short longer shorter tall fast slow faster slower
    increase decrease raise reduce grow shrink up down left right out off enable disable allow deny permit forbid open
    close start stop begin end add remove delete create insert drop buy sell import export encrypt decrypt encode decode
    upload download login logout lock unlock install uninstall connect disconnect above below over under inside outside
    pro con advantage disadvantage cause effect ascending descending asc desc public private true false male female he
    she him her his man woman men women boy girl mother father son daughter husband wife brother sister north south east
    west northern southern eastern western hot cold warm cool win lose accept reject approve refuse borrow lend deposit
    withdraw credit debit send receive arrive depart arrival departure today tomorrow yesterday tonight morning noon
    afternoon evening night daily weekly monthly yearly annual hourly second minute hour day week month year decade
    century new old next previous past future legal illegal safe dangerous unsafe easy hard difficult possible
    impossible cheap cheaper cheapest expensive good bad positive negative horizontal vertical client server read write
    push pull mean median average sum input output parent child even odd encrypt plus minus multiply divide debit merge
    split expand collapse show hide full empty light dark dry wet rich poor young alive dead single married
    january february march april june july august september october november december monday tuesday wednesday thursday
    friday saturday sunday spring summer autumn fall winter
    kg g mg lb lbs oz km m cm mm mile miles ft feet foot inch inches yard liter litre gallon ml celsius fahrenheit
    kelvin am pm pounds usd eur gbp dollar euro pound yen kb mb gb tb bit byte percent
""")
_TO_TWENTY = ["zero", "-", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_TO_TWENTY += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]
_NUMBERS = {word: str(value) for value, word in enumerate(_TO_TWENTY)} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
}
_NUMBERS |= {"hundred": "100", "thousand": "1000", "million": "1e6", "billion": "1e9", "dozen": "12", "half": "0.5"}
_NUMBERS |= {"twice": "x2", "double": "x2", "triple": "x3", "third": "3rd", "both": "2"}
_ENDS, _I = frozenset(".!?\n"), ("I",)
_PART_NEGATIONS = "不没沒無无未非否勿別别"


class Said(NamedTuple):
    """A text as it is compared. `words` are hashes of all its words in order; `names` are those of facts and names."""

    facts: Sequence[str]
    words: array[int]
    names: frozenset[int]


def said(text: str) -> Said:
    facts: list[str] = []
    words = array("I")
    names: set[int] = set()
    starts = True  # a sentence begins
    before = ""
    tokens = _token.findall(text)
    for token, after in zip(tokens, [*tokens[1:], ""], strict=False):
        if token in _ENDS:
            starts = True
            continue
        here: Sequence[str]
        if token[0].isdigit():
            here = [_number(token)]
        elif not token[0].isalpha():
            if token not in ("-", "_", "/"):
                facts.append(token)
            continue
        else:
            here = [*_facts(token.lower().replace("\u2019", "'"), before)]
        facts += here
        before = token.lower()
        code = _hash(here[0] if here else _stem(before))
        words.append(code)
        if here or _is_name(token, starts, after):
            names.add(code)
        starts = False
    for quoted in _QUOTED.findall(text):
        names.update([_hash(_stem(word.lower())) for word in _token.findall(quoted) if word[0].isalnum()])
    facts += [char for char in text if char in _PART_NEGATIONS]
    return Said(sorted(facts), words, frozenset(names))


def _number(token: str) -> str:
    """A number without marks between its thousands."""
    return re.sub(r"[,.](?=\d{3}(?:\D|$))", "", token).rstrip(".,:")


def _facts(word: str, before: str) -> Iterator[str]:
    if word.endswith("n't") or word in _NEGATIONS or word in ("cant", "dont", "wont", "isnt", "doesnt", "didnt"):
        yield "not" if word not in ("only", "except", "unless") else word
        return
    word = word.partition("'")[0]
    if word in _NUMBERS:
        yield _NUMBERS[word]
    elif word in _KEYS or (before == "how" and word in _AMOUNTS):
        yield word
    else:
        for form in (word, _stem(word)):
            if form in _OPPOSITES:
                yield form
                return


def _is_name(token: str, starts: bool, after: str) -> bool:
    """Whether a word looks like a name. At the beginning of a sentence only before another one."""
    if token[0].isdigit() or token in _I or token.lower().replace("\u2019", "'") in _STARTS:
        return False
    if any(char.isupper() for char in token[1:]):
        return True
    return token[0].isupper() and (not starts or (after[:1].isupper() and after not in _I))


def agree(one: Said, other: Said) -> bool:
    """True where the names of either text stand in both, in the same order."""
    names = one.names | other.names
    return not names or [w for w in one.words if w in names] == [w for w in other.words if w in names]


def _stem(word: str) -> str:
    """A word without the commonest endings of English."""
    word = word.partition("'")[0]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 5 and word.endswith("ing"):
        word = word[:-3]
    elif len(word) > 4 and word.endswith(("ed", "es")) and not word.endswith(("ses", "eed")):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    else:
        return word[:-1] if len(word) > 4 and word.endswith("e") else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls" else word


def _hash(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def features(text: str) -> dict[int, float]:
    """Weights of hashed features: words of content, pairs of neighbours, and pieces of words. Their length is that of
    the text: no number of equal words makes up for a different one, see `index.Index`.
    """
    found: dict[int, float] = {}
    before = "^"
    for token in _token.findall(_THANKS.sub("", _POLITE.sub("", text))):
        word = token.lower().replace("\u2019", "'")
        if not word[0].isalnum() or len(word) > 200:
            continue
        if word in _EMPTY:
            _add(found, "e" + word, 0.1)
            continue
        short = word.partition("'")[0]
        stem = _number(word) if word[0].isdigit() else _stem(word)[:_LONGEST]
        if word in _LIGHT or short in _LIGHT:
            stem = short
            _add(found, "l" + stem, 0.7)
        elif _NO_SPACES.search(stem):  # without spaces between words: pairs of letters stand for words
            for at in range(len(stem)):
                _add(found, "w" + stem[at : at + 2], 1.0)
        else:
            _add(found, "w" + stem, 1.0)
            whole = f"^{stem}$"
            for at in range(len(whole) - 2):
                _add(found, "p" + whole[at : at + 3], 0.25)
        _add(found, f"b{before} {stem}", 0.4)
        before = stem
    return found


def _add(found: dict[int, float], feature: str, weight: float) -> None:
    code = _hash(feature)
    found[code] = found.get(code, 0.0) + weight
