"""Cloudflare Workers AI; with a `base_url`, its AI Gateway: https://gateway.ai.cloudflare.com/v1/<account>/<gateway>/compat."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="cloudflare",
    source="https://developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility/",
    base_url="https://api.cloudflare.com/client/v4/accounts/{account}/ai/v1",
    dialects=("openai_chat", "openai_embeddings"),
    more=("max_tokens",),
    catalogue="cloudflare",
    example=(
        "{kind: cloudflare, account: 0a1b2c3d4e5f, api_key: env:CLOUDFLARE_API_TOKEN}",
        "@cf/meta/llama-3.3-70b-instruct-fp8-fast",
    ),
)
