"""Upper bounds of a request's use: tokens of input and output, at each of its targets."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from extproc.dialects._models import searches
from extproc.dialects._thinkers import unasked
from extproc.routing.parameters import apply, output_limit
from extproc.words.contract import changed
from extproc.words.exchange import Exchange, Target

_BYTES_PER_TOKEN = 3  # English prose has four bytes a token; three keep an estimate from being too low
_AN_HOUR = b'"1h"'
"""How long a request asks a prompt cache to keep something, in the JSON of every API that has it."""
USUAL = 4096
"""Tokens of text that are held for a request without a limit, until the model's usual length is known."""
_LEAST_OUTPUT = 16  # smallest limit in tokens that OpenAI's Responses accept
_GPT_4O_MINI = 48_169
"""Tokens of the largest image at GPT-4o mini, 2,833 and eight tiles of 5,667. At its low price an image costs the same
as at GPT-4o.
"""


def estimate(size: int) -> int:
    """Estimated tokens of `size` bytes of UTF-8 text, rather too many than too few."""
    return math.ceil(size / _BYTES_PER_TOKEN)


def input_bound(exchange: Exchange) -> int:
    """Upper bound of the input's tokens: one for each byte of text, the most for its images, and the text that
    providers add themselves.
    """
    ask = exchange.request.ask
    return 0 if ask.free else exchange.request.size - ask.image_bytes - ask.file_bytes + beside_text(exchange)


def beside_text(exchange: Exchange) -> int:
    """Most tokens of the images and of the text that providers add to a prompt."""
    ask = exchange.request.ask
    added = ask.added_tokens + ask.file_tokens
    if ask.hosted_tokens and (ask.hosted or any(searches(target.model) for target in exchange.route.targets)):
        added += ask.hosted_tokens
    if not ask.images:
        return added
    return added + dearest(ask.images, ask.image_tokens, (target.model for target in exchange.route.targets))


def dearest(count: int, tokens: int, models: Iterable[str]) -> int:
    """Most tokens of `count` images at any of `models`: `tokens` each, at GPT-4o mini more."""
    if count and any("gpt-4o-mini" in model for model in models):
        return max(tokens, count * _GPT_4O_MINI)
    return tokens


def input_estimate(exchange: Exchange) -> int:
    """Estimated tokens of the input."""
    ask = exchange.request.ask
    if ask.free:
        return 0
    return estimate(exchange.request.size - ask.image_bytes - ask.file_bytes) + ask.image_tokens + ask.file_tokens


def without(body: bytes, texts: Sequence[str]) -> bytes:
    """The body without the strings `texts`, which usually come in the order of the body."""
    if not texts:
        return body
    found: list[tuple[int, int]] = []
    at = 0
    for text in texts:
        part = text.encode()
        start = body.find(part, at)
        if start < 0:
            start = body.find(part, 0, at)
        if start >= 0:
            at = start + len(part)
            found.append((start, at))
    left, end = [], 0
    for start, stop in sorted(found):
        left.append(body[end:start])
        end = max(end, stop)
    return b"".join([*left, body[end:]])


def possible_kinds(exchange: Exchange) -> Collection[str]:
    """The separately priced kinds of tokens (`words.exchange.Kinds`) that the exchange can use."""
    ask = exchange.request.ask
    found = {"image_output", "video_output"}  # some models draw without being asked
    if ask.unseen or ask.needs.get("audio") in exchange.request.dialect.fields.spoken:
        found |= {"audio_input", "audio_cached"}
    if ask.unseen or ask.images or "files" in ask.needs:
        found |= {"image_input", "image_cached", "video_input"}
    if ask.speaks:
        found.add("audio_output")
    if _AN_HOUR in exchange.request.body:
        found.add("cache_write_1h")
    return found


def bound_output(
    exchange: Exchange, cap: int | None, *, counted: bool = False, strict: bool = False
) -> tuple[Sequence[int], Sequence[int | None]]:
    """The most tokens that the answer can hold at each target; and the limit of the request or the model at each, None
    without one.

    Writes `output_limits`, where a limit that the client did not set has to stand in the request: the client asks for
    more than the target may write, or tokens are `counted` and the settings have a limit (`cap`, or the target's own).
    If the worst case has to be held (`strict`) and nothing is known of the model, `USUAL` becomes the limit.
    """
    ask = exchange.request.ask
    if ask.output_field is None:
        exchange.money.output_limits = ()
        if not ask.answer_tokens:
            return (), ()
        each = [ask.answer_tokens] * len(exchange.route.targets)
        return each, [None] * len(each)
    bounds: list[int] = []
    firm: list[int | None] = []
    written: list[int | None] = []
    for target in exchange.route.targets:
        asked = limit = output_limit(target.changes, ask.max_output_tokens)
        ceiling = target.max_output_tokens
        most = ceiling or target.known_output or target.context
        if limit is None and counted:
            limit = ask.usual_output or ceiling or cap or (USUAL if strict and most is None else None)
        if limit is not None and ceiling is not None:
            limit = min(limit, ceiling)
        written.append(None if limit == asked else limit)
        bound = limit or ask.usual_output or most or USUAL + (ask.thinking or unasked(target.model))
        if exchange.route.translated and limit is not None:
            bound = _translated(bound, _thinking(exchange, target), ceiling)
        bounds.append(bound * ask.choices)
        firm.append(None if limit is None and most is None else bounds[-1])
    exchange.money.output_limits = tuple(written)
    return tuple(bounds), tuple(firm)


def _translated(limit: int, thinking: int, ceiling: int | None) -> int:
    """The highest limit that a translation can make of `limit`. Some APIs exclude thinking from a limit that other APIs
    include it in, and some have a minimum.
    """
    raised = limit + thinking
    return max(raised if ceiling is None else min(raised, ceiling), _LEAST_OUTPUT)


def _thinking(exchange: Exchange, target: Target) -> int:
    """Tokens of thinking that the request asks for, as the target changes it."""
    if not target.changes:
        return exchange.request.ask.thinking
    fields, removed = apply(target.changes, exchange.request.json, exchange.request.ask.output_field)
    return exchange.request.dialect.offers.thinking(changed(exchange.request.json, fields, removed))
