"""Conversations that clients expect their provider to keep, for targets that keep nothing. The gateway keeps each turn
for its consumer, and writes all turns into the next request before any other stage reads it.

    request   GoOn       the turns before it, and items it refers to, become its input
    answer    KeepTurn   its items, and those that the request added, are kept under the ids that the client got
    call      ForgetTurn a response that its consumer deletes

If all targets of a model are at one provider that stores answers, that provider keeps the conversation. If the model
has targets elsewhere, too, the gateway keeps the turns, so that each target can continue.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from extproc.access.kept import Ids, is_sealed, owner
from extproc.cache.answers import Answers
from extproc.cache.entry import Entry
from extproc.cache.settings import ConversationSettings
from extproc.routing.catalog import Catalog
from extproc.wire.framing import Frame, Framing
from extproc.wire.framing.patch import replaced
from extproc.words.actions import LocalReply
from extproc.words.errors import BODY_TOO_LARGE, OBJECT_NOT_FOUND, STORE_UNAVAILABLE, Refusal
from extproc.words.exchange import Exchange, FeatureKey

_AT_ONCE = 0.001  # seconds to keep an entry that is to end at once
_encode = msgspec.json.encode
_items = msgspec.json.Decoder(list[Any]).decode


@dataclass(slots=True, frozen=True)
class Turn:
    """The request's part of a turn: the id that it continues, and the JSON of the items that it adds. `alone`: all
    targets of its model are at one provider, which may keep the answer itself.
    """

    previous: str
    added: bytes
    alone: bool


TURN: FeatureKey[Turn] = FeatureKey("turn")
"""Key of the turn, which Recall writes if the gateway keeps the conversation."""


class KeptTurns:
    """Kept turns, by consumer and id. An entry's `dialect` holds the id of the turn before."""

    def __init__(self, answers: Answers, settings: ConversationSettings) -> None:
        self.settings = settings
        self._answers = answers

    def _key(self, consumer: str, id: str) -> bytes:
        name = consumer.encode(errors="surrogatepass")
        data = len(name).to_bytes(4, "big") + name + id.encode(errors="surrogatepass")
        return hashlib.blake2b(data, key=self._answers.secret[:64], digest_size=32, person=b"turn").digest()

    async def find(self, exchange: Exchange, id: str) -> Entry | None:
        """The turn of an id that this consumer got. Use prolongs a turn's time. 503 if the store does not answer."""
        key, now = self._key(owner(exchange.consumer), id), self._answers.now()
        found = await self._answers.find(key)
        if found is None and self._answers.away:
            message = "The store of conversations does not answer: try again, or send the whole conversation."
            raise Refusal(STORE_UNAVAILABLE, message)
        if found is not None and now - found.stored > self.settings.keep / 2:
            found = msgspec.structs.replace(found, stored=now)
            await self._store_entry(exchange, id, found, self.settings.keep)
        return found

    async def keep(self, exchange: Exchange, previous: str, items: Mapping[str, Sequence[Any]]) -> None:
        """Keep lists of items, each list under its id."""
        made = {id: Entry(self._answers.now(), _encode(each), previous) for id, each in items.items()}
        await asyncio.gather(
            *(self._store_entry(exchange, id, entry, self.settings.keep) for id, entry in made.items())
        )

    async def forget(self, exchange: Exchange, ids: Sequence[str]) -> None:
        """Let turns and items end at once."""
        await asyncio.gather(*(self._store_entry(exchange, id, Entry(0.0, b""), _AT_ONCE) for id in ids))

    async def _store_entry(self, exchange: Exchange, id: str, entry: Entry, ttl: float) -> None:
        consumer = exchange.consumer
        await self._answers.keep(self._key(owner(consumer), id), entry, self._answers.owner(consumer.name), ttl)


