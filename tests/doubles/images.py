"""OpenAI's images: one red pixel for each image that was asked for.

Sources: https://developers.openai.com/api/reference/resources/images/methods/generate, .../edit
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tests.doubles.answers import CREATED, Answer, Json, Question, Refused, count_words, streamed, told
from tests.doubles.faults import Event
from tests.doubles.forms import File

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
_TOKENS = {"low": 272, "medium": 1056, "high": 4160}
_COMMON = {
    *("model", "prompt", "n", "quality", "size", "background", "output_format", "output_compression", "stream"),
    *("partial_images", "user", "moderation"),
}
_EDITS = _COMMON - {"moderation"} | {"image", "image[]", "mask", "input_fidelity"}
_OLD = ("dall-e-2", "dall-e-3")


def generations(question: Question) -> Answer:
    """POST /v1/images/generations."""
    return _made(question, _COMMON, "image_generation", 0)


def edits(question: Question) -> Answer:
    """POST /v1/images/edits."""
    body = question.body
    images = body.get("image[]") or [body.get("image")]
    if not all(isinstance(image, File) and image.startswith(b"\x89PNG") for image in images):
        raise Refused(400, "Invalid image file or mode for image 1.", param="image", code="invalid_image_file")
    return _made(question, _EDITS, "image_edit", len(images))


def _made(question: Question, known: set[str], kind: str, images: int) -> Answer:
    body = question.body
    old = question.model.startswith(_OLD)
    known = known | ({"response_format", "style"} if old else set())
    if unknown := body.keys() - known:
        raise Refused(400, f"Unknown parameter: '{min(unknown)}'.", param=min(unknown), code="unknown_parameter")
    if not isinstance(body.get("prompt"), str) or not 1 <= len(body["prompt"]) <= 32000:
        raise Refused(400, "Missing required parameter: 'prompt'.", param="prompt", code="missing_required_parameter")
    count, quality = int(body.get("n") or 1), body.get("quality") or "low"
    if not 1 <= count <= 10:
        raise Refused(400, "Invalid 'n': integer above maximum value.", param="n", code="integer_above_max_value")
    if old:
        return Answer({"created": CREATED, "data": [{"url": f"https://example.com/{n}.png"} for n in range(count)]})
    words, written = count_words(body["prompt"]), count * _TOKENS.get(quality, 4160)
    usage = told(
        question.faults,
        {
            "input_tokens": words + 194 * images,
            "input_tokens_details": {"text_tokens": words, "image_tokens": 194 * images},
            "output_tokens": written,
            "total_tokens": words + 194 * images + written,
        },
    )
    counts: Json = {"usage": usage} if usage else {}
    look = {"size": "1024x1024", "quality": quality, "background": "opaque", "output_format": "png"}
    if body.get("stream") in (True, "true"):
        return streamed(list(_events(kind, look, counts)))
    return Answer({"created": CREATED, "data": [{"b64_json": PIXEL} for _ in range(count)], **look, **counts})


def _events(kind: str, look: Json, counts: Json) -> Iterator[Event]:
    event: dict[str, Any] = {"b64_json": PIXEL, "created_at": CREATED, **look}
    yield _event({"type": f"{kind}.partial_image", "partial_image_index": 0, **event}, last=False)
    yield _event({"type": f"{kind}.completed", **event, **counts}, last=True)


def _event(event: Json, *, last: bool) -> Event:
    return Event(msgspec.json.encode(event), event["type"], last)
