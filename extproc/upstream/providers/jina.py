"""Jina AI: embeddings and rerankers."""

from extproc.upstream.providers import Provider
from extproc.words.dialect import BatchLimits

PROVIDER = Provider(
    gen_ai_name="jina",
    source="https://api.jina.ai/redoc",
    base_url="https://api.jina.ai/v1",
    dialects=("openai_embeddings", "rerank"),
    # https://github.com/refly-ai/refly/issues/831, https://github.com/langgenius/dify-official-plugins/issues/1997
    batches={"jina-embeddings-v4*": BatchLimits(512), "*": BatchLimits(2048)},
    example=("{kind: jina, api_key: env:JINA_API_KEY}", "jina-reranker-v3"),
)
