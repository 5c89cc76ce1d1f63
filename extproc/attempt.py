"""The attempt attachment: one try at one provider, behind the internal hop.

It needs nothing but what Envoy sends it: what each try changes, and the number of this one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from extproc import contract
from extproc.actions import CONTINUE, Answer, Chunk, Continue
from extproc.contract import Edit
from extproc.forward import patch

_LONGEST_BACK_OFF = 5.0  # seconds


class AttemptStream:
    """Makes of the body what this provider is to get. A further try in a row at the same target waits first."""

    def __init__(self) -> None:
        self.done = False
        self._edit = Edit({})

    async def on_request_headers(self, headers: Mapping[str, str], end: bool) -> Continue | Answer:  # noqa: ARG002
        targets = contract.decode_targets(headers[contract.TARGETS])
        index = min(int(headers[contract.ATTEMPT_COUNT]), len(targets)) - 1
        if (edits := headers.get(contract.EDITS)) is not None:
            self._edit = contract.decode_edits(edits)[index]
        if (base := headers.get(contract.BACK_OFF)) is not None and (wait := back_off(targets, index, int(base))):
            await asyncio.sleep(wait)
        return CONTINUE

    async def on_request_body(self, body: bytes) -> Continue | Answer:
        self.done = True
        edit = self._edit
        return Continue(body=patch(body, edit.fields, edit.removed)) if edit.fields or edit.removed else CONTINUE

    async def on_response_headers(
        self, headers: Mapping[str, str], attributes: Mapping[str, object], end: bool
    ) -> Continue | Answer:
        raise NotImplementedError("the answer of a try is not asked for")

    async def on_response_body(self, chunk: bytes, end: bool) -> Chunk:
        raise NotImplementedError("the answer of a try is not asked for")

    async def on_end(self) -> None:
        """Nothing is open."""


def back_off(targets: list[str], index: int, base: int) -> float:
    """Seconds to wait before the try at `index`: none at a new target, then about `base` milliseconds, then twice as
    long each time, half of it by chance so that clients do not come back in step.
    """
    repeats = 0
    while repeats < index and targets[index - repeats - 1] == targets[index]:
        repeats += 1
    if not repeats:
        return 0.0
    longest = min(base / 1000 * (1 << repeats - 1), _LONGEST_BACK_OFF)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
