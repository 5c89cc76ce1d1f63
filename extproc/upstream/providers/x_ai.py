"""xAI."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="x_ai",
    source="https://docs.x.ai/docs/api-reference",
    base_url="https://api.x.ai/v1",
    dialects=(
        "openai_chat",
        "openai_responses",
        "openai_images",
    ),
    client_headers=("x-grok-conv-id",),  # leads a conversation to the server that has its prompt cached
    catalogue="x-ai",
    tells_cost=True,
    example=("{kind: x_ai, api_key: env:XAI_API_KEY}", "grok-4.7"),
)
