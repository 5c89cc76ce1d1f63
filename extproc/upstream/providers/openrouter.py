"""OpenRouter."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="openrouter",
    source="https://openrouter.ai/docs/api-reference/overview",
    base_url="https://openrouter.ai/api/v1",
    # OpenRouter keeps no responses: https://openrouter.ai/docs/api-reference/responses/overview
    dialects=("openai_chat", "openai_responses", "rerank"),
    more=("cache_control", "top_k"),
    catalogue="openrouter",
    tells_cost=True,
    example=("{kind: openrouter, api_key: env:OPENROUTER_API_KEY}", "meta-llama/llama-3.3-70b-instruct"),
)
