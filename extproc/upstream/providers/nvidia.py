"""NVIDIA's API catalogue, and NIM with a `base_url` of your own."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="nvidia",
    source="https://docs.api.nvidia.com/nim/reference/llm-apis",
    base_url="https://integrate.api.nvidia.com/v1",
    dialects=("openai_chat", "openai_embeddings"),
    more=("max_tokens",),
    example=("{kind: nvidia, api_key: env:NVIDIA_API_KEY}", "meta/llama-3.3-70b-instruct"),
)
