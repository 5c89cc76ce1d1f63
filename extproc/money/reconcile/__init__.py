"""Reconciliation: a provider's bill, compared with the ledger by day, key and model.

A bill is a provider's own report of costs. It is read as a stream of `Line`s, whatever its format; `bills` has a file
for each provider. `Billed` adds up the lines, and `compare` sets them beside the ledger's sums and names a cause for
each part of a difference.

Providers write a model in their own words: `claude-sonnet-4-5-20250929`, `USE1-Claude4.5Sonnet-input-tokens`,
`Gemini 2.5 Flash Text Input - Predictions`. `family` is equal for all spellings of one model; dates of snapshots are
left out, so snapshots of a model are compared together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

Kind = Literal["input", "cached", "write", "output", "fee"]
"""Kinds of charges: tokens of input, tokens read from and written to a prompt cache, tokens of output, and any
other.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)
TOKENS: tuple[Kind, ...] = KINDS[:-1]

MAX_CELLS = 200_000
"""Most combinations of day, key and model in one bill. Memory grows with cells, never with lines."""
ZERO = Decimal(0)


class BillError(ValueError):
    """The bill cannot be read; the text names the place and the reason."""


class Line(NamedTuple):
    """One line of a bill. `cost` is in USD, `quantity` in tokens; None: the bill does not tell. `keys` are the
    provider's names of the payer, the narrowest first: an API key, a project or account. `day` is a UTC date,
    `2026-11-01`.
    """

    day: str
    keys: tuple[str, ...]
    model: str
    kind: Kind
    cost: Decimal | None = None
    quantity: Decimal | None = None
    requests: int = 0


_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("fee", re.compile(r"storage|session|search|container|interpreter|second|hour|grounding", re.IGNORECASE)),
    ("write", re.compile(r"cache.{0,10}(?:write|creation)|\bcd[ -]wr\b", re.IGNORECASE)),
    ("cached", re.compile(r"(?<!un)cache|caching|\bc*chd\b|\bcd\b", re.IGNORECASE)),
    ("output", re.compile(r"output|\boutp?\b|\bopt\b", re.IGNORECASE)),
    ("input", re.compile(r"input|\binp?\b|token", re.IGNORECASE)),
)


@lru_cache(4096)
def kind_of(text: str) -> Kind:
    """The kind that a provider's words name: `cached input`, `cache-write-input-token-count`, `Outp glbl Tokens`."""
    return next((kind for kind, pattern in _KINDS if pattern.search(text)), "fee")


_VENDOR = re.compile(r"^(?:[a-z][a-z-]*\.)+(?=[a-z])")  # us.anthropic.claude-…
_VERSION = re.compile(
    r"-v\d+(?::\d+)?$|-\d+:\d+$|[-@ _]\d{4}-\d\d-\d\d|[-@ _]20\d{6}|[-_ ](?:0[1-9]|1[0-2])[0-3]\d(?=[-_ ]|$)|-latest$"
)
_JOINED = re.compile(r"(?<=[a-z])(?=[A-Z])")  # NovaPro
_WORDS = re.compile(r"[a-z]+|\d+")


@lru_cache(4096)
def family(model: str) -> str:
    """The same text for all spellings of a model: its words in order of the alphabet, without dates and versions."""
    name = _VENDOR.sub("", _JOINED.sub(" ", model.rpartition("/")[2]).strip().lower())
    words = [word for word in _WORDS.findall(_VERSION.sub("", name)) if word.strip("0")]
    if words and words[0].isdecimal():  # Azure's meters of GPT models: `5.4 mini inp Gl 1M Tokens`
        words.append("gpt")
    return " ".join(sorted(words))


@dataclass(slots=True)
class Charges:
    """Costs (USD) and quantities (tokens) of one cell of a bill, by kind. `counted` are quantities of lines without a
    cost, because some providers report tokens separately. `slack` is the most USD by which rounding changed the costs
    of its lines.
    """

    cost: dict[Kind, Decimal] = field(default_factory=dict)
    quantity: dict[Kind, Decimal] = field(default_factory=dict)
    counted: dict[Kind, Decimal] = field(default_factory=dict)
    requests: int = 0
    slack: Decimal = ZERO

    def tokens(self, kind: Kind) -> Decimal:
        return self.quantity.get(kind) or self.counted.get(kind, ZERO)

    def rate(self, kind: Kind) -> Decimal | None:
        """USD of a token; None where no token of the kind was billed."""
        tokens = self.tokens(kind)
        return self.cost.get(kind, ZERO) / tokens if tokens else None

    @property
    def total(self) -> Decimal:
        return sum(self.cost.values(), ZERO)


class Cell(NamedTuple):
    """The unit of comparison. `provider` is a key of `providers` in the settings."""

    day: str
    provider: str
    family: str


@dataclass(slots=True)
class Billed:
    """A bill, added up. `keys` gives the provider of the settings for each key of the bill; without keys all lines
    belong to `provider`. Lines of other keys are summed in `elsewhere`. `start` and `end` are UTC dates, the end
    exclusive.
    """

    provider: str
    start: str
    end: str
    keys: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)  # name in the bill -> name in the ledger
    cells: dict[Cell, Charges] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # family -> the first spelling
    elsewhere: dict[str, Decimal] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Add a line. Raises BillError beyond MAX_CELLS."""
        if not self.start <= line.day < self.end:
            return
        provider = next((self.keys[key] for key in line.keys if key in self.keys), "") if self.keys else self.provider
        if not provider:
            key = next(filter(None, line.keys), "")
            if key not in self.elsewhere and len(self.elsewhere) >= MAX_CELLS:
                raise BillError(f"more than {MAX_CELLS:,} keys that no --key names")
            self.elsewhere[key] = self.elsewhere.get(key, ZERO) + (line.cost or ZERO)
            return
        model = self.aliases.get(line.model, line.model)
        cell = Cell(line.day, provider, family(model))
        found = self.cells.get(cell)
        if found is None:
            if len(self.cells) >= MAX_CELLS:
                raise BillError(f"more than {MAX_CELLS:,} days, keys and models: compare a shorter time")
            found = self.cells[cell] = Charges()
            self.names.setdefault(cell.family, model)
        found.requests += line.requests
        if line.quantity is not None:
            quantities = found.counted if line.cost is None else found.quantity
            quantities[line.kind] = quantities.get(line.kind, ZERO) + line.quantity
        if line.cost is not None:
            found.cost[line.kind] = found.cost.get(line.kind, ZERO) + line.cost
            found.slack += Decimal((0, (5,), int(line.cost.as_tuple().exponent) - 1))
