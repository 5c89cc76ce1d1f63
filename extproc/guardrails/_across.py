"""Findings that show only with percent-encoded characters decoded, or across neighbouring messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from extproc.guardrails._collect import Source
from extproc.guardrails._guard import Guard
from extproc.guardrails._source import Hit

_escapes = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_NEIGHBOURS, _SHORT = 4, 256
"""Most messages that are joined in every combination, and most characters of a message between the two ends. Longer
rows are joined only as a whole.
"""
_Piece = tuple[int, int, int]
"""A part of a text: the number of the text, start and end."""
_message = re.compile(r"\w+\[(\d+)\]\.(?:content|parts)(?:\[\d+\]\.text)?").fullmatch


def unquoted_hits(guard: Guard, source: Source, known: Sequence[Hit], deadline: float) -> Sequence[Hit]:
    """The findings in `source` with its percent-encoded characters decoded, without those in `known`. Raises
    Failure.
    """
    text = source.written.text
    if "%" not in text or _escapes.search(text) is None:
        return ()
    plain = _escapes.sub(_decoded, text)
    if plain == text or not (found := guard.all_hits(plain, source.role, source.where, deadline)):
        return ()
    places = _places(text)
    moved = (hit._replace(start=places[hit.start], end=places[hit.end]) for hit in found)
    return [hit for hit in moved if hit not in known]


def _decoded(escapes: re.Match[str]) -> str:
    data = bytes.fromhex(escapes[0].replace("%", ""))
    return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in _letters(data))


def _letters(data: bytes) -> str:
    """One letter for each UTF-8 character, and for each byte that belongs to no character."""
    return data.decode(errors="surrogateescape")


def _places(text: str) -> list[int]:
    """The place in `text` of each character of the decoded text, and the length of `text` as the last item."""
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
    guard: Guard, sources: Sequence[Source], hits: Mapping[int, Sequence[Hit]], deadline: float
) -> dict[int, list[Hit]]:
    """Findings that begin in one message and end in a later message of the same role, by the source of each part. A
    match does not count if one message alone gives a part of it as a finding: then its neighbours' words do not belong
    to it. Raises Failure.
    """
    found: dict[int, list[Hit]] = {}
    if guard.window or not guard.longest:  # the guardrail judges texts as a whole
        return found
    rows: dict[str, list[int]] = {}
    for index, source in _in_order(sources):
        if guard.reads_input(source.role):
            rows.setdefault(source.role, []).append(index)
    for row in rows.values():
        texts = [sources[index].written.text for index in row]
        for pieces in [*_rows(texts, guard.longest), *_neighbours(texts, guard.longest)]:
            joined = "".join(texts[number][start:end] for number, start, end in pieces)
            first = sources[row[pieces[0][0]]]
            for hit in guard.all_hits(joined, first.role, first.where, deadline):
                parts = [(row[number], part) for number, part in _parts(hit, pieces)]
                if len(parts) > 1 and not any(_overlaps(part, hits.get(index, ())) for index, part in parts):
                    for index, part in parts:
                        if part not in (known := found.setdefault(index, [])):
                            known.append(part)
    return found


def _neighbours(texts: Sequence[str], longest: int) -> Iterator[Sequence[_Piece]]:
    """Neighbouring texts: each pair, and up to `_NEIGHBOURS` texts with short ones between. Patterns that need a word
    boundary at their ends find it at the ends of texts.
    """
    short = min(longest, _SHORT)
    for first in range(len(texts) - 1):
        size, between = len(texts[first]), 0
        yield [(first, max(0, size - longest), size), (first + 1, 0, min(longest, len(texts[first + 1])))]
        pieces: list[_Piece] = [(first, max(0, size - short), size)]
        for number in range(first + 1, min(first + _NEIGHBOURS - 1, len(texts) - 1)):
            size = len(texts[number])
            between += size
            if between > short:
                break
            pieces.append((number, 0, size))
            yield [*pieces, (number + 1, 0, min(short, len(texts[number + 1])))]


def _rows(texts: Sequence[str], longest: int) -> Iterator[Sequence[_Piece]]:
    """Rows of three or more neighbours in one piece, without the middle of long texts. No character stands in two
    pieces.
    """
    pieces: list[_Piece] = []
    for number, text in enumerate(texts):
        cut = len(text) > 2 * longest
        pieces.append((number, 0, longest if cut else len(text)))
        if cut or number == len(texts) - 1:
            if len(pieces) > 2:
                yield pieces
            pieces = [(number, len(text) - longest, len(text))]


def _parts(hit: Hit, pieces: Sequence[_Piece]) -> Iterator[tuple[int, Hit]]:
    """The parts of a finding in joined pieces: the number of each text, and the span in it."""
    start, end = hit.start, hit.end
    at = 0
    for number, first, last in pieces:
        size = last - first
        if start < at + size and at < end:
            yield number, hit._replace(start=max(start - at, 0) + first, end=min(end - at, size) + first)
        at += size


def _in_order(sources: Sequence[Source]) -> Sequence[tuple[int, Source]]:
    """The texts of messages, each with the number of its source, in the order of the messages."""
    found = [
        (int(match[1]), index, source)
        for index, source in enumerate(sources)
        if source.texts and source.written.text and (match := _message(source.where))
    ]
    return [(index, source) for _, index, source in sorted(found, key=lambda one: one[:2])]


def _overlaps(hit: Hit, others: Sequence[Hit]) -> bool:
    return any(other.start < hit.end and hit.start < other.end for other in others)
