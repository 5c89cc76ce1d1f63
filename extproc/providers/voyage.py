"""Voyage AI: embeddings and rerankers."""

from extproc.providers import Provider
from extproc.words.dialect import Batch

_LITE, _USUAL, _LARGE = Batch(1000, 1_000_000), Batch(1000, 320_000), Batch(1000, 120_000)

PROVIDER = Provider(
    gen_ai_name="voyage",
    source="https://docs.voyageai.com/reference/reranker-api",
    base_url="https://api.voyageai.com/v1",
    dialects=("openai_embeddings", "rerank"),
    # https://docs.voyageai.com/reference/embeddings-api
    batches={
        "voyage-4-lite": _LITE,
        "voyage-3.5-lite": _LITE,
        "voyage-4": _USUAL,
        "voyage-3.5": _USUAL,
        "voyage-2": _USUAL,
        "voyage-4-large": _LARGE,
        "voyage-3-large": _LARGE,
        "voyage-code-3": _LARGE,
        "voyage-finance-2": _LARGE,
        "voyage-law-2": _LARGE,
        "*": Batch(1000),
    },
    example=("{kind: voyage, api_key: env:VOYAGE_API_KEY}", "rerank-2.5"),
)