class GoOn:
    """Writes the earlier turns of a conversation into the request's input, and reads the request anew. 404 if a turn is
    gone, 413 if the turns are too large.
    """

    def __init__(
        self,
        turns: KeptTurns,
        ids: Ids,
        catalog: Catalog,
        read: Callable[[Exchange], None],
        take: Callable[[Exchange, int], None],
    ) -> None:
        self._turns = turns
        self._settings = turns.settings
        self._ids = ids
        self._catalog = catalog
        self._read = read
        self._take = take

    async def __call__(self, exchange: Exchange) -> None:
        how = exchange.request.dialect.offers.stored.objects.turns
        if how is None:
            return
        body = exchange.request.json
        previous, references = how.previous(body), how.references(body)
        alone = self._alone(exchange)
        earlier: Sequence[Any] | None = ()
        found: Mapping[str, Any] = {}
        if previous is not None and not self._is_at_provider(exchange, previous, alone=alone):
            earlier = await self._earlier(exchange, previous)
        elif previous is not None:
            earlier = None
        if references:
            found = await self._items(exchange, references, alone=alone)
        added = how.resolved(how.added(body), found) if found else how.added(body)
        if earlier or found:
            self._write_out(exchange, how.written_out(earlier or (), added, goes_on=earlier is not None))
        if earlier is None or len(found) < len(references) or not how.keepable(body):
            return
        if exchange.request.dialect.offers.stored.keeps(body) and len(kept := _encode(added)) <= self._settings.largest:
            exchange.features[TURN] = Turn(previous or "", kept, alone)

    def _alone(self, exchange: Exchange) -> bool:
        chain, client = self._catalog.resolve(exchange.request.ask.model), exchange.request.dialect
        targets = () if chain is None else chain.targets
        native = all(self._catalog.api(target, client) == client.name for target in targets)
        return native and len({target.provider for target in targets}) < 2

    def _is_at_provider(self, exchange: Exchange, id: str, *, alone: bool) -> bool:
        """True for the id of an object at the one provider of all the model's targets, which knows the conversation
        itself.
        """
        if not alone or not is_sealed(id):
            return False
        found, chain = self._ids.open(owner(exchange.consumer), id), self._catalog.resolve(exchange.request.ask.model)
        return found is not None and chain is not None and found.provider == chain.targets[0].provider

    async def _earlier(self, exchange: Exchange, id: str) -> list[Any] | None:
        """The items of all turns up to `id`; None if the gateway has none of these turns."""
        first, size, lists = id, 0, list[list[Any]]()
        while id:
            entry = await self._turns.find(exchange, id)
            if entry is None:
                if not lists:
                    return None
                message = f"The conversation of {first[:64]!r} is no longer kept as a whole: begin a new one."
                raise Refusal(OBJECT_NOT_FOUND, message)
            size += len(entry.body)
            if size > self._settings.size or len(lists) >= self._settings.steps:
                message = "The conversation is larger than `cache.conversations` allows: begin a new one."
                raise Refusal(BODY_TOO_LARGE, message)
            lists.append(_items(entry.body))
            id = entry.dialect
        return [item for each in reversed(lists) for item in each]

    async def _items(self, exchange: Exchange, ids: Sequence[str], *, alone: bool) -> Mapping[str, Any]:
        """The items that a request refers to, by id, if the gateway has them."""
        ids = [id for id in ids if not self._is_at_provider(exchange, id, alone=alone)][: self._settings.items]
        entries = await asyncio.gather(*(self._turns.find(exchange, id) for id in ids))
        return {id: _items(entry.body)[0] for id, entry in zip(ids, entries, strict=True) if entry is not None}

    def _write_out(self, exchange: Exchange, fields: Mapping[str, Any]) -> None:
        changed = {name: value for name, value in fields.items() if value is not None or name in exchange.request.json}
        body = replaced(exchange.request.body, exchange.request.json, changed)
        if len(body) > self._settings.size:
            message = "The conversation is larger than `cache.conversations.size`: begin a new one."
            raise Refusal(BODY_TOO_LARGE, message)
        self._take(exchange, len(body))
        exchange.request.body, exchange.request.masked, exchange.route.kept.named = body, True, True
        self._read(exchange)


class KeepTurn:
    """A stage of events: keeps the turn before the end of its answer leaves, so that the next request finds it."""

    changes_length = False

    def __init__(self, turns: KeptTurns) -> None:
        self._turns = turns

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return TURN in exchange.features

    async def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        for event in events:
            if event.data is not None and b"complete" in event.data and b'"output"' in event.data:
                await self._keep_turn(exchange, event.data)
        return events

    async def _keep_turn(self, exchange: Exchange, data: bytes) -> None:
        how, turn, report = (
            exchange.request.dialect.offers.stored.objects.turns,
            exchange.features[TURN],
            exchange.answer.report,
        )
        if how is None or len(data) > self._turns.settings.largest:
            return
        found = how.answered(data)
        if found is None or (turn.alone and report is not None and report.kept):
            return
        id, output = found
        single = {each: [item] for each, item in list(how.ids(output).items())[: self._turns.settings.items]}
        await self._turns.keep(exchange, turn.previous, {**single, id: [*_items(turn.added), *output]})


class ForgetTurn:
    """Deletes the gateway's own turn of a response that its consumer deletes. Answers the call itself if no provider
    has the response.
    """

    def __init__(self, turns: KeptTurns) -> None:
        self._turns = turns

    async def __call__(self, exchange: Exchange) -> LocalReply | None:
        how, id = exchange.request.dialect.offers.stored.objects.turns, exchange.request.endpoint.id
        if (
            how is None
            or exchange.request.head.method != "DELETE"
            or (entry := await self._turns.find(exchange, id)) is None
        ):
            return None
        await self._turns.forget(exchange, [id, *how.ids(_items(entry.body))])
        if is_sealed(id):
            return None
        return LocalReply(200, _encode(how.deleted(id)), {"content-type": "application/json"})
