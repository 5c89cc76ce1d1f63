"""Mistral AI."""

from extproc.providers import Provider

PROVIDER = Provider(
    gen_ai_name="mistral_ai",
    source="https://docs.mistral.ai/api/",
    base_url="https://api.mistral.ai/v1",
    dialects=("openai_chat", "openai_embeddings"),
    more=("max_tokens",),
    catalogue="mistral",
    example=("{kind: mistral_ai, api_key: env:MISTRAL_API_KEY}", "mistral-large-latest"),
)
