"""`/v1/messages/count_tokens` for models whose provider cannot count: the gateway answers with an estimate."""

from __future__ import annotations

import msgspec

from extproc.money.budgets import estimate
from extproc.routing.catalog import Catalog
from extproc.words.actions import LocalReply
from extproc.words.exchange import Exchange

OPERATION = "count_tokens"
_IMAGE_TOKENS = 1600  # about Anthropic's count for a large image


class CountTokens:
    """Answers if the first granted target cannot count tokens; leaves other requests alone."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, exchange: Exchange) -> LocalReply | None:
        if exchange.request.operation != OPERATION:
            return None
        if self._catalog.api(exchange.route.targets[0], exchange.request.dialect) is not None and not exchange.attached:
            return None
        return _estimate(exchange)


class CountAnyway:
    """Answers if all targets that can count tokens failed."""

    def __call__(self, exchange: Exchange) -> LocalReply | None:
        if exchange.request.operation != OPERATION or exchange.attached:
            return None
        status = exchange.answer.head.status
        return _estimate(exchange) if exchange.route.forwarded and (status >= 500 or status in _FAILED) else None


_FAILED = (401, 403, 408, 429)  # statuses about the gateway's account, not about the request


def _estimate(exchange: Exchange) -> LocalReply:
    ask = exchange.request.ask
    tokens = estimate(len(exchange.request.body) - ask.image_bytes) + ask.images * _IMAGE_TOKENS
    encode_count = exchange.request.dialect.offers.encode_count
    assert encode_count is not None, exchange.request.dialect.name
    body = msgspec.json.encode(encode_count(tokens))
    return LocalReply(200, body, {"content-type": "application/json"}, OPERATION)
