"""OpenAI, and any other service that speaks its API at a `base_url` of its own."""

from extproc.providers import Provider

PROVIDER = Provider(
    gen_ai_name="openai",
    source="https://platform.openai.com/docs/api-reference",
    base_url="https://api.openai.com/v1",
    dialects=("openai_chat", "openai_responses", "openai_embeddings", "openai_completions"),
    catalogue="openai",
    example=("{kind: openai, api_key: env:OPENAI_API_KEY}", "gpt-4o"),
)
