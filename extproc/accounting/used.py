"""The tokens an exchange used, as well as they can be known.

    provider    its provider's own counts
    disputed    its provider's counts, cut down to what the request and the bytes of the answer allow
    estimated   the gateway's counts, where its provider reported none, only some, or had not ended yet
    none        no tokens are charged

A client that leaves early gets no discount: its text is counted by kinds of text, and thinking that it did not see by
the thinking of other answers of the model.
"""

from __future__ import annotations

from dataclasses import replace

from extproc.budgets import Expected, input_seen
from extproc.budgets.guess import about
from extproc.dialects._thinkers import unasked
from extproc.words.dialect import Report
from extproc.words.exchange import Ending, Exchange, Kinds, Usage

UNASKED = (Ending.REFUSED, Ending.UNREACHED)
"""Endings without a provider that took the request."""
_UNPAID = (*UNASKED, Ending.PROVIDER_ERROR, Ending.BAD_ANSWER)
"""Endings for which no tokens are charged."""

_PROMPT = 4096
"""Tokens that a provider may put before a prompt of its own accord, and count."""
_MOST_OUTPUT = 1 << 21
_MOST_INPUT = 1 << 24
"""Tokens beyond which no count is believed, where nothing else bounds it."""
_BYTES = 4  # of a token, about
_MOST_BYTES = 8  # of a token, however long its words
_SLACK = 512  # bytes that a few tokens can be


def used(exchange: Exchange, expected: Expected | None = None) -> Usage:
    """The use of the exchange: its tokens, and the units that are priced beside them, as the answer tells, or else the
    request.
    """
    usage = _tokens(exchange, expected) if exchange.mcp is None else _call(exchange)
    if usage.source != "none":
        told = exchange.report.units if exchange.report is not None else {}
        if told or exchange.ask.units:
            usage.kinds = replace(usage.kinds or Kinds(), **{**exchange.ask.units, **told})
    return usage


def _tokens(exchange: Exchange, expected: Expected | None) -> Usage:
    """The use of the exchange, as far as it can be known.

    The provider's own counts come first, where they can be believed. A count that is missing, or zero although there
    was text, is the gateway's own count of the text; so are both counts without a report. A forwarded request with an
    unknown outcome: its reservation. Otherwise nothing.
    """
    if not exchange.forwarded or exchange.ending in _UNPAID or exchange.ask.free:
        return Usage(source="none")
    report = exchange.report
    told = told_by(report)
    if report is None or not (told.input_tokens or told.output_tokens):
        if report is not None and (report.told_usage or report.usage):
            report.usage_refused = True
        return _seen(exchange, expected)
    return _completed(_possible(told, report, exchange), report, exchange, expected)


def _call(exchange: Exchange) -> Usage:
    """The use of a call of a tool: no tokens, and its price where a server took it."""
    paid = exchange.forwarded and exchange.ending not in _UNPAID
    return Usage() if paid else Usage(source="none")


def told_by(report: Report | None) -> Usage:
    """The provider's report of its usage; zeros without one."""
    if report is None:
        return Usage()
    return report.told_usage or report.usage or Usage()


