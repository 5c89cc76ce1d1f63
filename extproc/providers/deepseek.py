"""DeepSeek."""

from extproc.providers import Provider

PROVIDER = Provider(
    gen_ai_name="deepseek",
    source="https://api-docs.deepseek.com/",
    base_url="https://api.deepseek.com/v1",
    dialects=("openai_chat",),
    more=("thinking", "max_tokens"),
    catalogue="deepseek",
    example=("{kind: deepseek, api_key: env:DEEPSEEK_API_KEY}", "deepseek-chat"),
)
