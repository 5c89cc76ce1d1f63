"""Gemini's generateContent, plain and streamed, on its own API and on Vertex.

A double refuses what the API refuses (see gemini_shapes.py and gemini_rules.py). `promptTokenCount` includes cached
tokens, `candidatesTokenCount` excludes thoughts. The model thinks when thinkingConfig asks for it, and shows its
thoughts with includeThoughts. A thinking model, or a Gemini 3 or later, signs the first function call, or its last text
when it thinks and makes no call. Calls have ids since Gemini 3. Without alt=sse in the query a stream is a JSON array.
With the fault `usage=early` only the last event has no usage.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/troubleshooting,
https://cloud.google.com/apis/design/errors
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from urllib.parse import parse_qsl

import msgspec

from tests.doubles import credentials, gemini_files
from tests.doubles.answers import Answer, Json, Question, Refused, streamed, told
from tests.doubles.endpoints import Dialect
from tests.doubles.faults import Event
from tests.doubles.gemini_rules import check, declarations, generation
from tests.doubles.gemini_shapes import camel, found, generate, snake
from tests.doubles.scene import (
    TOKENS_PER_IMAGE,
    Line,
    Part,
    Play,
    Scene,
    Tool,
    Turn,
    likelihoods,
    play,
    prompt_tokens,
    result_text,
)
from tests.doubles.seals import seal
from tests.doubles.shapes import Check, Wrong

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_TYPES = {"string": "TYPE_STRING", "integer": "TYPE_INT32", "number": "TYPE_FLOAT", "boolean": "TYPE_BOOL"}


def generate_content(question: Question, *, vertex: bool = False, stream: bool = False) -> Answer:
    """POST …/models/{model}:generateContent and :streamGenerateContent."""
    body = checked(generate(vertex=vertex), question.body)
    check(body, question.model, vertex=vertex)
    gemini_files.check(question)
    scene = _scene(body)
    played = play(scene, question)
    media = TOKENS_PER_IMAGE * sum(part.media for turn in scene.turns for part in turn.parts)
    parts = [_parts(body, question, line) for line in played.lines]
    if not stream:
        candidates = [
            _candidate(index, parts[index], line.finish == "length", _logprobs(body, line))
            for index, line in enumerate(played.lines)
        ]
        return Answer(_response(question, candidates, _usage(question, played, media)))
    framing = "sse" if dict(parse_qsl(question.query)).get("alt") == "sse" else "json"
    return streamed(list(_events(question, body, played, parts, media)), framing)


def count_tokens(question: Question, *, vertex: bool = False) -> Answer:
    """POST …/models/{model}:countTokens."""
    body = camel(question.body)
    body = checked(generate(vertex=vertex), body.get("generateContentRequest") or body)
    return Answer({"totalTokens": prompt_tokens(_scene(body))})


def checked(shape: Check, body: Json) -> Json:
    """Return the body in camel case, or refuse it."""
    body = camel(body)
    try:
        shape(body, ())
    except Wrong as wrong:
        raise Refused(400, _worded(wrong), param=_where(wrong)) from None
    return body


def _where(wrong: Wrong) -> str:
    return Wrong(snake(wrong.path), "").at(index="[%d]")


def _worded(wrong: Wrong) -> str:
    where = _where(wrong)
    parent, last = where.rpartition(".")[0], where.rpartition(".")[2]
    got = msgspec.json.encode(wrong.got).decode()
    match wrong.problem:
        case "missing":
            return f"* GenerateContentRequest.{where}: {last} is not specified"
        case "unknown":
            at = f" at '{parent}'" if parent else ""
            return f'Invalid JSON payload received. Unknown name "{wrong.path[-1]}"{at}: Cannot find field.'
        case "type" if isinstance(wrong.got, list):
            at = f"at '{parent}': Proto field is not repeating, cannot start list."
            return f'Invalid JSON payload received. Unknown name "{wrong.path[-1]}" {at}'
        case "type":
            kind = _TYPES.get(wrong.expected, "type.googleapis.com/google.protobuf.Struct")
            return f"Invalid value at '{where}' ({kind}), {got}"
        case _ if wrong.expected.startswith("exactly one of"):
            oneof = "required oneof field 'data' must have one initialized field"
            return f"* GenerateContentRequest.{where}.data: {oneof}"
        case _:
            return f"Invalid value at '{where}' ({wrong.expected}), {got}"


# --- the request


def _scene(body: Json) -> Scene:
    turns = [Turn("system", _read(found(body, "systemInstruction", "parts") or []))]
    turns += [
        Turn("assistant" if content.get("role") == "model" else "user", _read(content["parts"]))
        for content in body["contents"]
    ]
    config: Json = body.get("generationConfig") or {}
    calling = found(body, "toolConfig", "functionCallingConfig") or {}
    allowed = calling.get("allowedFunctionNames") or []
    tools = [] if calling.get("mode") == "NONE" else declarations(body)
    thinking = config.get("thinkingConfig") or {}
    schema = config.get("responseSchema") or config.get("responseJsonSchema")
    return Scene(
        turns,
        tools=[
            Tool(each["name"], each.get("parameters") or each.get("parametersJsonSchema"))
            for each in tools
            if not allowed or each["name"] in allowed
        ],
        tool=allowed[0] if len(allowed) == 1 else None,
        json=config.get("responseMimeType") == "application/json",
        schema=schema,
        stops=config.get("stopSequences") or (),
        limit=config.get("maxOutputTokens"),
        choices=config.get("candidateCount") or 1,
        thinks=any(thinking.values()) and thinking.get("thinkingBudget") != 0,
    )


def _read(parts: Sequence[Json]) -> list[Part]:
    read = []
    for part in parts:
        if part.get("thought"):
            continue
        if part.get("text") is not None:
            read.append(Part(part["text"]))
        elif part.get("inlineData") or part.get("fileData"):
            read.append(Part(media=1))
        elif part.get("functionResponse"):
            read.append(_result(part["functionResponse"]))
    return read


def _result(answer: Json) -> Part:
    """The result in a response: `output` or `error` if it is the only field, otherwise the whole response."""
    response = answer["response"]
    failed = "error" in response
    only = next(iter(response.values())) if len(response) == 1 else None
    inner = only if {*response} & {"output", "result", "error"} and only is not None else response
    media = len(answer.get("parts") or [])
    return Part(result_text(inner), media, result=True, failed=failed)


# --- the answer


def _parts(body: Json, question: Question, line: Line) -> list[Json]:
    parts: list[Json] = []
    thinking = found(body, "generationConfig", "thinkingConfig") or {}
    if line.thinking and thinking.get("includeThoughts"):
        parts.append({"text": line.thought, "thought": True})
    if not line.calls:
        parts.append({"text": line.text} | ({"thoughtSignature": seal("gemini", "text")} if line.thinking else {}))
    newer = generation(question.model) >= 3
    for index, call in enumerate(line.calls):
        part: Json = {"functionCall": {"name": call.name, "args": call.input}}
        if newer:
            part["functionCall"]["id"] = call.key
        if index == 0 and (line.thinking or newer):
            part["thoughtSignature"] = seal("gemini", call.name)
        parts.append(part)
    return parts


def _candidate(index: int, parts: list[Json], cut: bool | None, logprobs: Json | None = None) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": index}
    if cut is not None:
        candidate["finishReason"] = "MAX_TOKENS" if cut else "STOP"
    return candidate | (logprobs or {})


def _response(question: Question, candidates: list[Json], usage: Json | None) -> Json:
    response: Json = {"candidates": candidates}
    if usage:
        response["usageMetadata"] = usage
    return response | {"modelVersion": question.model, "responseId": question.digest}


def _usage(question: Question, played: Play, media: int, said: int | None = None) -> Json | None:
    """The usage. `said` is the part of a stream that was sent so far."""
    counts = played.counts
    thoughts = counts.reasoning if said is None else 0
    output = counts.output - thoughts if said is None else said
    details = [{"modality": "TEXT", "tokenCount": counts.input - media}]
    usage: Json = {
        "promptTokenCount": counts.input,
        "candidatesTokenCount": output,
        "totalTokenCount": counts.input + output + thoughts,
        "promptTokensDetails": details + ([{"modality": "IMAGE", "tokenCount": media}] if media else []),
    }
    if counts.cached:
        usage["cachedContentTokenCount"] = counts.cached
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    return told(question.faults, usage)


def _logprobs(body: Json, line: Line) -> Json | None:
    config = body.get("generationConfig") or {}
    if not config.get("responseLogprobs"):
        return None
    tokens = likelihoods(line, config.get("logprobs") or 0)
    chosen = [_likely(token.text, token.logprob) for token in tokens]
    top = [{"candidates": [_likely(*each) for each in token.others]} for token in tokens]
    average = sum(token.logprob for token in tokens) / max(1, len(tokens))
    return {"avgLogprobs": average, "logprobsResult": {"chosenCandidates": chosen, "topCandidates": top}}


def _likely(token: str, logprob: float) -> Json:
    return {"token": token, "tokenId": len(token), "logProbability": logprob}


def _events(question: Question, body: Json, played: Play, parts: list[list[Json]], media: int) -> Iterator[Event]:
    """The events of a stream. Candidates take turns; the last event of each has its finishReason."""
    said = 0
    deltas = [_deltas(each, line) for each, line in zip(parts, played.lines, strict=True)]
    for position, part in enumerate(chain.from_iterable(zip_longest(*deltas))):
        if part is None:
            continue
        said += 1
        candidate = _candidate(position % len(deltas), [part], None)
        yield _event(_response(question, [candidate], _usage(question, played, media, said)))
    for index, line in enumerate(played.lines):
        last = index == len(played.lines) - 1
        usage = None if question.faults.usage == "early" else _usage(question, played, media, None if last else said)
        candidate = _candidate(index, _ends(parts[index]), line.finish == "length", _logprobs(body, line))
        yield _event(_response(question, [candidate], usage), last=last)


def _deltas(parts: list[Json], line: Line) -> Iterator[Json]:
    for part in parts:
        if part.get("thought"):
            yield from ({"text": piece, "thought": True} for piece in line.thinking)
        elif "text" in part:
            yield from ({"text": piece} for piece in line.pieces)
        else:
            yield part


def _ends(parts: list[Json]) -> list[Json]:
    """The parts of the last event: an empty text with the signature."""
    signed = next((part for part in parts if "text" in part and "thoughtSignature" in part), {})
    return [{"text": ""} | {name: signed[name] for name in signed if name == "thoughtSignature"}]


def _event(response: Json, *, last: bool = False) -> Event:
    return Event(msgspec.json.encode(response), last=last)


# --- errors


def error(refused: Refused) -> Json:
    status = _STATUSES.get(refused.status, "INTERNAL" if refused.status >= 500 else "FAILED_PRECONDITION")
    inner: Json = {"code": refused.status, "message": refused.message, "status": status}
    google = "type.googleapis.com/google.rpc."
    if refused.param:
        violation = {"field": refused.param, "description": refused.message}
        inner["details"] = [{"@type": google + "BadRequest", "fieldViolations": [violation]}]
    elif refused.code and refused.code.isupper():
        inner["details"] = [{"@type": google + "ErrorInfo", "reason": refused.code, "domain": "googleapis.com"}]
    return {"error": inner}


def _failure(refused: Refused, _number: int) -> Event:
    return Event(msgspec.json.encode(error(refused)), last=True)


DIALECT = Dialect("gemini", error, _failure, credentials.gemini)
ON_VERTEX = DIALECT._replace(name="gemini_vertex", admit=credentials.vertex)
