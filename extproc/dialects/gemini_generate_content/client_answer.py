"""Plain answers, written for clients.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from extproc.dialects.gemini_generate_content.conversation import arguments_of
from extproc.dialects.gemini_generate_content.signature import pack
from extproc.dialects.gemini_generate_content.usage import write_usage
from extproc.words.messages import (
    Answer,
    Choice,
    FinishReason,
    ImagePart,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
)

_FINISH: dict[FinishReason, str] = {
    "stop": "STOP",
    "stop_sequence": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
    "pause": "OTHER",
}
Json = dict[str, Any]


def encode_answer(answer: Answer) -> Json:
    made: Json = {"candidates": [_candidate(choice, index) for index, choice in enumerate(answer.choices)]}
    if answer.usage is not None:
        made["usageMetadata"] = write_usage(answer.usage)
    return made | named(answer.model, answer.id)


def named(model: str, id: str) -> Json:
    """Fields of every answer and event."""
    return {"modelVersion": model} | ({"responseId": id} if id else {})


def _candidate(choice: Choice, index: int) -> Json:
    parts = list(encode_parts(choice.parts))
    refused = any(isinstance(part, RefusalPart) for part in choice.parts)
    made: Json = {
        "content": {"parts": parts, "role": "model"},
        "finishReason": finish_reason(choice.finish, refused=refused),
        "index": index,
    }
    return made | (encode_logprobs(choice.logprobs) if choice.logprobs else {})


def finish_reason(finish: FinishReason, *, refused: bool) -> str:
    """The finish reason. `refused`: the model declined in words, which other APIs report as a normal end."""
    return "SAFETY" if refused and finish == "stop" else _FINISH[finish]


def encode_parts(parts: Iterable[Part]) -> Iterable[Json]:
    for part in parts:
        if isinstance(part, TextPart | RefusalPart):
            if part.text:
                yield {"text": part.text}
        elif isinstance(part, ThinkingPart):
            yield thought(part.text, part.signature, part.redacted)
        elif isinstance(part, ToolCall):
            yield call(part.id, part.name, part.arguments, part.signature)
        elif isinstance(part, ImagePart):
            yield {"inlineData": {"mimeType": part.media_type or "image/png", "data": part.data}}


def thought(text: str, signature: str, redacted: str, *, begins: bool = True) -> Json:
    """A part of thinking. The one that `begins` a thought always has a packed signature, even where the provider gave
    none: in a later request to Google it shows that the thought is another provider's.
    """
    proof = {"thoughtSignature": pack(signature, redacted)} if signature or redacted or begins else {}
    return {"text": text, "thought": True} | proof


def call(id: str, name: str, arguments: str, signature: str) -> Json:
    given: Json = {"name": name, "args": arguments_of(arguments)}
    return {"functionCall": {"id": id} | given if id else given, "thoughtSignature": signature or pack("")}


def encode_logprobs(said: Any) -> Json:
    """Log probabilities, from OpenAI chat's form."""
    tokens = _objects(said.get("content")) if isinstance(said, dict) else []
    if not tokens:
        return {}
    top = [_objects(token.get("top_logprobs")) for token in tokens]
    values = [_probability(token) for token in tokens]
    return {
        "avgLogprobs": sum(values) / len(values),
        "logprobsResult": {
            "chosenCandidates": [_token(token) for token in tokens],
            "topCandidates": [{"candidates": [_token(token) for token in others]} for others in top],
        },
    }


def _objects(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _probability(token: Json) -> float:
    value = token.get("logprob")
    return value if isinstance(value, int | float) else 0.0


def _token(token: Json) -> Json:
    return {"token": token.get("token") or "", "logProbability": _probability(token)}
