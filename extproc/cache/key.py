"""The key of a kept answer: a digest of the request as it would be answered.

    who       the scope: the consumer, the team, or everybody
    where     the targets that may serve the request, in any order, with the changes they make to it
    what      the neutral form of a request, if it carries all; else the fields of its API, but for `Reuse.asides`
    beside    headers and parameters of the client that a provider gets

In the neutral form the order of fields, the client's API, and streaming make no difference. In the other form
everything but the order of the top-level fields makes one. A field that the gateway does not know is part of the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.cache.questions import Questions
from extproc.upstream.providers import ProviderSettings
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, Exchange, Target
from extproc.words.messages import Prompt, TextPart, ToolResult
from extproc.words.values import Patterns

VERSION = 1
"""Version of the key's meaning. A new version makes older entries unfindable."""

_MOST_KNOWN = 4096
"""Most targets whose digests are remembered."""

_encode = msgspec.json.Encoder().encode


class Keys:
    """Makes keys. With `secret` a reader of the store cannot test guesses of requests."""

    def __init__(self, secret: bytes, providers: Mapping[str, ProviderSettings]) -> None:
        self._secret = hashlib.blake2b(secret, person=b"extproc cache", digest_size=32).digest()
        self._places = {
            name: [entry.kind, entry.url.geturl(), sorted(entry.headers.items()), sorted(entry.query.items())]
            for name, entry in providers.items()
        }
        self._passing = {name: _Passing(entry) for name, entry in providers.items()}
        self._known: dict[int, tuple[Target, str]] = {}  # by id(); the kept target keeps its id() unique

    def __call__(self, exchange: Exchange, scope: str, questions: Questions | None = None) -> tuple[bytes, bool] | None:
        """The key, and whether it is that of the neutral form. None for a request that JSON cannot express. Questions
        listed as equal have the same key.
        """
        prompt = neutral(exchange)
        said: Any = stated(exchange) if prompt is None else prompt
        text = "" if prompt is None or questions is None else asked_of(prompt)
        if prompt is not None and questions is not None and text and (group := questions.group(text)) is not None:
            prompt.messages[-1].parts = []
            said = ["listed", group, prompt]
        digest = self._digest(exchange, scope, said)
        return None if digest is None else (digest, prompt is not None)

    def question(self, exchange: Exchange, scope: str, longest: int) -> tuple[bytes, str, Prompt] | None:
        """A digest of all but the last turn, the text of the last turn, and the request without it; None if that turn
        is not the user's text, or too long.
        """
        prompt = neutral(exchange)
        text = "" if prompt is None else asked_of(prompt)
        if prompt is None or not text.strip() or len(text) > longest:
            return None
        prompt.messages[-1].parts = []
        digest = self._digest(exchange, scope, ["question", prompt])
        return None if digest is None else (digest, text, prompt)

    def inputs(self, exchange: Exchange, scope: str, name: str, inputs: Sequence[Any]) -> Sequence[bytes] | None:
        """A key for each input of a request; inputs stand in the field `name`."""
        *beside, fields = stated(exchange)
        rest = {field: value for field, value in fields.items() if field != name}
        digest = self._digest(exchange, scope, ["input", *beside, rest])
        if digest is None:
            return None
        try:
            return [hashlib.blake2b(digest + _encode(one), key=self._secret, digest_size=32).digest() for one in inputs]
        except (UnicodeEncodeError, RecursionError):
            return None

    def _digest(self, exchange: Exchange, scope: str, said: Any) -> bytes | None:
        targets = exchange.route.targets
        where = [self._place(target) for target in targets]
        if len(where) > 1:
            where = sorted(set(where))
        parts = [VERSION, owner(exchange.consumer, scope), where, self._beside(exchange)]
        try:
            data = _encode([*parts, said])
        except (UnicodeEncodeError, RecursionError):
            return None
        return hashlib.blake2b(data, key=self._secret, digest_size=32).digest()

    def _place(self, target: Target) -> str:
        """A digest of everything in a target that changes its answers. The target's name does not."""
        known = self._known.get(id(target))
        if known is not None and known[0] is target:
            return known[1]
        able = None if target.supports is None else sorted(target.supports)
        limits = [target.max_output_tokens, target.known_output]
        changes = [target.changes, target.api, target.hosted_tools, able, limits]
        whole = _encode([target.provider, self._places.get(target.provider), target.model, *changes])
        place = hashlib.blake2b(whole, digest_size=16).hexdigest()
        if len(self._known) >= _MOST_KNOWN:  # wildcards allow any number of names
            self._known.clear()
        self._known[id(target)] = target, place
        return place

    def _beside(self, exchange: Exchange) -> Sequence[Any]:
        """The client's headers and query parameters that providers get. Paths hold the versions of APIs."""
        headers, query = exchange.request.head.headers, exchange.request.head.path.partition("?")[2]
        passing = [self._passing[name] for name in {target.provider for target in exchange.route.targets}]
        passed: set[str] = set()
        for each in passing:
            each.headers(headers, passed)
        beside = [[name, headers[name]] for name in sorted(passed)] if passed else []
        if query:  # the query may hold the client's credential: only allowed names count
            allowed = {name for each in passing for name in each.query}
            beside += sorted(part.split("=", 1) for part in query.split("&") if part.partition("=")[0] in allowed)
        return beside


