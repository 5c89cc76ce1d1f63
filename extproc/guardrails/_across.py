"""Findings that a text shows only in another form: percent-encoded characters decoded, or beside the next message."""

from __future__ import annotations

import re
from collections.abc import Sequence

from extproc.guardrails._collect import Source
from extproc.guardrails._guard import Guard
from extproc.guardrails._source import Hit

_escapes = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_message = re.compile(r"\w+\[(\d+)\]\.(?:content|parts)(?:\[\d+\]\.text)?").fullmatch


def unquoted_hits(guard: Guard, source: Source, known: Sequence[Hit], deadline: float) -> Sequence[Hit]:
    """The findings in `source` with its percent-encoded characters decoded, other than `known`. Raises Failure."""
    text = source.written.text
    if "%" not in text or _escapes.search(text) is None:
        return ()
    plain = _escapes.sub(_decoded, text)
    if plain == text or not (found := guard.all_hits(plain, source.role, source.where, deadline)):
        return ()
    places = _places(text)
    moved = ((places[start], places[end], kind) for start, end, kind in found)
    return [hit for hit in moved if hit not in known]


def _decoded(escapes: re.Match[str]) -> str:
    data = bytes.fromhex(escapes[0].replace("%", ""))
    return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in _letters(data))


def _letters(data: bytes) -> str:
    """One letter for each character of UTF-8, and for each byte that belongs to none."""
    return data.decode(errors="surrogateescape")


def _places(text: str) -> list[int]:
    """For each character of the decoded text its place in `text`, and the length of `text` at the end."""
    found: list[int] = []
    last = 0
    for escapes in _escapes.finditer(text):
        found.extend(range(last, escapes.start()))
        last = escapes.start()
        for letter in _letters(bytes.fromhex(escapes[0].replace("%", ""))):
            found.append(last)
            last += 3 * len(letter.encode(errors="surrogateescape"))
    found.extend(range(last, len(text) + 1))
    return found


def split_hits(
    guard: Guard, sources: Sequence[Source], hits: Sequence[Sequence[Hit]], deadline: float
) -> dict[int, list[Hit]]:
    """Findings that begin in a message and end in the next one of the same role, by the source of either half. A
    finding that one of the two shows by itself is none: its neighbour's words do not belong to it. Raises Failure.
    """
    found: dict[int, list[Hit]] = {}
    if guard.window or not guard.longest:  # texts that are judged as a whole
        return found
    latest: dict[str, int] = {}
    for index, source in _in_order(sources):
        before, latest[source.role] = latest.get(source.role), index
        if before is None or not guard.reads_input(source.role):
            continue
        first, second = sources[before].written.text, source.written.text
        at = max(0, len(first) - guard.longest)
        joined = first[at:] + second[: guard.longest]
        border = len(first) - at
        for start, end, kind in guard.all_hits(joined, source.role, source.where, deadline):
            left, right = (start + at, len(first), kind), (0, end - border, kind)
            if start < border < end and not _overlaps(left, hits[before]) and not _overlaps(right, hits[index]):
                found.setdefault(before, []).append(left)
                found.setdefault(index, []).append(right)
    return found


def _in_order(sources: Sequence[Source]) -> Sequence[tuple[int, Source]]:
    """The texts of messages, each with the number of its source, in the order of the messages."""
    found = [
        (int(match[1]), index, source)
        for index, source in enumerate(sources)
        if source.texts and source.written.text and (match := _message(source.where))
    ]
    return [(index, source) for _, index, source in sorted(found, key=lambda one: one[:2])]


def _overlaps(hit: Hit, others: Sequence[Hit]) -> bool:
    return any(start < hit[1] and hit[0] < end for start, end, _ in others)
