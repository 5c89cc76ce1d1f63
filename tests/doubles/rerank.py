"""Rerankers of Cohere (`/v2/rerank`), Jina and Voyage (`/v1/rerank`, told apart by the model's name).

A document is the more relevant the more words it shares with the query. Each API refuses what the real one does.

Sources: https://docs.cohere.com/reference/rerank, https://api.jina.ai/redoc,
https://docs.voyageai.com/reference/reranker-api
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.doubles.answers import Answer, Json, Question, Refused, count_words, positive, told

_COHERE = {"model", "query", "documents", "top_n", "max_tokens_per_doc", "priority"}
_JINA = {"model", "query", "documents", "top_n", "return_documents", "max_doc_length", "truncation"}
_VOYAGE = {"model", "query", "documents", "top_k", "return_documents", "truncation"}
_MOST = 1000  # documents


def cohere(question: Question) -> Answer:
    """POST /v2/rerank."""
    body = question.body
    ranked = _ranked(body, _COHERE, "top_n", status=422)
    billed = told(question.faults, {"search_units": 1})
    results = [{"index": index, "relevance_score": score} for index, score in ranked]
    meta = {"api_version": {"version": "2"}, **({"billed_units": billed} if billed else {})}
    return Answer({"id": str(UUID(hex=(question.digest * 2)[:32])), "results": results, "meta": meta})


def others(question: Question) -> Answer:
    """POST /v1/rerank."""
    body = question.body
    tokens = sum(map(count_words, [body.get("query") or "", *map(_text, body.get("documents") or ())]))
    usage = told(question.faults, {"total_tokens": tokens})
    counts = {"usage": usage} if usage else {}
    if body["model"].startswith("jina"):
        results = [
            {"index": index, "relevance_score": score, **_shown(body, index, {"text": _text(body["documents"][index])})}
            for index, score in _ranked(body, _JINA, "top_n", status=422)
        ]
        return Answer({"model": body["model"], "results": results} | counts)
    data = [
        {"relevance_score": score, "index": index, **_shown(body, index, body["documents"][index])}
        for index, score in _ranked(body, _VOYAGE, "top_k", status=400)
    ]
    return Answer({"object": "list", "data": data, "model": body["model"]} | counts)


def _shown(body: Json, _index: int, document: Any) -> Json:
    return {"document": document} if body.get("return_documents") else {}


def _text(document: Any) -> str:
    return document if isinstance(document, str) else str(document["text"])


def _ranked(body: Json, known: set[str], limit: str, *, status: int) -> list[tuple[int, float]]:
    if unknown := body.keys() - known:
        raise Refused(status, f"Argument '{min(unknown)}' is not supported by our API", param=min(unknown))
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise Refused(status, "query: field required", param="query")
    if not isinstance(documents, list) or not 1 <= len(documents) <= _MOST:
        raise Refused(status, f"documents: a list of 1 to {_MOST}", param="documents")
    if known is not _JINA and not all(isinstance(each, str) for each in documents):
        raise Refused(status, "documents: must be strings", param="documents")
    words = set(query.lower().split())
    scores = [len(words & set(_text(each).lower().split())) / max(1, len(words)) for each in documents]
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return ranked[: positive(body, limit) or len(ranked)]
