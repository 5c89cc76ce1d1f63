"""Amazon Bedrock's Converse and ConverseStream, for providers only.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and
API_runtime_ConverseStream.html.
"""

from __future__ import annotations

from urllib.parse import quote

from extproc.dialects.aws_converse import problem, provider_answer, provider_request
from extproc.dialects.aws_converse.provider_stream import ConverseDecoder
from extproc.words.api import Able
from extproc.words.dialect import Destination

name, family = "aws_converse", "chat"
able = Able(
    lacks=frozenset(("choices", "logprobs")),
    stream_type="application/vnd.amazon.eventstream",
    cache_marks=True,
)
encode_request = provider_request.encode
decoder, decode_answer, decode_problem = ConverseDecoder, provider_answer.decode, problem.decode


def path(destination: Destination, *, stream: bool) -> str:
    return f"/model/{quote(destination.model, safe='')}/{'converse-stream' if stream else 'converse'}"
