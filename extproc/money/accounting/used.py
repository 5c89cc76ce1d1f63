"""The tokens an exchange used, as exactly as they can be known.

    provider    its provider's own counts
    disputed    its provider's counts, cut down to what the request and the bytes of the answer allow, or beside a cost
                that they cannot have
    estimated   the gateway's counts, if its provider reported none, only some, or had not ended yet
    none        no tokens are charged

A client that leaves early gets no discount: the text that passed is counted by a tokenizer, and thinking that it did
not see by its traces, or by the thinking of other answers of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from extproc.dialects._models import searches
from extproc.dialects._thinkers import is_claude, times_shown, unasked
from extproc.money.budgets import Exact, Expected, costs, input_estimate
from extproc.money.budgets.named import PICTURE
from extproc.words.dialect import Report
from extproc.words.exchange import Ending, Exchange, Kinds, Target, Usage

UNASKED = (Ending.REFUSED, Ending.UNREACHED)
"""Endings without a provider that took the request."""
_UNPAID = (*UNASKED, Ending.PROVIDER_ERROR, Ending.BAD_ANSWER)
"""Endings for which no tokens are charged."""

_PROMPT = 4096
"""Tokens that a provider may put before a prompt of its own accord, and count."""
_MOST_OUTPUT = 1 << 21
_MOST_INPUT = 1 << 24
"""The highest count of input tokens that is believed, if nothing else bounds it."""
_BYTES = 4  # bytes of an average token
_SEALED = 4
"""Bytes of sealed thinking for each token of thinking, until whole answers of the model show the real share. Claude's
signatures hold the thinking in full, encrypted and in base64. Source:
https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-thinking-encryption.html
"""
_STEPS = 16
"""Most answers that a model may write within one answer to the client, when it works in steps. The request's limit
bounds each step.
"""
_FASTEST = 400
"""Tokens a second that no Claude exceeds, not even in its fast mode."""
_MOST_DRAWN = 16 * PICTURE
_NOTHING_USUAL = Expected()


async def used(exchange: Exchange, exact: Exact, expected: Expected) -> Usage:
    """The use of the exchange: its tokens, and units with a price of their own. They come from the answer, or if it has
    none from the request.
    """
    usage = await _tokens(exchange, exact, expected) if not exchange.route.of_tools else _call(exchange)
    if costs.is_beyond_belief(exchange, usage):
        usage = replace(usage, source="disputed")
    if usage.source != "none":
        told = exchange.answer.report.units if exchange.answer.report is not None else {}
        if told or exchange.request.ask.units:
            usage.kinds = replace(usage.kinds or Kinds(), **{**exchange.request.ask.units, **told})
    return usage


async def _tokens(exchange: Exchange, exact: Exact, expected: Expected) -> Usage:
    """The use of the exchange, as far as it can be known.

    The provider's own counts come first, if they can be believed. If a count is missing, or zero although there was
    text, the gateway counts the text itself; without a report it counts both. A forwarded request with an unknown
    outcome used its reservation. Any other exchange used nothing.
    """
    if not exchange.route.forwarded or exchange.ending in _UNPAID or exchange.request.ask.free:
        return Usage(source="none")
    report = exchange.answer.report
    told = told_by(report)
    if told.cost is not None and costs.is_by_the_picture(exchange):
        return told
    if report is None or not (told.input_tokens or told.output_tokens):
        if report is not None and (report.told_usage or report.usage):
            report.usage_refused = True
        return await _seen(exchange, exact, expected)
    most_in, most_out = most_of(told, report, exchange)
    if told.input_tokens > most_in or told.output_tokens > most_out:
        told = await _cut_down(told, most_in, most_out, exchange, exact)
        report.usage_refused = True
    late = report.told_at is not None and report.output_bytes > report.told_at  # True: text came after the report
    if told.source != "estimated" and told.input_tokens and told.output_tokens and not late:
        return told
    return await _completed(told, report, exchange, exact, expected, late=late)


def _call(exchange: Exchange) -> Usage:
    """The use of a tool call: no tokens, and the call's price if a server took it."""
    paid = exchange.route.forwarded and exchange.ending not in _UNPAID
    return Usage() if paid else Usage(source="none")


def told_by(report: Report | None) -> Usage:
    """The provider's report of its usage; zeros without one."""
    if report is None:
        return Usage()
    return report.told_usage or report.usage or Usage()


def learn_usual(exchange: Exchange, expected: Expected) -> None:
    """Learn usual amounts from an answer whose provider reported its usage."""
    usage, target, report = exchange.money.usage, exchange.answer.target, exchange.answer.report
    if target is None or report is None or usage.source != "provider" or exchange.route.of_tools:
        return
    expected.learn(target.deployment, usage.output_tokens)
    _learn_thinking(usage, target, report, exchange.request.ask.thinking, expected)
    if _reads(exchange, target):
        expected.learn_usual("read", target.deployment, 0, max(0, usage.input_tokens - input_estimate(exchange)))


