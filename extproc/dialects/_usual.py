"""Default readers, for APIs without special cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from extproc.words.dialect import QUIET, Conversation, Fields, Report, Text, strings
from extproc.words.said import Piece, loose

_MOST_PIECES = 64


def texts(body: Mapping[str, Any], fields: Fields) -> Iterator[Text]:
    """Texts in a body, except the model's name, all with the user's role."""
    for key, value in body.items():
        if isinstance(value, str):
            if key != fields.model:
                yield Text("user", key, body, key)
        else:
            yield from strings(value, "user", key)


def conversation(texts: Iterator[Text]) -> Conversation:
    """A dialogue of one message with all `texts`."""
    return Conversation(asked=[text.value for text in islice(texts, _MOST_PIECES)])


def observe_nothing(data: bytes, report: Report, tree: Any = None) -> bool:  # noqa: ARG001
    """`ClientAPI.observe` of an API without usage."""
    return False


def observe_edges(head: bytes, tail: bytes, report: Report, inside: Mapping[int, bytes]) -> None:
    """`ClientAPI.observe_edges` of an API without usage in long events."""


def said(event: Any) -> Iterator[Piece]:
    """`ClientAPI.said`: each string is a separate text."""
    yield from loose(event, "answer", QUIET)


def nothing_said(event: Any) -> Iterator[Piece]:  # noqa: ARG001
    """`ClientAPI.said` of an API whose answers are vectors."""
    return iter(())
