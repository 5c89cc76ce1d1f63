"""What an exchange holds of its budgets while it is under way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Claim = TypeVar("Claim")
"""What a request wants of one budget, see `budgets.budget`."""


@dataclass(slots=True)
class Reservation(Generic[Claim]):
    """What an exchange holds. `input_tokens` and `output_tokens` are upper bounds of what it can use."""

    id: str
    input_tokens: int
    output_tokens: int
    outputs: Sequence[int] = ()  # the bound at each target
    inputs: Sequence[int] = ()  # the same of the input
    claims: Sequence[Claim] = ()  # in the order of the holds
    calls: Sequence[Claim] = ()  # of budgets for one request, which hold nothing
    held: bool = False  # False: the store knows nothing of it
    unseen: bool = False  # the body only names some of the input: no count of it is one of all
    output: int = 0  # tokens of output that the claims have room for
    enough: float = field(default=math.inf)  # bytes of answer for which what is held is enough
