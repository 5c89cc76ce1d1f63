"""Amazon Bedrock's errors, and InvokeModel with bodies of Anthropic's Messages or of Titan's embeddings.

A stream is chunks of base64, each an event of Anthropic's; the last has the counts of Bedrock too.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html and
API_runtime_InvokeModelWithResponseStream.html, https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

import msgspec

from tests.doubles import anthropic, credentials
from tests.doubles.answers import Answer, Json, Question, Refused, streamed
from tests.doubles.embeddings_titan import titan
from tests.doubles.endpoints import Dialect
from tests.doubles.faults import Event

_ERRORS = {
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
_PADDING = "abcdefghijklmnopqrstuvwxyz"


def invoke(question: Question) -> Answer:
    """POST /model/{id}/invoke: Titan's embeddings if the name or the body says so, otherwise a Claude."""
    if "titan-embed" in question.model or "inputText" in question.body:
        return titan(question)
    anthropic.checked(question, "bedrock", question.body.get("anthropic_version"))
    return anthropic.spoken(question, stream=False)


def invoke_with_response_stream(question: Question) -> Answer:
    """POST /model/{id}/invoke-with-response-stream."""
    anthropic.checked(question, "bedrock", question.body.get("anthropic_version"))
    answer = anthropic.spoken(question, stream=True)
    return streamed(list(_chunks(question, answer)), "aws")


def _chunks(question: Question, answer: Answer) -> Iterator[Event]:
    usage: Json = {}
    for event in answer.events or ():
        document = msgspec.json.decode(event.data)
        usage |= document.get("usage") or document.get("message", {}).get("usage") or {}
        if event.last and question.faults.usage is None:
            counts = {"inputTokenCount": usage.get("input_tokens"), "outputTokenCount": usage.get("output_tokens")}
            document["amazon-bedrock-invocationMetrics"] = counts | {"invocationLatency": 1, "firstByteLatency": 1}
        yield padded({"bytes": b64encode(msgspec.json.encode(document)).decode()}, "chunk", last=event.last)


def padded(document: Json, name: str, *, last: bool = False) -> Event:
    """Make an event of a document, padded with a field `p` like all events of Bedrock."""
    data = msgspec.json.encode(document)
    return Event(msgspec.json.encode(document | {"p": _PADDING[: len(data) % len(_PADDING) + 1]}), name, last)


def error(refused: Refused) -> Json:
    return {"message": refused.message}


def _type(refused: Refused) -> str:
    if refused.code and refused.code.endswith("Exception"):
        return refused.code
    return _ERRORS.get(refused.status, "InternalServerException" if refused.status >= 500 else "ValidationException")


def _headers(refused: Refused) -> list[tuple[bytes, bytes]]:
    kind = f"{_type(refused)}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    return [(b"x-amzn-errortype", kind.encode()), (b"x-amzn-requestid", b"00000000-0000-4000-8000-000000000000")]


def _failure(refused: Refused, _number: int) -> Event:
    document = {"message": refused.message, "originalMessage": refused.message, "originalStatusCode": refused.status}
    return Event(msgspec.json.encode(document), "exception:modelStreamErrorException")


CONVERSE = Dialect("aws_converse", error, _failure, credentials.aws, _headers)
INVOKE = CONVERSE._replace(name="aws_invoke")
