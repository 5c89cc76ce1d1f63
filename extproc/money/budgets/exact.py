"""Counts tokens off the event loop: the input of a request exactly, for models whose tokens are known, where a bound in
bytes finds no room; and at the end of an exchange the text that passed, if its provider reported no counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from extproc.money.budgets import counter, tokenizer
from extproc.money.budgets.bounds import estimate, input_estimate, without
from extproc.money.budgets.passed import of_request, of_sample
from extproc.words.exchange import Exchange, Target
from extproc.words.sample import BLOCKS, Sample

_MOST = 4 << 20
"""Most bytes that are counted; each byte beyond them is taken for a token."""
_AT_ONCE = 2
"""Most requests counted at the same time; for further requests the bound in bytes decides."""
_MANY = 32
"""Waiting counts beyond which a further count reads less of its text. A crowd of clients that leave at once must not
keep the thread busy for long.
"""
_FEW = 32
"""Pieces of its text that a count reads then."""
_MOST_WAITING = 1024
"""Most counts that wait; the text of a further count is estimated by its size."""
_PATIENCE = 20.0
"""Seconds that an exchange waits for its count; then the text is estimated by its size. A stop waits for exchanges."""


class Exact:
    """Counts on threads. `kinds` are the kinds of providers, by the provider's name."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = kinds
        self._busy = 0
        self._waiting = 0  # number of waiting counts of text that passed

    def fits(self, target: Target) -> bool:
        """True when the model's encoding is known."""
        return tokenizer.fits(self.kinds.get(target.provider, ""), target.model)

    async def count(self, exchange: Exchange) -> int | None:
        """Upper bound of the text's tokens at the models that fit, see `beside_text`. None if counting is not possible,
        or `_AT_ONCE` requests are being counted.
        """
        if self._busy >= _AT_ONCE or exchange.request.shed:
            return None
        self._busy += 1
        work = asyncio.ensure_future(
            asyncio.to_thread(
                counter.bound,
                exchange.request.json,
                exchange.request.ask.image_data,
                _MOST,
                exchange.request.dialect.fields,
            ),
        )
        work.add_done_callback(self._done)
        # The thread goes on when the client disconnects, and counts as busy until it ends.
        return await asyncio.shield(work)

    async def input_passed(self, exchange: Exchange) -> int:
        """Tokens of the input in the request, if the provider did not report them. One thread counts one exchange after
        the other: at most 256 KiB of each, because of larger bodies a `Sample` is kept, and 8 KiB of each while `_MANY`
        wait.
        """
        found = await self._wait_for(_input_passed, exchange)
        return input_estimate(exchange) if found is None else found

    async def output_passed(self, exchange: Exchange) -> int:
        """Tokens of the answer's text so far; see `input_passed`."""
        found = await self._wait_for(_output_passed, exchange)
        if found is None:
            return 0 if exchange.answer.report is None else estimate(exchange.answer.report.output_bytes)
        return found

    async def _wait_for(self, count: Callable[[Exchange, int], int], exchange: Exchange) -> int | None:
        if self._waiting >= _MOST_WAITING:
            counter.log_failure("too many texts wait")
            return None
        blocks = BLOCKS if self._waiting < _MANY else _FEW
        self._waiting += 1
        try:
            work = asyncio.get_running_loop().run_in_executor(_thread(), count, exchange, blocks)
            done, _ = await asyncio.wait((work,), timeout=_PATIENCE)
            if not done:
                work.cancel()
                counter.log_failure("it takes too long")
                return None
            return work.result()
        finally:
            self._waiting -= 1

    async def about(self, exchange: Exchange) -> int | None:
        """Estimated tokens of the input at any model; None under the conditions of `count`."""
        found = await self.count(exchange)
        return None if found is None else found + exchange.request.ask.image_tokens

    def _done(self, work: asyncio.Future[int | None]) -> None:
        self._busy -= 1
        if not work.cancelled():
            work.exception()  # marks the exception as read, because nothing awaits this work


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "tokens")


def _input_passed(exchange: Exchange, blocks: int) -> int:
    ask, model = exchange.request.ask, _model(exchange)
    if ask.free:
        return 0
    if ask.file_bytes:
        return input_estimate(exchange)
    seen = exchange.request.seen
    if seen is None and blocks < BLOCKS:
        seen = Sample(without(exchange.request.body, ask.image_data))
    if seen is not None:
        found = of_sample(seen.less(blocks), model, json=True)
    else:
        found = of_request(exchange.request.json, ask.image_data, exchange.request.dialect.fields, model)
    return round(found) + ask.image_tokens


def _output_passed(exchange: Exchange, blocks: int) -> int:
    report = exchange.answer.report
    if report is None or not report.output_bytes:
        return 0
    text = of_sample(report.sample.less(blocks), _model(exchange), size=report.output_bytes)
    return max(round(text), report.output_events)


def _model(exchange: Exchange) -> str:
    return "" if exchange.answer.target is None else exchange.answer.target.model
