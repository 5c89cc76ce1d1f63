"""Counts the input of a request exactly, for models whose tokens are known: where a bound in bytes finds no room."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from extproc.budgets import tokenizer
from extproc.words.exchange import Exchange, Target

_MOST = 4 << 20
"""Bytes that are counted; each byte beyond is a token."""
_AT_ONCE = 2
"""Requests counted at the same time; for others the bound in bytes decides."""


class Exact:
    """`kinds` are those of the providers, by name."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = kinds
        self._busy = 0

    def fits(self, target: Target) -> bool:
        """True when the model's encoding is known."""
        return tokenizer.fits(self.kinds.get(target.provider, ""), target.model)

    async def count(self, exchange: Exchange) -> int | None:
        """Upper bound of the text's tokens at the models that fit, see `beside_text`. None where counting is not
        possible, or `_AT_ONCE` requests are being counted.
        """
        if self._busy >= _AT_ONCE or exchange.shed:
            return None
        self._busy += 1
        work = asyncio.ensure_future(
            asyncio.to_thread(tokenizer.bound, exchange.json, exchange.ask.image_data, _MOST, exchange.dialect.fields),
        )
        work.add_done_callback(self._done)
        return await asyncio.shield(work)  # a thread goes on when the client disconnects, and counts until it ends

    async def about(self, exchange: Exchange) -> int | None:
        """Estimated tokens of the input at any model. None as for `count`."""
        found = await self.count(exchange)
        return None if found is None else found + exchange.ask.image_tokens

    def _done(self, work: asyncio.Future[int | None]) -> None:
        self._busy -= 1
        if not work.cancelled():
            work.exception()  # reads the exception, which nothing else awaits any more