def _learn_thinking(usage: Usage, target: Target, report: Report, asked: int, expected: Expected) -> None:
    thought = usage.reasoning_tokens
    if traces := _traces(report):
        text = (report.output_bytes - report.thought.size) // _BYTES
        thought = thought or max(0, usage.output_tokens - text)
        for trace, tokens in traces.items():
            expected.learn_usual(trace, target.deployment, asked, thought * 1000 // tokens)
        expected.learn_usual("thought", target.deployment, asked, thought)
    elif thought or expected.usual("thought", target.deployment, asked) is not None:
        hidden = usage.output_tokens - max(report.output_bytes // _BYTES, report.output_events)
        expected.learn_usual("thought", target.deployment, asked, min(max(0, hidden), thought))


# --- the provider's counts


async def _cut_down(told: Usage, most_in: int, most_out: int, exchange: Exchange, exact: Exact) -> Usage:
    """The reported counts `told`, cut down to what is possible (`most_of`): input to the size of the request, output to
    its limit, or to the amount held.
    """
    input_tokens, output_tokens = told.input_tokens, told.output_tokens
    if input_tokens > most_in:
        input_tokens = min(most_in, _input_bound(exchange))
    if output_tokens > most_out:
        limit = _limit(exchange)
        if limit is not None:
            most_out = min(most_out, max(limit, await exact.output_passed(exchange)))
        output_tokens = most_out
    return replace(told, input_tokens=input_tokens, output_tokens=output_tokens, source="disputed").clamped()


def most_of(told: Usage, report: Report, exchange: Exchange) -> tuple[int, int]:
    """The most tokens of input and output that can be true."""
    target = exchange.answer.target
    steps = target is not None and searches(target.model)
    most_in = _MOST_INPUT
    if not (exchange.money.reservation.unseen or exchange.request.ask.hosted or steps):  # a search adds input
        most_in = min(most_in, _input_bound(exchange) + _PROMPT + told.beyond)
    most_out = (
        0 if exchange.request.ask.output_field is None and not exchange.request.ask.answer_tokens else _MOST_OUTPUT
    )
    limit = _most_output(exchange, report)
    if limit is not None:
        most_out = min(most_out, limit * (_STEPS if steps else 1) + told.beyond + _drawn(told, report))
    return most_in, most_out


def _drawn(told: Usage, report: Report) -> int:
    """The most tokens of the answer's images: the images that were seen, or the provider's separate count."""
    kinds = told.kinds or Kinds()
    apart = kinds.image_output + kinds.video_output
    if report.unread_bytes:  # an event too long to be read may hold an image
        apart = max(apart, told.output_tokens)
    return min(_MOST_DRAWN, max(report.pictures * PICTURE, apart))


async def _completed(
    told: Usage, report: Report, exchange: Exchange, exact: Exact, expected: Expected, *, late: bool
) -> Usage:
    """The reported counts `told`, completed with the gateway's own counts if one is missing or the provider had not
    ended.
    """
    final = told.source != "estimated"
    input_tokens, output_tokens = told.input_tokens, told.output_tokens
    if not final or late or not output_tokens:
        known = expected if not told.reasoning_tokens else _NOTHING_USUAL
        output_tokens = max(output_tokens, await _output(exchange, report, exact, known))
    if not input_tokens:
        input_tokens = min(exchange.money.reservation.input_tokens, await exact.input_passed(exchange))
    if final and (input_tokens, output_tokens) == (told.input_tokens, told.output_tokens):
        return told
    report.usage_refused |= final and not (late and told.input_tokens and told.output_tokens)
    source = told.source if told.source == "disputed" else "estimated"
    return replace(told, input_tokens=input_tokens, output_tokens=output_tokens, source=source)


# --- the gateway's counts


async def _seen(exchange: Exchange, exact: Exact, expected: Expected) -> Usage:
    """The gateway's own count of an exchange whose provider reported none."""
    report, reservation = exchange.answer.report, exchange.money.reservation
    if (
        exchange.answer.target is None or exchange.request.ask.lasting
    ):  # the client left before the answer began, or never sees it
        input_tokens = reservation.input_tokens
        if exchange.request.ask.unbounded:
            input_tokens = await _input(exchange, exchange.answer.target or exchange.route.targets[0], exact, expected)
        return Usage(input_tokens, _held(exchange), source="estimated")
    input_tokens = await _input(exchange, exchange.answer.target, exact, expected)
    # the model may have thought without text
    if report is None or not (exchange.ending.complete or report.output_bytes):
        return Usage(input_tokens, _held(exchange), source="estimated")
    return Usage(input_tokens, await _output(exchange, report, exact, expected), source="estimated")


async def _output(exchange: Exchange, report: Report, exact: Exact, expected: Expected) -> int:
    """The gateway's count of the output: its text, and thinking not shown before the client left. At most the request's
    limit, or the amount held when the answer exceeded it.
    """
    if exchange.request.ask.output_field is None:  # vectors are not output, and pictures and sound are not text
        most = exchange.request.ask.answer_tokens
        written = report.output_bytes > report.unread_bytes
        return min(most, await exact.output_passed(exchange)) if written else most
    output_tokens = await exact.output_passed(exchange)
    if not exchange.ending.complete:
        output_tokens += _hidden(exchange, report, expected)
    limit = _most_output(exchange, report)
    return output_tokens if limit is None else min(output_tokens, limit)


def _hidden(exchange: Exchange, report: Report, expected: Expected) -> int:
    """Tokens of thinking that are not in the text. They are estimated from the traces of thinking in the answer, at the
    ratio that whole answers had. Without a trace it is the model's usual amount, else the amount asked for, else the
    usual amount of models of that name.
    """
    target, asked = exchange.answer.target, exchange.request.ask.thinking
    if target is None:
        return 0
    for trace, tokens in _traces(report).items():
        times = expected.usual(trace, target.deployment, asked)
        if times is None:
            most = 1 if trace == "sealed" else times_shown(target.model)
            times = None if most is None else 1000 * most
        if times is not None:
            return max(0, tokens * times // 1000 - report.thought.size // _BYTES)
    told = report.thought.told and is_claude(target.model)
    if told and report.output_bytes and not report.thought.going_on:
        return 0
    known = expected.usual("thought", target.deployment, asked)
    hidden = (asked or unasked(target.model)) if known is None else known
    return min(hidden, math.ceil(exchange.seconds * _FASTEST)) if told else hidden


def _traces(report: Report) -> Mapping[str, int]:
    """Tokens of thinking by each trace of thinking in an answer, the surest first. Sealed thinking comes when thinking
    is over.
    """
    thought = report.thought
    if not thought.size and not thought.sealed:
        return {}
    shown = thought.size // _BYTES
    sealed = {"sealed": max(shown, thought.sealed // _SEALED)} if thought.sealed else {}
    return {name: tokens for name, tokens in (sealed | {"shown": shown}).items() if tokens}


async def _input(exchange: Exchange, target: Target, exact: Exact, expected: Expected) -> int:
    """The gateway's count of the input: its text, and for input outside the body the usual amount there, else the
    amount held for hosted tools. A model's whole context would be many times the size of nearly every file.
    """
    text = await exact.input_passed(exchange)
    if not _reads(exchange, target):
        return min(text, _input_bound(exchange))
    more = expected.usual("read", target.deployment)
    if more is None:
        more = exchange.request.ask.hosted_tokens if exchange.request.ask.unbounded or searches(target.model) else 0
    return min(text + more, max(text, target.context or _MOST_INPUT))


def _reads(exchange: Exchange, target: Target) -> bool:
    """True where the input may be larger than the request."""
    return bool(exchange.request.ask.unbounded or exchange.request.ask.hosted) or searches(target.model)


# --- bounds


def _input_bound(exchange: Exchange) -> int:
    """The most tokens that the serving target can have read of the request."""
    reservation, target = exchange.money.reservation, exchange.answer.target
    if target is None or not reservation.inputs:
        return reservation.input_tokens
    return reservation.inputs[exchange.route.targets.index(target)]


def _limit(exchange: Exchange) -> int | None:
    """The most tokens that the serving target can have written; None without a limit."""
    limits = exchange.money.reservation.limits
    if not limits or exchange.answer.target is None:
        return None
    return limits[exchange.route.targets.index(exchange.answer.target)]


def _most_output(exchange: Exchange, report: Report) -> int | None:
    """The most text and thinking that is charged, even if a provider ignores limits: the request's limit, or the amount
    held when the answer exceeded it. If nothing was held, as many tokens as the answer's bytes show.
    """
    limit, reservation = _limit(exchange), exchange.money.reservation
    if limit is None:
        return None
    if not reservation.held:
        return max(limit, report.output_bytes)
    return max(limit, reservation.output if reservation.output > reservation.output_tokens else 0)


def _held(exchange: Exchange) -> int:
    """The held tokens of output, for an answer of which nothing is known."""
    reservation, target = exchange.money.reservation, exchange.answer.target
    bound = reservation.output_tokens
    if target is not None and reservation.outputs:
        bound = reservation.outputs[exchange.route.targets.index(target)]
    return min(bound, reservation.output) if reservation.usual else bound
