"""Voyage AI: embeddings and rerankers."""

from extproc.providers import Provider

PROVIDER = Provider(
    gen_ai_name="voyage",
    source="https://docs.voyageai.com/reference/reranker-api",
    base_url="https://api.voyageai.com/v1",
    dialects=("openai_embeddings", "rerank"),
    example=("{kind: voyage, api_key: env:VOYAGE_API_KEY}", "rerank-2.5"),
)
