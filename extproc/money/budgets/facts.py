"""Facts of an exchange, kept in its reservation: if this process dies, another process writes them into the ledger."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from extproc.stores import MAX_FACTS
from extproc.words.exchange import Exchange

_LONGEST = 256  # characters of a text, as in the ledger


class Facts(msgspec.Struct, array_like=True, frozen=True):
    """Facts that the names of an exchange's counts do not hold. Those of the target are empty if several targets could
    have served.
    """

    request_id: str = ""
    consumer: str = ""
    team: str = ""
    key: str = ""
    labels: Mapping[str, str] = {}
    operation: str = ""
    model: str = ""  # the requested model
    stream: bool = False
    target: str = ""
    provider: str = ""
    provider_model: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Facts).decode


def pack_facts(exchange: Exchange) -> bytes:
    """The facts of a request that is about to be forwarded. Labels that take too much room are left out."""
    consumer, ask, target = exchange.consumer, exchange.request.ask, exchange.route.targets[0]
    targets = exchange.route.targets
    alone = len(targets) == 1 or all(other.name == target.name for other in targets)
    served = (target.name, target.provider, target.model) if alone else ("", "", "")
    facts = Facts(
        exchange.request.id[:_LONGEST],
        consumer.name,
        consumer.team,
        exchange.money.key,
        exchange.money.labels,
        exchange.request.operation,
        ask.model[:_LONGEST],
        ask.stream,
        *served,
    )
    try:
        packed = _encode(facts)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold
        return b""
    if len(packed) > MAX_FACTS:
        packed = _encode(msgspec.structs.replace(facts, labels={}))
    return packed if len(packed) <= MAX_FACTS else b""


def unpack_facts(packed: bytes) -> Facts:
    """The facts in a reservation; empty facts if another release wrote none, or wrote them in another form."""
    try:
        return _decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Facts()
