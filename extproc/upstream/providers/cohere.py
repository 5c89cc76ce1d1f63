"""Cohere, version 2 of its API."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="cohere",
    source="https://docs.cohere.com/reference/chat",
    base_url="https://api.cohere.com/v2",
    dialects=("cohere_chat", "cohere_embed", "rerank"),
    catalogue="cohere",
    example=("{kind: cohere, api_key: env:COHERE_API_KEY}", "command-a-03-2025"),
)
