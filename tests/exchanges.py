"""Exchanges for tests of single stages."""

from __future__ import annotations

from typing import Any

from extproc.words.exchange import ClientRequest, Exchange, RequestHead


def new_exchange(id: str, head: RequestHead | None = None) -> Exchange:
    """An exchange of which only the head of the request is known."""
    return Exchange(id, ClientRequest(head or RequestHead("POST", "", {})))


def write(exchange: Exchange, **fields: Any) -> None:
    """Write fields, each in the group that has it."""
    for name, value in fields.items():
        groups = (exchange.request, exchange.findings, exchange.route, exchange.money, exchange.answer)
        [group] = [group for group in groups if name in type(group).__slots__]
        setattr(group, name, value)
