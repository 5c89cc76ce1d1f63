"""Cerebras."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="cerebras",
    source="https://inference-docs.cerebras.ai/resources/openai",
    base_url="https://api.cerebras.ai/v1",
    dialects=("openai_chat",),
    catalogue="cerebras",
    example=("{kind: cerebras, api_key: env:CEREBRAS_API_KEY}", "llama-3.3-70b"),
)
