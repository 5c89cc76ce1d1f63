"""Voyage AI: embeddings and rerankers.

Its embeddings have other names of fields than OpenAI's, and it refuses names that it does not know.

Sources: https://docs.voyageai.com/reference/embeddings-api, https://github.com/HKUDS/LightRAG/pull/2593 and
https://github.com/vectorize-io/hindsight/issues/925.
"""

from collections.abc import Collection, Mapping
from typing import Any

from extproc.upstream.providers import Provider
from extproc.words.dialect import BatchLimits


def adapts(body: Mapping[str, Any], needs: Collection[str]) -> bool:  # noqa: ARG001
    return "dimensions" in body or "user" in body or body.get("encoding_format") == "float"


def adapt(dialect: str, model: str, stream: bool, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:  # noqa: ARG001
    if dialect != "openai_embeddings":
        return path, body
    made = {name: value for name, value in body.items() if name not in ("dimensions", "user")}
    if made.get("encoding_format") == "float":
        del made["encoding_format"]
    if body.get("dimensions") is not None:
        made["output_dimension"] = body["dimensions"]
    return path, made


_LITE, _USUAL, _LARGE = BatchLimits(1000, 1_000_000), BatchLimits(1000, 320_000), BatchLimits(1000, 120_000)

PROVIDER = Provider(
    gen_ai_name="voyage",
    source="https://docs.voyageai.com/reference/reranker-api",
    base_url="https://api.voyageai.com/v1",
    dialects=("openai_embeddings", "rerank"),
    adapt=adapt,
    adapts=adapts,
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
        "*": BatchLimits(1000),
    },
    example=("{kind: voyage, api_key: env:VOYAGE_API_KEY}", "rerank-2.5"),
)
