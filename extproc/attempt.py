"""The attempt attachment: one try at one provider, behind the internal hop.

It needs nothing but what Envoy sends it: the list of targets and the number of this try say what the try stands for.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc import contract
from extproc.actions import CONTINUE, Answer, Chunk, Continue
from extproc.forward import patch


class AttemptStream:
    """Writes into the body the model's name at this provider."""

    def __init__(self) -> None:
        self.done = False
        self._model = ""

    async def on_request_headers(self, headers: Mapping[str, str], end: bool) -> Continue | Answer:  # noqa: ARG002
        targets = contract.decode_targets(headers[contract.TARGETS])
        attempt = int(headers[contract.ATTEMPT_COUNT])
        _, self._model = targets[min(attempt, len(targets)) - 1]
        return CONTINUE

    async def on_request_body(self, body: bytes) -> Continue | Answer:
        self.done = True
        return Continue(body=patch(body, {"model": self._model}))

    async def on_response_headers(
        self, headers: Mapping[str, str], attributes: Mapping[str, object], end: bool
    ) -> Continue | Answer:
        raise NotImplementedError("the answer of a try is not asked for")

    async def on_response_body(self, chunk: bytes, end: bool) -> Chunk:
        raise NotImplementedError("the answer of a try is not asked for")

    async def on_end(self) -> None:
        """Nothing is open."""