def learn(exchange: Exchange, expected: Expected) -> None:
    """Remember what the answer came to, where its provider reported it at its end."""
    usage, target, report = exchange.usage, exchange.target, exchange.report
    if target is None or report is None or usage.source != "provider" or exchange.mcp is not None:
        return
    expected.learn(target.deployment, usage.output_tokens)
    if usage.reasoning_tokens or expected.thought(target.deployment, exchange.ask.thinking) is not None:
        hidden = usage.output_tokens - max(report.output_bytes // _BYTES, report.output_events)
        expected.learn_thought(target.deployment, exchange.ask.thinking, min(max(0, hidden), usage.reasoning_tokens))


# --- the provider's counts


def _possible(told: Usage, report: Report, exchange: Exchange) -> Usage:
    """`told`, cut down to what is possible. Each token of text is a byte at least; thinking is within the limit of the
    request, and input within its size, but for what providers add (`Usage.beyond`).
    """
    most_in, most_out = _most(told, report, exchange)
    if told.input_tokens <= most_in and told.output_tokens <= most_out:
        return told
    report.usage_refused = True
    input_tokens, output_tokens = told.input_tokens, told.output_tokens
    if input_tokens > most_in:
        input_tokens = min(most_in, _input_bound(exchange))
    if output_tokens > most_out:
        limit = _limit(exchange)
        output_tokens = most_out if limit is None else max(limit, _written(report))
    return replace(told, input_tokens=input_tokens, output_tokens=output_tokens, source="disputed").clamped()


def _most(told: Usage, report: Report, exchange: Exchange) -> tuple[int, int]:
    """The most tokens of input and output that can be true."""
    limit = _limit(exchange)
    most_in = _MOST_INPUT
    if not (exchange.reservation.unseen or exchange.ask.hosted):  # a search reads what it finds
        most_in = min(most_in, _input_bound(exchange) + _PROMPT + told.beyond)
    most_out = 0 if exchange.ask.output_field is None and not exchange.ask.answer_tokens else _MOST_OUTPUT
    if limit is not None:
        most_out = min(most_out, max(limit, report.output_bytes) + told.beyond)
    return most_in, most_out


def _completed(told: Usage, report: Report, exchange: Exchange, expected: Expected | None) -> Usage:
    """`told`, completed with the gateway's counts where one is missing, or where the provider had not ended yet."""
    final = told.source != "estimated"
    late = report.told_at is not None and report.output_bytes > report.told_at  # text came after the report
    output_tokens = told.output_tokens
    if not final or late or not output_tokens:
        output_tokens = max(output_tokens, _output(exchange, report, expected if not told.reasoning_tokens else None))
    input_tokens = told.input_tokens or min(exchange.reservation.input_tokens, input_seen(exchange))
    if final and (input_tokens, output_tokens) == (told.input_tokens, told.output_tokens):
        return told
    report.usage_refused |= final and not (late and told.input_tokens and told.output_tokens)
    source = told.source if told.source == "disputed" else "estimated"
    return replace(told, input_tokens=input_tokens, output_tokens=output_tokens, source=source)


# --- the gateway's counts


def _seen(exchange: Exchange, expected: Expected | None) -> Usage:
    """The gateway's own count of an exchange whose provider reported none."""
    report, reservation = exchange.report, exchange.reservation
    if exchange.target is None or exchange.ask.lasting:  # the client left before any answer began, or will not see it
        return Usage(reservation.input_tokens, _held(exchange), source="estimated")
    input_tokens = _input(exchange)
    # the model may have thought without text
    if report is None or not (exchange.ending.complete or report.output_bytes):
        return Usage(input_tokens, _held(exchange), source="estimated")
    return Usage(input_tokens, _output(exchange, report, expected), source="estimated")


def _output(exchange: Exchange, report: Report, expected: Expected | None) -> int:
    """The gateway's count of the output: its text, and thinking that a client that left did not see. No more than the
    request allows, or than was held as the answer passed its limit, unless its text is evidently more.
    """
    if exchange.ask.output_field is None:  # vectors are no output, pictures and sound are no text
        most = exchange.ask.answer_tokens
        return min(most, _written(report)) if report.output_bytes > report.unread_bytes else most
    output_tokens = _written(report)
    if not exchange.ending.complete:
        output_tokens += _hidden(exchange, report, expected)
    limit, reservation = _limit(exchange), exchange.reservation
    if limit is None:
        return output_tokens
    text = report.output_bytes - report.unread_bytes
    if text > limit * _MOST_BYTES + _SLACK:  # the provider does not keep to limits
        limit = max(limit, about(report.sample, text))
    return min(output_tokens, max(limit, reservation.output if reservation.output > reservation.output_tokens else 0))


def _hidden(exchange: Exchange, report: Report, expected: Expected | None) -> int:
    """Tokens of thinking that are not in the text: what is usual for the model, else what was asked for, else what its
    like do unasked.
    """
    target, asked = exchange.target, exchange.ask.thinking
    if target is None or report.thinks_aloud:
        return 0
    known = None if expected is None else expected.thought(target.deployment, asked)
    return (asked or unasked(target.model)) if known is None else known


def _written(report: Report) -> int:
    """Estimated tokens of the answer's text."""
    return max(about(report.sample, report.output_bytes), report.output_events)


def _input(exchange: Exchange) -> int:
    """The gateway's count of the input. Input outside the body: the most that the serving target can have read."""
    reservation = exchange.reservation
    return _input_bound(exchange) if reservation.unseen else min(reservation.input_tokens, input_seen(exchange))


# --- bounds


def _input_bound(exchange: Exchange) -> int:
    """The most that the serving target can have read of the request."""
    reservation, target = exchange.reservation, exchange.target
    if target is None or not reservation.inputs:
        return reservation.input_tokens
    return reservation.inputs[exchange.targets.index(target)]


def _limit(exchange: Exchange) -> int | None:
    """The most that the serving target can have written; None where nothing limits it."""
    limits = exchange.reservation.limits
    return None if not limits or exchange.target is None else limits[exchange.targets.index(exchange.target)]


def _held(exchange: Exchange) -> int:
    """The tokens of output that were held, where nothing is known of the answer."""
    reservation, target = exchange.reservation, exchange.target
    bound = reservation.output_tokens
    if target is not None and reservation.outputs:
        bound = reservation.outputs[exchange.targets.index(target)]
    return min(bound, reservation.output) if reservation.usual else bound
