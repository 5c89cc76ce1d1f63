"""The key of a kept answer: a digest of the request as it would be answered.

    who       the scope: the consumer, the team, or everybody
    where     the targets that may serve the request, whatever their order, with the changes they make to it
    what      the neutral form of a request that it carries whole; else the fields of its API, but for `Dialect.asides`
    beside    headers and parameters of the client that a provider gets

In the neutral form the order of fields, the client's API, and whether the answer is streamed make no difference. In the
other form all but the order of the top-level fields does. A field that the gateway does not know is part of the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.providers import ProviderSettings
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, Exchange, Target
from extproc.words.messages import Prompt, ToolResult
from extproc.words.values import Pattern

VERSION = 1
"""Changes with each change of what a key means: older entries are then not found."""

_encode = msgspec.json.Encoder().encode


class Keys:
    """Makes keys. `secret` keeps requests that can be guessed from being looked for in a store."""

    def __init__(self, secret: bytes, providers: Mapping[str, ProviderSettings]) -> None:
        self._secret = hashlib.blake2b(secret, person=b"extproc cache", digest_size=32).digest()
        self._places = {
            name: [entry.kind, entry.url.geturl(), sorted(entry.headers.items()), sorted(entry.query.items())]
            for name, entry in providers.items()
        }
        self._queries = {name: entry.provider.client_query for name, entry in providers.items()}
        self._headers = {name: [Pattern(passed) for passed in entry.passed] for name, entry in providers.items()}

    def __call__(self, exchange: Exchange, scope: str) -> tuple[bytes, bool] | None:
        """The key, and whether it is that of the neutral form. None for a request that no JSON can express."""
        prompt = neutral(exchange)
        said: Any = stated(exchange) if prompt is None else prompt
        where = sorted({_encode(self._place(target)) for target in exchange.targets})
        parts = [VERSION, owner(exchange.consumer, scope), [place.decode() for place in where], self._beside(exchange)]
        try:
            data = _encode([*parts, said])
        except (UnicodeEncodeError, RecursionError):
            return None
        return hashlib.blake2b(data, key=self._secret, digest_size=32).digest(), prompt is not None

    def _place(self, target: Target) -> Sequence[Any]:
        """All of a target that changes its answers. Its name does not."""
        able = None if target.supports is None else sorted(target.supports)
        limits = [target.max_output_tokens, target.known_output]
        changes = [target.changes, target.api, target.hosted_tools, able, limits]
        return [target.provider, self._places.get(target.provider), target.model, *changes]

    def _beside(self, exchange: Exchange) -> Sequence[Any]:
        """What providers get of the client's headers and query. Versions of APIs are in the paths."""
        providers = {target.provider for target in exchange.targets}
        patterns = [pattern for name in providers for pattern in self._headers[name]]
        headers = exchange.request.headers
        passed = sorted(name for name in headers if any(pattern(name) for pattern in patterns)) if patterns else ()
        beside = [[name, headers[name]] for name in passed]
        if query := exchange.request.path.partition("?")[2]:  # which may hold the client's credential
            allowed = {name for provider in providers for name in self._queries[provider]}
            beside += sorted(part.split("=", 1) for part in query.split("&") if part.partition("=")[0] in allowed)
        return beside


def owner(consumer: Consumer, scope: str) -> Sequence[Any]:
    """The scope of an answer. A name that only a token told is another one than the same name in the settings."""
    if scope == "all":
        return ["all"]
    if scope == "team" and consumer.team:
        return ["team", consumer.team]
    return ["consumer", consumer.listed, consumer.name]


def neutral(exchange: Exchange) -> Prompt | None:
    """The neutral form of a request without anything that changes no answer; None where it does not say all."""
    dialect = exchange.dialect
    if not (dialect.translates_from and dialect.plain(exchange.json)):
        return None
    said = {name: value for name, value in exchange.json.items() if name not in dialect.asides}
    try:
        prompt: Prompt = dialect.decode_request(said)
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


def stated(exchange: Exchange) -> Sequence[Any]:
    """A request as its client stated it: API, path, whether it is streamed, and each field but those aside."""
    dialect, ask = exchange.dialect, exchange.ask
    aside = {*dialect.asides, dialect.fields.model}
    fields = {name: exchange.json[name] for name in sorted(exchange.json) if name not in aside}
    version = exchange.request.headers.get(dialect.version, "") if dialect.version else ""
    return [dialect.name, exchange.endpoint.pattern, version, ask.stream, fields]
