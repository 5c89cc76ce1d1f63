"""Blocks of a prompt as a chain of hashes, and the index of the endpoints that have them cached.

Servers such as vLLM cache a prompt by blocks of tokens, each hashed with its parent. Without the tokenizer, blocks of
text stand in for them: an endpoint that has served a prompt has all its blocks, so two prompts share what their chains
share. The adapter and the cache salt begin a chain, because equal text gives other tensors there.

The hashes are Python's own, with a random seed for each process: no client can construct a collision.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

BLOCK = 512  # characters, about 128 tokens
MOST_BLOCKS = 256  # of one prompt; a longer one is told apart by its first 128 KiB
MOST_KNOWN = 50_000  # blocks in an index, about 12 MB
_MOST_HOLDERS = 8  # endpoints noted for one block, the latest
_STEPS = 16  # blocks looked at below the deepest known one
_ENOUGH = 3  # endpoints found


def chain(texts: Iterable[str], *salt: str) -> Sequence[int]:
    """Hashes of the whole blocks of a prompt, each with all blocks before it. `salt` is what separates caches."""
    text, room = [], BLOCK * MOST_BLOCKS
    for part in texts:
        text.append(part[:room])
        room -= len(text[-1]) + 1
        if room <= 0:
            break
    whole = "\n".join(text)
    found, parent = [], hash(salt)
    for start in range(0, len(whole) - BLOCK + 1, BLOCK):
        parent = hash((parent, whole[start : start + BLOCK]))
        found.append(parent)
    return found


class PrefixIndex:
    """Endpoints by the blocks that they should have cached. It keeps the blocks that were used last."""

    def __init__(self, ttl: float = 600.0, most: int = MOST_KNOWN) -> None:
        self.ttl = ttl
        self._most = most
        self._holders: OrderedDict[int, dict[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._holders)

    def find(self, blocks: Sequence[int], now: float) -> Mapping[str, tuple[int, float]]:
        """Addresses of the endpoints with the longest beginnings of a prompt: the count of blocks, and the time at
        which they were served last.
        """
        holders, low, high = self._holders, 0, len(blocks)
        while low < high:  # blocks are noted and forgotten with their parents, so the known ones come first
            middle = (low + high) // 2
            if blocks[middle] in holders:
                low = middle + 1
            else:
                high = middle
        found: dict[str, tuple[int, float]] = {}
        for depth in range(low, max(0, low - _STEPS), -1):
            for address, at in holders.get(blocks[depth - 1], {}).items():
                if address not in found and now - at < self.ttl:
                    found[address] = depth, at
            if len(found) >= _ENOUGH:
                break
        return found

    def note(self, blocks: Sequence[int], address: str, now: float) -> None:
        """Note an endpoint that gets a prompt."""
        holders = self._holders
        for block in reversed(blocks):  # parents last: they are forgotten last
            entry = holders.get(block)
            if entry is None:
                holders[block] = {address: now}
                continue
            holders.move_to_end(block)
            entry.pop(address, None)
            entry[address] = now
            if len(entry) > _MOST_HOLDERS:
                del entry[next(iter(entry))]
        while len(holders) > self._most:
            holders.popitem(last=False)
