"""GET /v1/quarantine/{reference}: a tool's raw result, for the consumer that received its reference."""

from __future__ import annotations

import msgspec

from extproc.exchange.parsing import QUARANTINE
from extproc.guardrails import Results
from extproc.words.actions import LocalReply
from extproc.words.errors import OBJECT_NOT_FOUND, Refusal
from extproc.words.exchange import Exchange


class Quarantined:
    """Answers requests for a result in quarantine; leaves other requests alone."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def __call__(self, exchange: Exchange) -> LocalReply | None:
        if exchange.request.operation != "quarantine":
            return None
        reference = exchange.request.head.path.partition("?")[0].removeprefix(QUARANTINE)
        found = self._results.find(reference, exchange.consumer.name)
        if found is None:
            raise Refusal(OBJECT_NOT_FOUND, "There is no result of this reference, or its time is over.")
        said = {"object": "quarantined_result", "reference": reference, "tool": found.tool, "result": found.raw}
        return LocalReply(200, msgspec.json.encode(said), {"content-type": "application/json"}, "answered")
