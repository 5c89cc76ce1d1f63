"""Documents ordered by relevance to a query: the shapes of Cohere, Jina and Voyage, which pass unchanged.

The requests differ in the name of one limit (`top_n`, at Voyage `top_k`). The answers differ in the name of the list
(`results`, at Voyage `data`) and in the usage: Jina and Voyage count tokens, Cohere counts searches.

Sources: https://docs.cohere.com/reference/rerank, https://api.jina.ai/redoc, https://docs.voyageai.com/reference/reranker-api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extproc.dialects import token_count
from extproc.dialects._passed import Passed, passed_fields
from extproc.words.api import Endpoints
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.exchange import Usage


class Rerank(Passed):
    name = "rerank"
    endpoints = Endpoints(
        paths={"/v1/rerank": "rerank"},
        aliases={"/v2/rerank": "/v1/rerank"},  # path of Cohere's clients
    )
    fields = passed_fields("query", "documents")
    text = "query"

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        ask = super().read(body, endpoint)
        documents = body.get("documents")
        if not isinstance(documents, list) or not documents:
            raise Refusal(INVALID_REQUEST, "'documents' must be a list, not empty.", param="documents")
        if any(isinstance(each, dict) and ("image" in each or "image_url" in each) for each in documents):
            ask.add_unseen("documents")  # jina's models accept images
        return ask

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, "query": "Hello", "documents": ["Hello"]}

    def usage(self, said: Any) -> Usage | None:
        total = token_count(said.get("total_tokens")) if isinstance(said, dict) else None
        return None if total is None else Usage(total)


CLIENT = Rerank()
