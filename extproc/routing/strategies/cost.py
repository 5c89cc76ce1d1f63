"""The cheapest first, by the price of the request's input and of the output it may ask for.

Prices come from `prices`, then `price` of the model, then the bundled catalogue; a target without one comes last.
"""

from __future__ import annotations

import math

from extproc.routing.history import History
from extproc.routing.strategies import StickySettings
from extproc.routing.strategies._measured import Measured
from extproc.upstream.prices import at
from extproc.words.chain import Candidate
from extproc.words.exchange import Exchange, Target

_BYTES_PER_TOKEN = 4
_OUTPUT = 500  # tokens of output assumed if the client sets no limit


class Cost(Measured):
    def __init__(self, name: str, sticky: StickySettings | None, history: History) -> None:
        pass

    def value(self, choice: Candidate, exchange: Exchange) -> float:
        return cost(choice.targets[0], exchange)

    def why(self, choice: Candidate, exchange: Exchange) -> str:
        dollars = cost(choice.targets[0], exchange)
        return "its price is unknown" if dollars == math.inf else f"about {dollars:.6f} USD"


def cost(target: Target, exchange: Exchange) -> float:
    """Estimated USD of the request at a candidate; infinite when the price is unknown."""
    if target.price is None:
        return math.inf
    input_tokens, output_tokens = sizes(exchange)
    rates = at(target.price, int(input_tokens))
    return (input_tokens * rates.input + output_tokens * rates.output + rates.per_request) / 1e15


def sizes(exchange: Exchange) -> tuple[float, float]:
    """Estimated tokens of the request's input and of its output."""
    ask = exchange.request.ask
    input_tokens = (len(exchange.request.body) - ask.image_bytes - ask.file_bytes) / _BYTES_PER_TOKEN
    return max(1.0, input_tokens), min(ask.max_output_tokens or _OUTPUT, _OUTPUT) * ask.choices


STRATEGY = Cost
