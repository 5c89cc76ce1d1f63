"""The time that a vLLM server takes, as plain values: a batch that changes at each step, a queue, and a prefix cache.

One `Engine` is one server. `step` gives the seconds of its next step and the events after it; its caller keeps the
clock. It follows vLLM's V1 scheduler: running requests come first, prompts are computed in chunks of a step's token
budget, a request is admitted when its blocks are free, and when none is left the latest request loses its blocks and
begins again. Blocks of 16 tokens are cached under a hash with their parents; the unused block that was used longest ago
is evicted. A token is four characters.

A step takes as long as the slower of two: reading the weights and the KV cache from memory, and the arithmetic of its
tokens. Sizes are those of Llama 3.1 8B in bf16 (config.json of meta-llama: 8.03e9 parameters, 32 layers, 8 KV heads of
128), the machine is NVIDIA's data sheet of the A100 80 GB SXM (2,039 GB/s, 312 TFLOPS in bf16), of which servers reach
about 60 % of the bandwidth and 50 % of the arithmetic.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

BLOCK = 16  # tokens
CHARACTERS = 4  # a token has about this many
_PARAMETERS = 8.03e9
_KV_BYTES = 2 * 32 * 8 * 128 * 2  # a token takes keys and values, layers, heads, dimensions, bytes of a number
_BANDWIDTH = 0.6 * 2039e9
_ARITHMETIC = 0.5 * 312e12
_OVERHEAD = 0.002  # seconds of a step outside the GPU
_MEMORY = 0.9 * 80e9 - 2 * _PARAMETERS - 4e9  # bytes left for the KV cache: gpu_memory_utilization 0.9, activations


def hashes(text: str, known: Sequence[int] = ()) -> list[int]:
    """Hashes of the whole blocks of a text, each with all blocks before it. `known` are those of its beginning."""
    found, size = [*known], BLOCK * CHARACTERS
    parent = found[-1] if found else 0
    for start in range(len(found) * size, len(text) - size + 1, size):
        parent = hash((parent, text[start : start + size]))
        found.append(parent)
    return found


@dataclass(slots=True, eq=False)
class Work:
    """A request in the server: `tokens` of a prompt with its `blocks`, and the tokens to generate. `after` are the
    blocks of prompt and answer.
    """

    tokens: int
    output: int
    blocks: Sequence[int]
    after: Sequence[int] = ()
    cached: int = 0  # tokens found in the prefix cache at its last admission
    computed: int = 0  # tokens of the prompt in the KV cache
    generated: int = 0
    held: list[int] = field(default_factory=list)  # its cached blocks, by hash
    own: int = 0  # its blocks that are not cached


@dataclass(slots=True)
class Step:
    """A step: its `seconds`, the requests that have their first token after it, and those that are complete."""

    seconds: float
    first: list[Work] = field(default_factory=list)
    done: list[Work] = field(default_factory=list)


class Engine:
    """One server with `blocks` of KV cache."""

    def __init__(self, blocks: int = int(_MEMORY / _KV_BYTES / BLOCK), batch: int = 2048, most: int = 256) -> None:
        self.blocks = blocks
        self._batch = batch  # tokens of a step: max_num_batched_tokens
        self._most = most  # requests at once: max_num_seqs
        self.waiting: deque[Work] = deque()
        self.running: list[Work] = []
        self.queries = 0  # counters: tokens looked up and found in the prefix cache
        self.hits = 0
        self.preempted = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.busy = 0.0  # seconds in steps
        self._blank = blocks
        self._users: dict[int, int] = {}  # requests that use a cached block
        self._unused: OrderedDict[int, None] = OrderedDict()  # cached blocks without users, the longest unused first

    @property
    def usage(self) -> float:
        """Share of the KV cache that requests use."""
        return 1 - (self._blank + len(self._unused)) / self.blocks

    def metrics(self) -> str:
        """The page of `/metrics`, with vLLM's names."""
        values = {
            "num_requests_running": len(self.running),
            "num_requests_waiting": len(self.waiting),
            "kv_cache_usage_perc": round(self.usage, 6),
            "prefix_cache_queries_total": self.queries,
            "prefix_cache_hits_total": self.hits,
            "num_preemptions_total": self.preempted,
            "prompt_tokens_total": self.prompt_tokens,
            "generation_tokens_total": self.generation_tokens,
        }
        return "".join(f'vllm:{name}{{engine="0",model_name="llama"}} {value}\n' for name, value in values.items())

    def add(self, work: Work) -> None:
        """Queue a request."""
        self.waiting.append(work)

    def drop(self, work: Work) -> None:
        """Forget a request whose client left."""
        if work in self.waiting:
            self.waiting.remove(work)
        elif work in self.running:
            self.running.remove(work)
            self._release(work)

    def step(self) -> Step | None:
        """Compute one step; None when there is nothing to do."""
        for work in [*self.running]:
            if work in self.running and work.generated and (work.tokens + work.generated) % BLOCK == 1:
                self._grow(work)
        decoding = [work for work in self.running if work.generated]
        room, prefilled, chunks = self._batch - len(decoding), 0, []
        for work in self.running:
            if not work.generated and room > 0:
                chunk = min(room, work.tokens - work.computed)
                chunks.append((work, chunk))
                room -= chunk
        while room > 0 and self.waiting and len(self.running) < self._most and self._admit(self.waiting[0]):
            work = self.waiting.popleft()
            self.running.append(work)
            chunk = min(room, work.tokens - work.computed)
            chunks.append((work, chunk))
            room -= chunk
        if not decoding and not chunks:
            return None
        prefilled = sum([chunk for _, chunk in chunks])
        read = 2 * _PARAMETERS + _KV_BYTES * sum([work.computed + work.generated for work in decoding])
        counted = 2 * _PARAMETERS * (prefilled + len(decoding))
        step = Step(_OVERHEAD + max(read / _BANDWIDTH, counted / _ARITHMETIC))
        self.busy += step.seconds
        for work, chunk in chunks:
            work.computed += chunk
            if work.computed == work.tokens:
                step.first.append(work)
        for work in [*decoding, *step.first]:
            work.generated += 1
            if work.generated >= work.output:
                step.done.append(work)
        self.prompt_tokens += prefilled
        self.generation_tokens += len(decoding) + len(step.first)
        for work in step.done:
            self.running.remove(work)
            self._release(work)
            self._keep(work.after[len(work.blocks) :])
        return step

    # --- blocks

    def _admit(self, work: Work) -> bool:
        """Give a request its blocks: those that are cached, and new ones. False when there are too few."""
        found = 0
        most = (work.tokens - 1) // BLOCK  # the last token is always computed: its answer is needed
        while found < min(most, len(work.blocks)) and work.blocks[found] in self._users:
            found += 1
        needed = -(-work.tokens // BLOCK) - found
        spare = sum([block in self._unused for block in work.blocks[:found]])
        if needed > self._blank + len(self._unused) - spare:
            return False
        work.cached = work.computed = found * BLOCK
        self.queries += work.tokens
        self.hits += work.cached
        for block in work.blocks[:found]:
            self._unused.pop(block, None)
            self._users[block] += 1
        self._take(needed)
        work.held = [*work.blocks[:found]]
        for block in work.blocks[found:]:
            if block not in self._users:
                self._users[block] = 1
                work.held.append(block)
        work.own = needed - (len(work.held) - found)
        return True

    def _grow(self, work: Work) -> None:
        """One more block for a request that generates; the latest request gives its blocks when none is left."""
        while not self._blank and not self._unused:
            victim = self.running.pop()
            self._release(victim)
            victim.computed = victim.cached = 0
            victim.tokens, victim.output = victim.tokens + victim.generated, victim.output - victim.generated
            victim.generated = 0
            self.waiting.appendleft(victim)
            self.preempted += 1
            if victim is work:
                return
        self._take(1)
        work.own += 1

    def _take(self, count: int) -> None:
        blank = min(self._blank, count)
        self._blank -= blank
        for _ in range(count - blank):
            evicted, _ = self._unused.popitem(last=False)
            del self._users[evicted]

    def _release(self, work: Work) -> None:
        """Free a request's blocks. Cached ones stay until they are evicted, the end of a prompt first."""
        self._blank += work.own
        for block in reversed(work.held):
            self._users[block] -= 1
            if not self._users[block]:
                self._unused[block] = None
        work.held, work.own = [], 0

    def _keep(self, blocks: Sequence[int]) -> None:
        """Cache the blocks of an answer."""
        for block in blocks:
            if block not in self._users and self._blank:
                self._blank -= 1
                self._users[block] = 0
                self._unused[block] = None