class _Passing:
    """The headers and parameters of clients that a provider gets."""

    def __init__(self, provider: ProviderSettings) -> None:
        self.query = provider.provider.client_query
        self._names = frozenset(name for name in provider.passed if "*" not in name)
        self._wild = Patterns([name for name in provider.passed if "*" in name])

    def headers(self, given: Mapping[str, str], found: set[str]) -> None:
        """Add the names of headers that the provider gets to `found`."""
        if not self._names.isdisjoint(given):  # most clients send no such header
            found |= self._names & given.keys()
        if self._wild.texts:
            found.update(filter(self._wild, given))


def owner(consumer: Consumer, scope: str) -> Sequence[Any]:
    """The scope of an answer. A name known only from a token is not equal to the same name in the settings."""
    if scope == "all":
        return ["all"]
    if scope == "team" and consumer.team:
        return ["team", consumer.team]
    return ["consumer", consumer.listed, consumer.name]


def neutral(exchange: Exchange) -> Prompt | None:
    """The neutral form of a request, without fields that change no answer; None if the form does not carry the whole
    request.
    """
    dialect = exchange.request.dialect
    if dialect.translation is None:
        return None
    asides = dialect.offers.reuse.asides
    said = {name: value for name, value in exchange.request.json.items() if name not in asides}
    if not dialect.offers.reuse.plain(said):
        return None
    try:
        prompt: Prompt = dialect.translation.decode_request(said)
    except Refusal:
        return None
    prompt.model, prompt.ignored = "", []
    if prompt.temperature is not None:
        prompt.temperature = float(prompt.temperature)
    if prompt.top_p is not None:
        prompt.top_p = float(prompt.top_p)
    for tool in prompt.tools:
        tool.cache = None
    for part in prompt.system:
        part.cache = None
    for message in prompt.messages:
        for each in message.parts:
            each.cache = None  # type: ignore[union-attr]
            if isinstance(each, ToolResult):
                for inner in each.parts:
                    inner.cache = None
    return prompt


def asked_of(prompt: Prompt) -> str:
    """The text of the last turn; empty if the turn is not the user's, or not only text."""
    last = prompt.messages[-1] if prompt.messages else None
    if last is None or last.role != "user":
        return ""
    texts = [part.text for part in last.parts if isinstance(part, TextPart)]
    return "\n".join(texts) if len(texts) == len(last.parts) else ""


def stated(exchange: Exchange) -> Sequence[Any]:
    """A request as its client stated it: API, path, streaming, and each field except `Reuse.asides`."""
    dialect, ask = exchange.request.dialect, exchange.request.ask
    aside = {*dialect.offers.reuse.asides, dialect.fields.model}
    fields = {name: exchange.request.json[name] for name in sorted(exchange.request.json) if name not in aside}
    version = exchange.request.head.headers.get(dialect.endpoints.version, "") if dialect.endpoints.version else ""
    return [dialect.name, exchange.request.endpoint.pattern, version, ask.stream, fields]
