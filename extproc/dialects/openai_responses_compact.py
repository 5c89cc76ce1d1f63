"""OpenAI's compaction of a long conversation into items that stand for it. It passes through only.

Source: https://developers.openai.com/api/reference/resources/responses/methods/compact
"""

from __future__ import annotations

from extproc.dialects import azure
from extproc.dialects.openai_responses import OpenAIResponses
from extproc.words.dialect import Dialect


class OpenAIResponsesCompact(OpenAIResponses):
    name = "openai_responses_compact"
    family = "compaction"
    paths = {"/v1/responses/compact": "compact"}  # noqa: RUF012
    aliases = azure("/v1/responses/compact")
    calls = {}  # noqa: RUF012

    decode_request = Dialect.decode_request
    encode_request = Dialect.encode_request
    keeps = Dialect.keeps


DIALECT = OpenAIResponsesCompact()
