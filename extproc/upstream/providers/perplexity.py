"""Perplexity."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="perplexity",
    source="https://docs.perplexity.ai/api-reference/chat-completions-post",
    base_url="https://api.perplexity.ai",
    dialects=("openai_chat",),
    more=("max_tokens", "top_k"),
    catalogue="perplexity",
    tells_cost=True,
    example=("{kind: perplexity, api_key: env:PERPLEXITY_API_KEY}", "sonar-pro"),
)
