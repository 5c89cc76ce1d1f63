"""Guardrails, a file each. A guardrail only finds; the stages alone decide about a finding.

To add one, copy a file here: its module name is the `kind`, its `SETTINGS` are the keys it takes in the filter YAML.
`build()` makes the object with `find(text, role, where)`. That object may also have these attributes:

    max_match   characters of its longest match, with the context that decides it (256 without this attribute). Streamed
                text is held back that far from its end, and scanned again with that much overlap. A longer match is
                still masked as far as it is seen to grow.
    hold(text)  characters at the end of `text` that may be the beginning of a match, 0 to `max_match`. The promise: a
                match in `text + more` that begins in front of them is in `find(text)` already, with the same span. Give
                it where most text needs no wait: a detector of e-mail addresses holds the last word.
    window      characters, for a detector that judges a text as a whole and whose spans may be the whole text (topics,
                toxicity). It gets windows of that length that overlap by half, and text waits for its window.

Text reaches `find` as it was written, and once more normalised where that differs (`_normal.py`: compatible forms,
invisible characters, look-alikes, combining marks), so a detector does not normalise. `find` may run on any thread,
for several texts at a time, and keeps no state between calls. An exception counts as a failure of the guardrail:
`failure: closed` refuses, `failure: open` goes on.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import re
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Literal, Protocol

import msgspec
from pydantic import Field

from extproc.words.dialect import Text
from extproc.words.errors import GUARDRAIL_BLOCKED, Refusal
from extproc.words.exchange import Exchange
from extproc.words.values import Name, Section

_INLINE = 64 << 10
"""Bytes scanned on the event loop; longer requests are scanned on a thread, where RE2 lets go of the lock."""

_LONG = 1_000_000  # smaller numbers are not scanned
_word = re.compile(r"[a-z_]{1,40}").fullmatch
_begins_json = re.compile(r"\s*[\[{]").match
_decode = msgspec.json.Decoder().decode


@dataclass(slots=True, frozen=True)
class Finding:
    """A finding of a guardrail: `kind` for people, `span` in the text, `score` from 0 to 1."""

    kind: str
    span: tuple[int, int]
    score: float = 1.0


class Guardrail(Protocol):
    def find(self, text: str, role: str, where: str) -> Sequence[Finding]:
        """All findings in `text`. Pure; may run on any thread."""
        ...


class GuardrailSettings(Section):
    """A guardrail: a check of the text in requests."""

    name: Name = Field(description="Name of the guardrail in messages, metrics and the ledger.")
    kind: str = Field(description="Kind of the guardrail.")
    on: Sequence[Literal["input"]] = Field(
        ("input",), min_length=1, description="Text that is checked. `input`: the request."
    )
    action: Literal["block", "audit"] = Field(
        "block",
        description="Effect of a finding. `block`: the request gets 400 `guardrail_blocked`. `audit`: the finding is "
        "counted and recorded. Start a new guardrail with `audit`.",
    )

    def build(self) -> Guardrail:
        raise NotImplementedError


class GuardInput:
    """Refuses (400) a request in which a blocking guardrail finds something, anywhere a client can put text."""

    def __init__(self, guardrails: Sequence[GuardrailSettings], count: Callable[[str, str], None]) -> None:
        self._guardrails = [(settings, settings.build()) for settings in guardrails if "input" in settings.on]
        self._count = count  # (guardrail, verdict)

    async def __call__(self, exchange: Exchange) -> None:
        if not self._guardrails:
            return
        if exchange.ask.unreadable:
            where = exchange.ask.unreadable
            message = f"'{where}' holds token ids, which guardrails cannot read: send text."
            raise Refusal(GUARDRAIL_BLOCKED, message, param=where)
        files = exchange.dialect.fields.files
        if len(exchange.body) <= _INLINE:
            found = self._scan(exchange, files)
        else:
            found = await asyncio.to_thread(self._scan, exchange, files)
        for settings, text in found:
            self._count(settings.name, settings.action)
            exchange.guardrails.append(f"{settings.name}:{settings.action}")
            if settings.action == "block":
                message = f"Guardrail {settings.name!r} matched {text.where}; the request was not sent."
                raise Refusal(GUARDRAIL_BLOCKED, message, param=text.where)

    def _scan(self, exchange: Exchange, files: Collection[str]) -> list[tuple[GuardrailSettings, Text]]:
        """The first text in which each guardrail finds something."""
        texts = [*exchange.dialect.texts(exchange.json), *between(exchange.json)]
        texts = [*texts, *(inner for text in texts for inner in inside(text, files))]
        found = []
        for settings, guardrail in self._guardrails:
            hit = next((text for text in texts if guardrail.find(text.value, text.role, text.where)), None)
            if hit is not None:
                found.append((settings, hit))
        return found


def between(body: Mapping[str, Any]) -> Iterator[Text]:
    """Text of a body outside its strings that still reaches a model: names in objects that are no plain words, and long
    numbers. One text for each field.
    """
    for name, value in body.items():
        if found := "\n".join(_leaves({name: value}, strings=False)):
            yield Text("request", name if _word(name) else "the name of a field", [found], 0)


def inside(text: Text, files: Collection[str]) -> Iterator[Text]:
    """Texts inside a text that a translation may decode: JSON with escapes, or base64 in one of the fields `files`."""
    value = text.value
    if "\\" in value and _begins_json(value):
        try:
            found = "\n".join(_leaves(_decode(value), strings=True))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        yield Text(text.role, text.where, [found], 0)
    elif text.key in files or value.startswith("data:"):
        try:
            written = b64decode(value.rpartition(",")[2]).decode()
        except ValueError:
            return
        yield Text(text.role, text.where, [written], 0)


def _leaves(tree: Any, *, strings: bool) -> Iterator[str]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from (name for name in node if not _word(name))
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, str):
            if strings:
                yield node
        elif type(node) in (int, float) and abs(node) >= _LONG:
            yield str(node)


@cache
def kinds() -> Mapping[str, type[GuardrailSettings]]:
    """The settings of every guardrail in this package, by the name of its module."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}").SETTINGS for name in names}


def settings_type() -> Any:
    """The type of an entry of `guardrails`: the settings of its kind."""
    types = tuple(kinds().values())
    return types[0] if len(types) == 1 else Annotated[reduce(or_, types), Field(discriminator="kind")]
