"""OpenRouter."""

from extproc.providers import Provider

PROVIDER = Provider(
    gen_ai_name="openrouter",
    source="https://openrouter.ai/docs/api-reference/overview",
    base_url="https://openrouter.ai/api/v1",
    dialects=("openai_chat",),
    more=("cache_control", "top_k"),
    catalogue="openrouter",
)
