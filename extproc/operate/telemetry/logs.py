"""Logs as JSON lines: each exchange, and each record of the standard logging module."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from extproc.cache.caching import CACHING, HITS, SHADOWS
from extproc.routing.pools.pool import PLACED
from extproc.tools.mcp.call import CALL
from extproc.upstream.prices import NANO
from extproc.words.exchange import Exchange
from extproc.words.runs import run_of

_FOUND = (*HITS, *SHADOWS, "partial")


def describe(exchange: Exchange) -> dict[str, Any]:
    """An exchange as one flat record: never a body, never a credential. Text from outside is cut short."""
    request, answer, route, money = exchange.request, exchange.answer, exchange.route, exchange.money
    entry: dict[str, Any] = {
        "time": time.time(),
        "event": "exchange",
        "id": exchange.id,
        "request_id": request.id[:128],
        "operation": request.operation,
        "status": answer.status,
        "error": exchange.error,
        "outcome": exchange.ending.outcome,
        "duration_ms": round(exchange.seconds * 1000, 3),
    }
    if hasattr(exchange, "consumer"):
        entry["consumer"], entry["team"] = exchange.consumer.name, exchange.consumer.team
        if money.labels:
            entry["labels"] = money.labels
        if run := run_of(exchange):
            entry["run"] = run
    if hasattr(request, "ask"):
        entry["model"], entry["stream"] = request.ask.model[:256], request.ask.stream
    if exchange.findings.guardrails:
        entry["guardrails"] = exchange.findings.guardrails
    if money.denied_by:
        entry["denied_by"] = money.denied_by
    if money.downgraded:
        entry["downgraded"] = money.downgraded
    if route.skipped:
        tried = {target.name for target in route.targets} if route.forwarded else ()
        if skipped := {s.target.name: s.reason for s in route.skipped[:16] if s.target.name not in tried}:
            entry["skipped"] = skipped
    if (caching := exchange.features.get(CACHING)) is not None:
        entry["cache"] = caching.outcome
        if caching.outcome in _FOUND:
            entry["saved_usd"] = None if caching.saved is None else caching.saved / NANO
            if caching.score is not None:
                entry["similarity"] = round(caching.score, 4)
    if (call := exchange.features.get(CALL)) is not None:
        entry |= call.log_fields(exchange)
    elif route.forwarded:
        entry |= _served(exchange)
    return entry


def _served(exchange: Exchange) -> dict[str, Any]:
    """Log fields of a forwarded exchange: target, usage and cost."""
    money, answer = exchange.money, exchange.answer
    usage, target, report = money.usage, answer.target, answer.report
    entry: dict[str, Any] = {
        "attempts": answer.attempts,
        "provider": "" if target is None else target.provider,
        "provider_model": "" if target is None else target.model,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "usage_source": usage.source,
        "cost_usd": None if money.cost is None else money.cost / NANO,
        "complete": exchange.ending.complete,
    }
    if (placed := exchange.features.get(PLACED)) is not None:
        entry["endpoint"] = placed.served
        if placed.waited:
            entry["pool_wait_ms"] = round(placed.waited * 1000, 3)
    if money.price_version:
        entry["price_version"] = money.price_version[:256]
    if money.prompt_saved or money.prompt_extra:
        entry["prompt_saved_usd"] = money.prompt_saved / NANO
        entry["prompt_extra_usd"] = money.prompt_extra / NANO
    if answer.first_token is not None:
        entry["first_token_ms"] = round(answer.first_token * 1000, 3)
    if answer.tries:
        entry["tries"] = [try_.record() for try_ in answer.tries]
    if report is not None:
        entry["response_model"] = report.model[:256]
        entry["finish_reasons"] = [reason[:64] for reason in islice(report.finish_reasons.values(), 8)]
    return entry


def json_line(entry: Mapping[str, Any]) -> str:
    """`entry` as one line of printable ASCII: msgspec leaves DEL, C1 controls and bidi marks in it."""
    line = msgspec.json.encode(entry).decode()
    return line if line.isascii() and line.isprintable() else json.dumps(entry)


class JSONFormatter(logging.Formatter):
    """One JSON line for each record of the standard logging module."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": record.created,
            "event": "log",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = record.exc_info[0].__name__
            entry["traceback"] = _frames(record.exc_info[2])
        return json_line(entry)


def _frames(traceback: Any) -> Sequence[str]:
    """The frames of a traceback, innermost last. The exception's text is left out: it may quote a body or a key."""
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_qualname}")
        traceback = traceback.tb_next
    return frames[-20:]
