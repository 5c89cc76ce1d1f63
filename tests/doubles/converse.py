"""Amazon Bedrock's Converse, plain or as an event stream.

A double refuses what the API refuses (see converse_shapes.py and converse_rules.py). `inputTokens` excludes tokens read
from the cache or written to it; `totalTokens` includes them. The model thinks when additionalModelRequestFields has
`thinking` or `reasoning_config` (Claude), `reasoningConfig` (Nova) or `reasoning_effort` (gpt-oss). The answer names
the stop sequence when additionalModelResponseFieldPaths asks for /stop_sequence. With the fault `usage=early` the
metadata comes before the last content.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.doubles import anthropic
from tests.doubles.answers import Answer, Json, Question, Refused, streamed, told
from tests.doubles.bedrock import padded
from tests.doubles.converse_rules import as_anthropic, check
from tests.doubles.converse_shapes import CONVERSE
from tests.doubles.faults import Event
from tests.doubles.scene import Line, Play, play
from tests.doubles.seals import seal
from tests.doubles.shapes import Wrong, kind

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "stop_sequence": "stop_sequence"}
_TYPES = {"string": "String", "integer": "Integer", "number": "Float", "boolean": "Boolean", "array": "List"}


def converse(question: Question, *, stream: bool = False) -> Answer:
    """POST /model/{id}/converse and /model/{id}/converse-stream."""
    try:
        CONVERSE(question.body, ())
    except Wrong as wrong:
        raise _refusal(wrong) from None
    check(question.body, question.model)
    asked = as_anthropic(question.body) | ({"thinking": {"type": "adaptive"}} if _thinks(question.body) else {})
    played = play(anthropic.scene(asked), question)
    if stream:
        return streamed(list(_events(question, asked, played)), "aws")
    usage = _usage(question, asked, played)
    return Answer(
        {
            "output": {"message": {"role": "assistant", "content": list(_content(played.line))}},
            "stopReason": _STOP_REASONS[played.line.finish],
            "metrics": {"latencyMs": 1},
            **({"usage": usage} if usage else {}),
            **_additional(question, played.line),
        }
    )


def _refusal(wrong: Wrong) -> Refused:
    where = wrong.at()
    match wrong.problem:
        case "missing":
            message = f"Value null at '{where}' failed to satisfy constraint: Member must not be null"
            return Refused(400, f"1 validation error detected: {message}")
        case "unknown":
            parent = "/".join(str(step) for step in wrong.path[:-1])
            key = f"extraneous key [{wrong.path[-1]}] is not permitted, please reformat your input and try again."
            return Refused(400, f"Malformed input request: #/{parent}: {key}")
        case "type":
            converted = f"{kind(wrong.got).upper()}_VALUE can not be converted to a {_TYPES.get(wrong.expected, 'Map')}"
            return Refused(400, f"{converted} at '{where}'", code="SerializationException")
        case _:
            message = f"Value at '{where}' failed to satisfy constraint: {wrong.expected}"
            return Refused(400, f"1 validation error detected: {message}")


def _thinks(body: Json) -> bool:
    extra = body.get("additionalModelRequestFields") or {}
    configs = [extra.get(name) for name in ("thinking", "reasoning_config", "reasoningConfig")]
    kinds = [config.get("type") for config in configs if isinstance(config, dict)]
    return bool({*map(str, kinds)} & {"enabled", "adaptive"}) or extra.get("reasoning_effort") not in (None, "none")


# --- the answer


def _content(line: Line) -> Iterator[Json]:
    if line.thinking and line.redacted:
        yield {"reasoningContent": {"redactedContent": seal("anthropic", line.thought)}}
    elif line.thinking:
        shown = {"text": line.thought, "signature": seal("anthropic", line.thought)}
        yield {"reasoningContent": {"reasoningText": shown}}
    if line.pieces:
        yield {"text": line.text}
    for call in line.calls:
        yield {"toolUse": {"toolUseId": "tooluse_" + call.key, "name": call.name, "input": call.input}}


def _usage(question: Question, asked: Json, played: Play) -> Json | None:
    counts = played.counts
    usage: Json = {
        "inputTokens": counts.input - counts.cached - counts.written,
        "outputTokens": counts.output,
        "totalTokens": counts.input + counts.output,
    }
    if counts.cached or counts.written:
        usage |= {"cacheReadInputTokens": counts.cached, "cacheWriteInputTokens": counts.written}
    if counts.written:
        usage["cacheDetails"] = [{"ttl": anthropic.ttl(asked), "inputTokens": counts.written}]
    return told(question.faults, usage)


def _additional(question: Question, line: Line) -> Json:
    if "/stop_sequence" not in (question.body.get("additionalModelResponseFieldPaths") or []):
        return {}
    return {"additionalModelResponseFields": {"stop_sequence": line.stop or None}}


# --- the stream


def _events(question: Question, asked: Json, played: Play) -> Iterator[Event]:
    line = played.line
    usage = _usage(question, asked, played)
    metadata = padded({"metrics": {"latencyMs": 1}} | ({"usage": usage} if usage else {}), "metadata", last=True)
    content = [event for index, block in enumerate(_content(line)) for event in _block(index, block, line)]
    if question.faults.usage == "early":
        content.insert(max(0, len(content) - 2), metadata._replace(last=False))
    yield padded({"role": "assistant"}, "messageStart")
    yield from content
    stop = {"stopReason": _STOP_REASONS[line.finish]} | _additional(question, line)
    early = question.faults.usage == "early"
    yield padded(stop, "messageStop", last=early)
    if not early:
        yield metadata


def _block(index: int, block: Json, line: Line) -> Iterator[Event]:
    """The events of a block. Only the block of a call has a start event."""
    call = block.get("toolUse")
    if call:
        start = {"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}}
        yield padded({"contentBlockIndex": index, "start": start}, "contentBlockStart")
    for delta in _deltas(block, line):
        yield padded({"contentBlockIndex": index, "delta": delta}, "contentBlockDelta")
    yield padded({"contentBlockIndex": index}, "contentBlockStop")


def _deltas(block: Json, line: Line) -> Iterator[Json]:
    if "text" in block:
        yield from ({"text": piece} for piece in line.pieces)
    elif "toolUse" in block:
        call = next(call for call in line.calls if block["toolUse"]["toolUseId"].endswith(call.key))
        yield from ({"toolUse": {"input": fragment}} for fragment in call.fragments)
    elif "redactedContent" in block["reasoningContent"]:
        yield {"reasoningContent": block["reasoningContent"]}
    else:
        yield from ({"reasoningContent": {"text": piece}} for piece in line.thinking)
        yield {"reasoningContent": {"signature": block["reasoningContent"]["reasoningText"]["signature"]}}
