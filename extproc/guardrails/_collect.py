"""The text of a request, in the pieces in which guardrails search it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from extproc.guardrails._files import text_of
from extproc.guardrails._guarding import signed
from extproc.guardrails._source import Written
from extproc.wire.framing.multipart import is_form
from extproc.words.dialect import Text
from extproc.words.exchange import Exchange

_LEAST_JUDGED, _MOST_JUDGED = 40, 64  # fewest characters of a text to check its language; most texts to check
_LONG = 1_000_000  # smaller numbers are not searched
is_word = re.compile(r"[a-z_]{1,40}").fullmatch
_begins_json = re.compile(r"\s*[\[{]").match
_part = re.compile(r"(.*)\[(\d+)\]\.text").fullmatch
_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Source:
    """Text of a request that is searched in one piece: one string, or strings that a model reads one after the other. A
    source without `texts` stands in no string of the body and cannot be edited.
    """

    role: str
    where: str
    written: Written
    texts: Sequence[Text] = ()
    missed: bool = False  # True: a file without searchable text
    signed: bool = False  # True: signed by its provider, which refuses a changed text, so no mask applies


@dataclass(slots=True, frozen=True)
class Collected:
    """All text of a request. `missed` are files without searchable text. `sample` are texts from which guardrails tell
    whether they know the language.
    """

    sources: Sequence[Source] = ()
    missed: Sequence[Source] = ()
    sample: Sequence[Source] = ()


def collect(exchange: Exchange) -> Collected:
    """All text of a request: its strings, names of fields and long numbers, and text files in base64."""
    found = _collected(exchange)
    long = (one for one in found if len(one.written.text) >= _LEAST_JUDGED)
    return Collected(found, [one for one in found if one.missed], [*islice(long, _MOST_JUDGED)])


def _collected(exchange: Exchange) -> Sequence[Source]:
    files = exchange.request.dialect.fields.files
    form = bool(exchange.route.kept.object) or is_form(exchange.request.body)  # the body of a call is a part of a file
    images = {id(image) for image in exchange.request.ask.image_data}
    signatures = signed(exchange)
    found: list[Source] = []
    spoken = tuple(exchange.request.dialect.fields.spoken)
    series: dict[object, list[Text]] = {}
    for text in exchange.request.dialect.texts(exchange.request.json):
        series.setdefault(_series(text, spoken), []).append(text)
    for parts in series.values():
        if len(parts) > 1:
            parts.sort(key=_number)  # dialects give parts in any order
            written = Written("".join(text.value for text in parts))
            found.append(Source(parts[0].role, parts[0].where, written, parts))
            continue
        found.append(_source(parts[0]))
        found[-1].signed = parts[0].key in signatures and bool(parts[0].holder.get(signatures[parts[0].key]))
        inside = form and parts[0].holder is not exchange.request.json  # in a form only whole fields can be rewritten
        image = id(parts[0].value) in images
        if inside or image:
            found[-1].texts = ()
        if not image and (more := _file(parts[0], files)) is not None:
            found.append(more)
    return [*found, *between(exchange.request.json)]


def _series(text: Text, spoken: tuple[str, ...]) -> object:
    """The source of all texts in one list of parts: a model reads them as one text."""
    if text.key == "text" and text.where.startswith(spoken) and (match := _part(text.where)):
        return match[1], text.role
    return id(text.holder), text.key


def _number(text: Text) -> int:
    match = _part(text.where)
    return int(match[2]) if match else 0


def _source(text: Text) -> Source:
    value = text.value
    written = Written(value, len(value))
    if _begins_json(value):
        try:
            _decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
        else:
            written = Written.json()
            written.add(value)
    return Source(text.role, text.where, written, (text,))


def _file(text: Text, files: Collection[str]) -> Source | None:
    """A source with the text of a file, or marked as `missed` if the file has none; None if `text` is no file."""
    value = text.value
    if text.key not in files and not value.startswith("data:"):
        return None
    found = text_of(value)
    return Source(text.role, text.where, Written(found or ""), missed=found is None)


def between(body: Mapping[str, Any]) -> Iterator[Source]:
    """Text of a body outside its string values that still reaches a model: unusual key names and long numbers. One
    source for each field.
    """
    for name, value in body.items():
        if found := "\n".join(_leaves({name: value})):
            yield Source("request", name if is_word(name) else "the name of a field", Written(found))


def _leaves(tree: Any) -> Iterator[str]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from (name for name in node if not is_word(name))
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
        elif type(node) in (int, float) and abs(node) >= _LONG:
            yield str(node)
