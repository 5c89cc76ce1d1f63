"""Helicone's AI Gateway."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="helicone",
    source="https://docs.helicone.ai/ai-gateway/overview",
    base_url="https://ai-gateway.helicone.ai/v1",
    dialects=("openai_chat",),
    example=("{kind: helicone, api_key: env:HELICONE_API_KEY}", "gpt-6-luna"),
)
