"""The usage shapes of providers: `usage_shapes.json`, as payloads and expected counts.

`evidence` is the source of an entry: `recorded` is a provider's own answer with its texts shortened, `documented` an
example of its documentation, `constructed` its documented fields with our numbers, `none` neither. `usage` is the
expected result. `written` is the text that is counted where a provider reports no usage: thoughts, text, refusals, the
names of calls and their arguments, in their order.
"""

import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extproc.wire.framing.aws_eventstream import encode as aws_frame
from extproc.words.exchange import Kinds, Usage

EVIDENCE = {"recorded", "documented", "constructed", "none"}


@dataclass(frozen=True)
class Shape:
    name: str
    provider: str
    dialect: str
    source: str
    evidence: str
    counts: dict[str, int]
    answer: Any = None  # a plain answer, or
    events: tuple[Any, ...] = ()  # a streamed one
    written: str | None = None
    note: str = ""
    kinds: dict[str, int] | None = None
    cost: int | None = None  # nano-USD that the usage tells

    @property
    def usage(self) -> Usage:
        of = self.counts
        return Usage(
            of["input"],
            of["output"],
            cached_tokens=of["cached"],
            reasoning_tokens=of["reasoning"],
            cache_write_tokens=of["cache_write"],
            kinds=Kinds(**self.kinds) if self.kinds else None,
            cost=self.cost,
        )

    @property
    def payloads(self) -> list[tuple[bytes, str]]:
        """The payload and the name of each event, or the body of a plain answer."""
        return [_payload(event) for event in self.events] or [_payload(self.answer)]

    def wire(self, *, amazon: bool) -> bytes:
        """The bytes of a streamed answer. `amazon`: inside the binary events of Bedrock."""
        if not amazon:
            return b"".join(b"data: %b\n\n" % data for data, _ in self.payloads)
        return b"".join(
            _frame(name, data) if name else _frame("chunk", json.dumps({"bytes": b64encode(data).decode()}).encode())
            for data, name in self.payloads
        )


def _payload(event: Any) -> tuple[bytes, str]:
    if isinstance(event, str):
        return event.encode(), ""
    name, value = event if isinstance(event, list) else ("", event)
    return json.dumps(value, ensure_ascii=False).encode(), name


def _frame(name: str, data: bytes) -> bytes:
    headers = {":message-type": "event", ":event-type": name, ":content-type": "application/json"}
    return aws_frame(headers, data)


def _load() -> list[Shape]:
    rows = json.loads(Path(__file__).with_name("usage_shapes.json").read_text(encoding="utf-8"))
    return [Shape(counts=row.pop("usage"), events=tuple(row.pop("events", ())), **row) for row in rows]


SHAPES = _load()
