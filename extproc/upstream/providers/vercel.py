"""Vercel's AI Gateway."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="vercel",
    source="https://vercel.com/docs/ai-gateway/openai-compat",
    base_url="https://ai-gateway.vercel.sh/v1",
    dialects=("openai_chat", "openai_embeddings"),
    tells_cost=True,
    example=("{kind: vercel, api_key: env:AI_GATEWAY_API_KEY}", "openai/gpt-6-luna"),
)
