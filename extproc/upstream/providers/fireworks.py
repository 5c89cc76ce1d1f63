"""Fireworks AI."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="fireworks",
    source="https://docs.fireworks.ai/tools-sdks/openai-compatibility",
    base_url="https://api.fireworks.ai/inference/v1",
    dialects=("openai_chat", "openai_embeddings", "openai_completions"),
    more=("max_tokens", "top_k"),
    catalogue="fireworks",
    example=(
        "{kind: fireworks, api_key: env:FIREWORKS_API_KEY}",
        "accounts/fireworks/models/llama-v3p3-70b-instruct",
    ),
)
