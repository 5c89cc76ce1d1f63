"""Search over tools by words: BM25F over their names, descriptions and arguments.

Source: S. Robertson, H. Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), section 3.6. Words
lose their endings. Words of one meaning in APIs of tools (`_ALIKE`) find each other, with less weight.
"""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from math import log
from typing import Any

import msgspec

FIELDS: Mapping[str, float] = {"name": 3.0, "title": 2.0, "description": 1.0, "arguments": 0.7}
"""Fields of a document, with the weights of their words."""
MOST_TEXT = 2000
"""Most characters of a field that are searched: the beginning of a description says what a tool is for."""
MOST_WORDS = 32
"""Most words of a query."""
_K1, _B = 1.2, 0.7
_ALIKE_WEIGHT = 0.4
_ALIKE = """
create make new add insert start write open
delete remove drop erase forget clear
update edit change modify set replace
get read show retrieve view load fetch display print open download
list all every everybody which enumerate
search find query look lookup locate where filter
send post publish write
reply answer respond comment
ask request elicit prompt question
move rename
compare diff difference change
link relation connection reference
several multiple many batch
convert translate transform
history log recent
directory folder
image picture photo screenshot
file document
repository repo project
size big large space
user person people member who account
website web site page url browser
close end stop quit
run execute evaluate
error failure exception problem bug issue
merge request pull pr mr
statistics stats metrics
schema structure field
environment env
approve review
route directions way path
ci check status build changed
place location address near
info information detail metadata
record note observation
time date clock
""".strip()
_word = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W_぀-ヿ㐀-鿿가-힯]+").findall
_STOP = frozenset(
    _word(
        "a an and any are as at be been by can did do does for from has have how i if in into is it its me my of on or "
        "our so some that the their them then there these this those to up was we were what when will with you your "
        "please want need use used using once already next"
    )
)
_hump = re.compile(r"(?<=[a-z0-9])(?=[A-Z])").sub
_ending = re.compile(r"(?:ations?|ions?|ings?|ers?|ments?|ies|ed|es|s|e|y)$").sub
_SHORTEST = 3  # fewest letters of a word that are kept without its ending


def words(text: str) -> list[str]:
    """The words of a text, without endings and without words that say nothing."""
    found = (word.lower() for word in _word(_hump(" ", text)))
    return [_stem(word) for word in found if word not in _STOP]


def _stem(word: str) -> str:
    short = _ending("", word)
    if len(short) < _SHORTEST or short == word:
        return word
    return short[:-1] if short[-1] == short[-2] and short[-1] not in "ls" else short


def _neighbours() -> Mapping[str, set[str]]:
    """The words of like meaning of each word, all without endings."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in _ALIKE.splitlines():
        group = {_stem(word) for word in line.split()}
        for word in group:
            found[word] |= group - {word}
    return found


_alike = _neighbours()
_NOWHERE: tuple[Sequence[int], Sequence[float]] = ((), ())


class ToolSearch:
    """An index of documents, each a mapping of `FIELDS` to texts. It can be made on any thread."""

    def __init__(self, documents: Sequence[Mapping[str, str]]) -> None:
        counted = [
            {field: words(document.get(field, "")[:MOST_TEXT]) for field in FIELDS if document.get(field)}
            for document in documents
        ]
        usual = {
            field: max(1.0, sum(len(each.get(field, ())) for each in counted) / max(1, len(counted)))
            for field in FIELDS
        }
        # Word -> the documents that have it, and its weight in each. Arrays take a tenth of the memory of tuples.
        self._found: dict[str, tuple[array[int], array[float]]] = defaultdict(lambda: (array("L"), array("f")))
        for at, fields in enumerate(counted):
            weights: dict[str, float] = defaultdict(float)
            for field, said in fields.items():
                share = FIELDS[field] / (1 - _B + _B * len(said) / usual[field])
                for word in said:
                    weights[word] += share
            for word, weight in weights.items():
                places, values = self._found[word]
                places.append(at)
                values.append(weight)
        self.size = len(documents)

    def find(self, query: str, most: int, wanted: Callable[[int], bool]) -> Sequence[int]:
        """The best documents for a query that `wanted` lets through, the best first."""
        scores: dict[int, float] = defaultdict(float)
        for word in dict.fromkeys(words(query)[:MOST_WORDS]):
            best: dict[int, float] = {}
            for each, share in ((word, 1.0), *((other, _ALIKE_WEIGHT) for other in _alike.get(word, ()))):
                rare = self._rarity(each)
                for at, weight in zip(*self._found.get(each, _NOWHERE), strict=True):
                    score = share * rare * weight / (weight + _K1)
                    if score > best.get(at, 0.0):
                        best[at] = score
            for at, score in best.items():
                scores[at] += score
        ordered = sorted(scores, key=lambda at: (-scores[at], at))
        return list(islice(filter(wanted, ordered), most))

    def _rarity(self, word: str) -> float:
        having = len(self._found.get(word, _NOWHERE)[0])
        return log(1 + (self.size - having + 0.5) / (having + 0.5))


def document(fields: Mapping[str, Any]) -> dict[str, str]:
    """A definition of a tool, in the form that is searched."""
    known = {name: decoded(fields.get(name)) for name in ("name", "title", "description", "inputSchema")}
    schema = known.pop("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    arguments = [
        f"{each} {value.get('description', '') if isinstance(value, dict) else ''}"
        for each, value in (properties.items() if isinstance(properties, dict) else ())
    ]
    return {name: value for name, value in known.items() if isinstance(value, str)} | {"arguments": " ".join(arguments)}


def decoded(value: Any) -> Any:
    """The value of a field, which may still be its JSON."""
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
