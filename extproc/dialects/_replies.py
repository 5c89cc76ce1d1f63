"""The gateway's own answers: refusals, and the list of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from extproc.words.dialect import Listed
from extproc.words.errors import Kind

_CREATED = 1735689600


class OpenAIReplies:
    """Answers in OpenAI's shape, which most clients read. Other APIs override its methods."""

    request_id = ""

    def error(self, kind: Kind, message: str, param: str | None) -> dict[str, Any]:
        return {"error": {"message": message, "type": kind.type, "param": param, "code": kind.code}}

    def cut_off(self, kind: Kind, message: str) -> bytes:
        return b"data: %b\n\n" % msgspec.json.encode(self.error(kind, message, None))

    def model(self, listed: Listed) -> dict[str, Any]:
        """A model in OpenAI's shape, with further known facts. `created` is required by clients, and the settings have
        no date.

        Source:
        https://platform.openai.com/docs/api-reference/models
        """
        found = {"id": listed.name, "object": "model", "created": _CREATED, "owned_by": listed.owner}
        facts = listed.facts
        more = {
            "context_length": listed.context,
            "pricing": listed.usd_per_million,
            "supports": None if listed.supports is None else sorted(listed.supports),
            "region": facts.region or None,
            "retention_seconds": facts.retention,
            "licence": facts.licence or None,
            "shutdown_date": facts.retires and facts.retires.isoformat(),
            "successor": facts.successor or None,
        }
        return found | {name: value for name, value in more.items() if value is not None}

    def models(self, listed: Sequence[Listed]) -> dict[str, Any]:
        return {"object": "list", "data": [self.model(one) for one in listed]}


openai = OpenAIReplies()
