"""Batches of embeddings, kept by input: a provider is asked only for inputs that are not kept.

A batch is a request with several inputs, whose answers do not depend on each other. The answer to each input is kept as
if it were a request of its own, whatever batch it came in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from extproc.cache.caching import CACHING
from extproc.cache.entry import Entry
from extproc.cache.key import Keys
from extproc.wire.framing import Frame, Framing
from extproc.words.errors import PROVIDER_BAD_ANSWER, Refusal
from extproc.words.exchange import Exchange

MOST = 256
"""Most inputs of a batch that is kept by input. A longer batch is kept as a whole, because each input is a call of the
store.
"""


class Batch:
    """The inputs of a request, and the kept entries for some of them."""

    __slots__ = ("entries", "inputs", "keys", "weights")

    def __init__(self, keys: Sequence[bytes], inputs: Sequence[object]) -> None:
        self.keys = keys
        self.inputs = inputs
        self.weights = [len(one) if isinstance(one, str | list) else 1 for one in inputs]
        self.entries: list[Entry | None] = [None] * len(inputs)

    async def find(self, find: Callable[[bytes], Awaitable[Entry | None]]) -> None:
        self.entries = list(await asyncio.gather(*[find(key) for key in self.keys]))

    @property
    def missing(self) -> Sequence[int]:
        return [place for place, entry in enumerate(self.entries) if entry is None]

    @property
    def cost(self) -> int | None:
        """Nano-USD that the kept entries once cost; None if a price is unknown."""
        costs = [entry.cost for entry in self.entries if entry is not None]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None


def batch_of(keys: Keys, exchange: Exchange, scope: str) -> Batch | None:
    """The batch of a request; None for a request that is kept as a whole."""
    apart = exchange.request.dialect.offers.reuse.inputs
    inputs = None if apart is None else apart.of(exchange.request.json)
    if apart is None or inputs is None or len(inputs) > MOST:
        return None
    found = keys.inputs(exchange, scope, apart.field, inputs)
    return None if found is None else Batch(found, inputs)


def whole(exchange: Exchange, batch: Batch) -> Entry | None:
    """The answer to a batch whose inputs are all kept, as an entry; None if an entry cannot be read. In shadow mode it
    has no body.
    """
    entries = [entry for entry in batch.entries if entry is not None]
    first = min(entries, key=lambda entry: entry.stored)
    body = b"" if first.is_shadow else _joined(exchange, [entry.body for entry in entries])
    if body is None:
        return None
    return Entry(first.stored, body, first.dialect, False, first.deployment, batch.cost)


def parts(exchange: Exchange, batch: Batch, entry: Entry) -> Sequence[tuple[bytes, Entry]]:
    """The new entries for the inputs that a provider was asked for, by their keys. `entry` is the provider's answer."""
    missing = batch.missing
    weights = [batch.weights[place] for place in missing]
    bodies: Sequence[bytes] | None = [b""] * len(missing)
    if not entry.is_shadow:
        bodies = (
            exchange.request.dialect.offers.reuse.inputs.split(entry.body, weights)
            if exchange.request.dialect.offers.reuse.inputs is not None
            else None
        )
    if bodies is None:
        return []
    total, found = sum(weights) or 1, []
    for place, weight, body in zip(missing, weights, bodies, strict=True):
        cost = None if entry.cost is None else entry.cost * weight // total
        found.append((batch.keys[place], Entry(entry.stored, body, entry.dialect, False, entry.deployment, cost)))
    return found


class Join:
    """Merges kept answers into the provider's answer to a batch of which a part was kept."""

    changes_length = True

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return _is_partial(exchange) and exchange.answer.status == 200

    def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        batch: Batch = exchange.features[CACHING].batch
        missing = batch.missing
        weights = [batch.weights[place] for place in missing]
        for event in events:
            given = (
                None if event.data is None else exchange.request.dialect.offers.reuse.inputs.split(event.data, weights)
            )
            bodies = [b"" if entry is None else entry.body for entry in batch.entries]
            for place, body in zip(missing, given or (), strict=False):
                bodies[place] = body
            if given is None or (data := _joined(exchange, bodies)) is None:
                event.raw, event.data = b"", None  # drop the event: clients would take some vectors for all
                message = "The provider did not answer with a vector for each input; send the request again."
                raise Refusal(PROVIDER_BAD_ANSWER, message)
            event.raw = event.data = data
        return events


def _is_partial(exchange: Exchange) -> bool:
    caching = exchange.features.get(CACHING)
    return caching is not None and caching.outcome == "partial"


def _joined(exchange: Exchange, bodies: Sequence[bytes]) -> bytes | None:
    try:
        joined: bytes = exchange.request.dialect.offers.reuse.inputs.join(bodies)
    except ValueError:
        return None
    return joined
