"""Prompts that change at their beginning with every call, so that no provider's prompt cache can help.

The usual reason is a time, a date or an id in the system prompt. For the latest consumers and models, digests of blocks
of tools and system prompt are kept, never text.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque

import msgspec

from extproc.words.exchange import Exchange

_LEAST = 1024  # tokens of input: providers keep no shorter prompts
_CALLS = 10  # calls in a row with a new beginning before advice is given
_BLOCK, _BLOCKS = 256, 64  # bytes of a block; most blocks that are compared
_KNOWN = 8  # most beginnings that a consumer may alternate between
_MOST = 1000  # most pairs of consumer and model
_encode = msgspec.json.Encoder().encode


class _Seen:
    __slots__ = ("at", "blocks", "changes", "known")

    def __init__(self) -> None:
        self.blocks: list[bytes] = []  # digests of the latest beginning
        self.known: deque[bytes] = deque(maxlen=_KNOWN)
        self.changes = 0  # changes of the beginning in a row
        self.at = 0  # index of the block that changed last


class Prefixes:
    """The beginnings of prompts, by consumer and model."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], _Seen] = OrderedDict()

    def warning(self, exchange: Exchange) -> str:
        """Advice about the prompt of an ended exchange; usually empty. Only long prompts without tokens from a cache
        are read.
        """
        usage = exchange.money.usage
        if usage.input_tokens < _LEAST or usage.cached_tokens * 2 > usage.input_tokens or exchange.request.shed:
            return ""
        try:
            steady, _ = exchange.request.dialect.offers.reuse.prefix(exchange.request.json)
            data = _encode(steady) if steady else b""
        except (AttributeError, UnicodeEncodeError, RecursionError):  # no body, or a body beyond JSON
            return ""
        if not data:
            return ""
        key = exchange.consumer.name, exchange.request.ask.model[:256]
        seen = self._seen.setdefault(key, _Seen())
        self._seen.move_to_end(key)
        if len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        return _compared(seen, data[: _BLOCK * _BLOCKS])


def _compared(seen: _Seen, data: bytes) -> str:
    blocks = [hashlib.blake2b(data[at : at + _BLOCK], digest_size=8).digest() for at in range(0, len(data), _BLOCK)]
    whole = hashlib.blake2b(b"".join(blocks), digest_size=8).digest()
    if whole in seen.known:
        seen.changes = 0
    elif seen.blocks:
        seen.changes += 1
        pairs = enumerate(zip(seen.blocks, blocks, strict=False))
        seen.at = next((at for at, (old, new) in pairs if old != new), min(len(seen.blocks), len(blocks)))
    seen.known.append(whole)
    seen.blocks = blocks
    if seen.changes < _CALLS:
        return ""
    return (
        f"The tools or the system prompt changed in each of the last {seen.changes} calls, from about byte "
        f"{seen.at * _BLOCK} on: the provider's prompt cache cannot help. Move what changes behind what stays."
    )
