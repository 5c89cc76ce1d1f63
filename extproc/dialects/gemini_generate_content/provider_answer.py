"""A plain answer.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

from extproc.dialects.gemini_generate_content.shapes import (
    MOST_CHOICES,
    Candidate,
    Response,
    arguments,
    call_id,
    finish_reason,
    logprobs,
    seconds,
    service_tier,
)
from extproc.dialects.gemini_generate_content.shapes import Part as WirePart
from extproc.dialects.gemini_generate_content.signature import mark
from extproc.dialects.gemini_generate_content.usage import read_usage
from extproc.wire.framing.shapes import reader
from extproc.words.messages import Answer, Choice, ImagePart, Part, TextPart, ThinkingPart, ToolCall

_decode = reader(Response, "generateContent")


def decode_answer(body: bytes) -> Answer:
    response = _decode(body)
    choices = [_choice(candidate) for candidate in _in_order(response.candidates or [])]
    if not choices:
        if response.feedback is None or not response.feedback.block:
            raise ValueError("an answer of generateContent has candidates, or the reason why the prompt was blocked")
        choices = [Choice([], "content_filter")]
    return Answer(
        choices,
        id=response.id or "",
        model=response.model or "",
        created=seconds(response.created),
        usage=read_usage(response.usage),
        service_tier=service_tier(response.usage),
    )


def _in_order(candidates: list[Candidate]) -> list[Candidate]:
    if len(candidates) < 2:
        return candidates
    places = {id(candidate): place for place, candidate in enumerate(candidates)}
    return sorted(candidates, key=lambda one: places[id(one)] if one.index is None else one.index)[:MOST_CHOICES]


def _choice(candidate: Candidate) -> Choice:
    parts = candidate.content.parts if candidate.content is not None else None
    written = _parts(parts or [])
    return Choice(
        written,
        finish_reason(candidate.finish or "STOP", calls=any(isinstance(part, ToolCall) for part in written)),
        logprobs=logprobs(candidate.logprobs) if candidate.logprobs is not None else None,
    )


def image_of(part: WirePart) -> ImagePart | None:
    """The model's image in a part; drafts in its thinking do not count."""
    inline = part.inline
    if inline is None or not inline.data or part.thought:
        return None
    return ImagePart(inline.data, inline.media_type or "image/png")


def _parts(parts: list[WirePart]) -> list[Part]:
    out: list[Part] = []
    for part in parts:
        signature = part.signature or ""
        if part.call is not None:
            call = part.call
            out.append(ToolCall(call_id(call), call.name or "", arguments(call), signature))
        elif (image := image_of(part)) is not None:
            out.append(image)
        elif signature and not part.text and (before := _unsigned(out)) is not None:
            before.signature = signature
        else:
            add_text(out, part.text or "", mark(signature), thought=bool(part.thought))
    return out


def _unsigned(parts: list[Part]) -> ToolCall | None:
    """First of the calls at the end if it has no signature: its signature comes later."""
    first: ToolCall | None = None
    for part in reversed(parts):
        if not isinstance(part, ToolCall):
            break
        first = part
    return first if first is not None and not first.signature else None


def add_text(out: list[Part], text: str, signature: str = "", *, thought: bool = False) -> None:
    """Add a piece of text or thinking. Consecutive pieces are joined, up to a signature."""
    last = out[-1] if out else None
    if thought:
        if isinstance(last, ThinkingPart) and not last.signature:
            last.text += text
            last.signature = signature
        elif text or signature:
            out.append(ThinkingPart(text, signature))
        return
    if text:
        if isinstance(last, TextPart):
            last.text += text
        else:
            out.append(TextPart(text))
    if signature:
        out.append(ThinkingPart(signature=signature))
