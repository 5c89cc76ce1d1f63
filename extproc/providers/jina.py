"""Jina AI: embeddings and rerankers."""

from extproc.providers import Provider

PROVIDER = Provider(
    gen_ai_name="jina",
    source="https://api.jina.ai/redoc",
    base_url="https://api.jina.ai/v1",
    dialects=("openai_embeddings", "rerank"),
    example=("{kind: jina, api_key: env:JINA_API_KEY}", "jina-reranker-v3"),
)
