"""Mistral's reading of documents: a page for each `/Page` in a PDF in base64, three behind a URL, one for a picture.

Source: https://docs.mistral.ai/api/endpoint/ocr
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from tests.doubles.answers import Answer, Json, Question, Refused, told

_ANNOTATIONS = ("bbox_annotation_format", "document_annotation_format")
_KNOWN = {
    *("model", "id", "document", "pages", "include_image_base64", "image_limit", "image_min_size", "table_format"),
    *("document_annotation_prompt", *_ANNOTATIONS),
}


def ocr(question: Question) -> Answer:
    """POST /v1/ocr."""
    body = question.body
    if unknown := body.keys() - _KNOWN:
        raise Refused(422, f"Extra inputs are not permitted: {min(unknown)}", param=min(unknown))
    if "document_annotation_prompt" in body and "document_annotation_format" not in body:
        raise Refused(422, "document_annotation_prompt needs document_annotation_format")
    chosen = body.get("pages")
    numbers = range(_length(body.get("document"))) if chosen is None else chosen
    pages: list[Json] = [
        {"index": number, "markdown": f"# Page {number}", "images": [], "dimensions": None} for number in numbers
    ]
    usage = told(question.faults, {"pages_processed": len(pages), "doc_size_bytes": 512})
    answer: Json = {"pages": pages, "model": question.model, "document_annotation": None}
    if body.get("document_annotation_format") is not None:
        answer["document_annotation"] = '{"title": "Page"}'
    return Answer(answer | ({"usage_info": usage} if usage else {}))


def _length(document: Any) -> int:
    match document:
        case {"type": "image_url", "image_url": str() | {"url": str()}}:
            return 1
        case {"type": "document_url", "document_url": str(url)} if url.startswith("data:application/pdf;base64,"):
            return b64decode(url.partition(",")[2]).count(b"/Type /Page ")
        case {"type": "document_url", "document_url": str()}:
            return 3
    raise Refused(422, "Invalid document", param="document")
