"""A reservation: the amounts an exchange holds of its budgets while it is under way."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Claim = TypeVar("Claim")
"""An amount that a request claims of one budget, see `budgets.budget`."""


@dataclass(slots=True)
class Reservation(Generic[Claim]):
    """The amounts an exchange holds. `input_tokens` and `output_tokens` are upper bounds of its use."""

    id: str
    input_tokens: int
    output_tokens: int
    outputs: Sequence[int] = ()  # the bound of the output at each target
    inputs: Sequence[int] = ()  # the bound of the input at each target
    limits: Sequence[int | None] = ()  # `outputs` where the request or the model limits it, else None
    claims: Sequence[Claim] = ()  # in the order of the holds
    calls: Sequence[Claim] = ()  # claims on budgets for one request, which hold nothing
    held: bool = False  # False: the store knows nothing of it
    unseen: bool = False  # True: some of the input is outside the body, so no count of the body is complete
    possible: Collection[str] = ()  # kinds of tokens that it can come to, where money is held
    usual: bool = False  # True: the usual output is held of a request without a limit
    output: int = 0  # tokens of output that the claims have room for
    enough: float = field(default=math.inf)  # bytes of answer that the amounts held cover
