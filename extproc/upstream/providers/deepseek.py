"""DeepSeek."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="deepseek",
    source="https://api-docs.deepseek.com/",
    base_url="https://api.deepseek.com/v1",
    dialects=("openai_chat", "openai_responses"),
    # DeepSeek keeps nothing: https://api-docs.deepseek.com/guides/responses_api
    models={"openai_responses": ("deepseek-v4-*",)},
    more=("thinking", "max_tokens"),
    catalogue="deepseek",
    example=("{kind: deepseek, api_key: env:DEEPSEEK_API_KEY}", "deepseek-v4-flash"),
)
