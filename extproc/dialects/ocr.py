"""Mistral's reading of documents and pictures: pages in, their text out. Requests and answers pass unchanged.

Pages are billed, at a price of their own where the request asks for annotations.

Sources: https://docs.mistral.ai/api/endpoint/ocr, https://docs.mistral.ai/capabilities/document_ai/annotations
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from extproc.dialects import read_model
from extproc.dialects._passed import Passed, passed_fields
from extproc.dialects._usage import first_count
from extproc.words.api import AnswerFacts, Endpoints, Objects, Offers, Stored
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint, Report
from extproc.words.errors import INVALID_REQUEST, Refusal

_MOST_PAGES = 1000
"""Pages of the longest document that Mistral takes."""
_BYTES_OF_PAGE = 256
"""Base64 of the smallest page of a PDF: an object for the page and one for its content."""
_ANNOTATIONS = ("bbox_annotation_format", "document_annotation_format")


class _Answer(msgspec.Struct):
    model: Any = None
    pages: Any = None
    usage_info: Any = None


class OCR(Passed):
    name = "ocr"
    shape = _Answer
    endpoints = Endpoints(paths={"/v1/ocr": "ocr"})
    fields = passed_fields("document_annotation_prompt", also=("document", "pages", *_ANNOTATIONS))
    text = "document_annotation_prompt"
    quiet = Passed.quiet | {"image_base64", "usage_info"}
    answers = AnswerFacts(usage_at=(("usage_info",),))
    offers = Offers(stored=Stored(objects=Objects(at={"document.file_id": "file"})))

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        ask = Ask(model=read_model(body), unseen=("document",))  # its pages are counted, not its tokens
        document = body.get("document")
        if not isinstance(document, dict):
            raise Refusal(INVALID_REQUEST, "'document' must be an object.", param="document")
        ask.units["pages"] = _most_pages(document, body.get("pages"))
        if any(body.get(name) is not None for name in _ANNOTATIONS):
            ask.unit_options["pages"] = "annotated"
        return ask

    def smallest(self, model: str) -> dict[str, Any]:
        document = {"type": "image_url", "image_url": "https://example.com/page.png"}
        return {"model": model, self.text: "Hello", "document": document}

    def read_answer(self, answer: Any, report: Report) -> bool:
        if isinstance(answer.model, str) and answer.model:
            report.model = answer.model
        pages = answer.pages if isinstance(answer.pages, list) else []
        for page in pages:
            if isinstance(page, dict) and isinstance(text := page.get("markdown"), str):
                report.add_text(text)
        told = answer.usage_info if isinstance(answer.usage_info, dict) else {}
        report.units["pages"] = min(first_count(told.get("pages_processed")) or len(pages), _MOST_PAGES)
        return False


def _most_pages(document: Mapping[str, Any], chosen: Any) -> int:
    """Most pages that are read. `chosen` is the request's choice of pages."""
    url = document.get("document_url", document.get("image_url"))
    url = url.get("url") if isinstance(url, dict) else url
    if document.get("type") == "image_url":
        return 1
    most = _MOST_PAGES
    if isinstance(url, str) and url.startswith("data:"):
        most = min(most, len(url) // _BYTES_OF_PAGE + 1)
    return max(1, min(most, len(chosen))) if isinstance(chosen, list) else most


CLIENT = OCR()
