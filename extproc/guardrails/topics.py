"""Banned and allowed topics, each given by a few example sentences.

A topic is the sum of its examples as vectors of words and of pieces of words. A text is near a topic when the cosine of
their vectors exceeds the topic's own limit: a share of the value that its examples have among each other.

Controls: FINOS AIGF mi-3 (filtering of what goes into and out of a model).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from extproc.guardrails import Detector, Finding, GuardrailSettings
from extproc.guardrails._model import places, tokens
from extproc.guardrails._shapes import Shapes, read

_WINDOW = 2048  # characters
_WORDS, _STEP = 40, 20  # tokens of a passage, and tokens between the beginnings of two passages
_PIECE, _COMMON = 0.175, 0.08  # weights of a piece of a word and of a common word; other words have 1
_LOWEST = 0.3  # limit of a topic whose examples have little in common
_FEWEST = 3  # fewest meaningful words in a text that can be off topic


class _Words(Shapes):
    common: str


_COMMON_WORDS = frozenset(read("topics", _Words).common.split())

_Examples = Annotated[
    Sequence[Annotated[str, Field(min_length=1, max_length=2000)]], Field(min_length=3, max_length=1000)
]
_Topics = Annotated[Mapping[str, _Examples], Field(max_length=100)]


class TopicsSettings(GuardrailSettings):
    """A guardrail that finds texts on banned topics, or on none of the allowed ones."""

    kind: Literal["topics"] = Field(description="Kind of the guardrail. `topics`: banned and allowed topics.")
    banned: _Topics = Field(
        default_factory=dict,
        description="Topics to find: 3 to 1000 example sentences by the name of the topic. Thirty are a good number.",
    )
    allowed: _Topics = Field(
        default_factory=dict,
        description="Topics that users may talk about, given like `banned`. A user's text that is near none of them is "
        "found as `off_topic`; a text of fewer than three telling words is not.",
    )
    strictness: float = Field(
        0.45,
        ge=0,
        le=1,
        description="Nearness that counts, as a share of the nearness of a topic's examples among each other, 0 to 1. "
        "Raise it when other topics are found; lower it when sentences on the topic are missed.",
    )

    @model_validator(mode="after")
    def _has_topics(self) -> TopicsSettings:
        if not self.banned and not self.allowed:
            raise ValueError("give topics that are `banned`, or those that are `allowed`")
        return self

    def build(self) -> Topics:
        return Topics(self.banned, self.allowed, self.strictness)


Vector = Mapping[str, float]


def _vector(words: Sequence[str]) -> Vector:
    """The vector of a text's words and their pieces of four letters; its length is 1, or less if all words are
    common.
    """
    found: dict[str, float] = {}
    for word in set(words):
        found[word] = _COMMON if word in _COMMON_WORDS else 1.0
        if len(word) > 3 and word not in _COMMON_WORDS:
            whole = f"^{word}$"
            for at in range(len(whole) - 3):
                found[whole[at : at + 4]] = _PIECE
    root = max(1.0, math.sqrt(sum(value * value for value in found.values())))  # a vector of common words stays short
    return {name: value / root for name, value in found.items()}


def _words(text: str) -> list[str]:
    return [word.lower()[:24] for word in tokens(text)]


def _telling(words: Sequence[str]) -> list[str]:
    return [word for word in words if word[0].isalnum()]


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[~middle]) / 2


class Topic:
    """A topic; `limit` is the nearness of its examples among each other."""

    def __init__(self, name: str, examples: Sequence[str]) -> None:
        self.name = name
        vectors = [_vector(_telling(_words(example))) for example in examples]
        total: Counter[str] = Counter()
        for vector in vectors:
            total.update(vector)
        root = math.sqrt(sum(value * value for value in total.values())) or 1.0
        self._centre = {key: value / root for key, value in total.items()}
        self.limit = max(_LOWEST, _median(self._apart(vector, total) for vector in vectors))

    @staticmethod
    def _apart(vector: Vector, total: Mapping[str, float]) -> float:
        """The nearness of an example to the topic's other examples."""
        rest = {key: value - vector.get(key, 0.0) for key, value in total.items()}
        root = math.sqrt(sum(value * value for value in rest.values())) or 1.0
        return sum(value * rest.get(key, 0.0) for key, value in vector.items()) / root

    def near(self, vector: Vector) -> float:
        get = self._centre.get
        return sum([value * get(key, 0.0) for key, value in vector.items()])

    def score(self, text: str) -> float:
        """The cosine of a text and the topic, 0 to 1."""
        return self.near(_vector(_telling(_words(text))))


class Topics(Detector):
    """Finds at most one passage on each banned topic, and text on none of the allowed topics."""

    window = _WINDOW

    def __init__(self, banned: Mapping[str, Sequence[str]], allowed: Mapping[str, Sequence[str]], share: float) -> None:
        self._banned = [Topic(name, examples) for name, examples in banned.items()]
        self._allowed = [Topic(name, examples) for name, examples in allowed.items()]
        self._share = share

    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:  # noqa: ARG002
        best: dict[str, Finding] = {}
        words = _words(text)
        for first, last in _passages(len(words)):
            telling = _telling(words[first:last])
            if not telling:
                continue
            vector = _vector(telling)
            for topic in self._banned:
                score = topic.near(vector)
                if score >= self._share * topic.limit and (topic.name not in best or best[topic.name].score < score):
                    best[topic.name] = Finding(topic.name, (first, last), min(1.0, max(score, 0.001)))
        found = list(best.values())
        if found:
            begins = places(text)
            found = [Finding(one.kind, (begins[one.span[0]], begins[one.span[1]]), one.score) for one in found]
        if self._allowed and role == "user" and self._off_topic(_telling(words)):
            found.append(Finding("off_topic", (0, len(text))))
        return found

    def _off_topic(self, words: Sequence[str]) -> bool:
        if sum(word not in _COMMON_WORDS for word in words) < _FEWEST:
            return False
        vectors = [_vector(words[first:last]) for first, last in _passages(len(words))]
        return not any(topic.near(one) >= self._share * topic.limit for topic in self._allowed for one in vectors)


def _passages(count: int) -> Iterator[tuple[int, int]]:
    if count <= _WORDS:
        yield 0, count
        return
    for first in range(0, count - _STEP, _STEP):
        yield first, min(first + _WORDS, count)


SETTINGS = TopicsSettings
