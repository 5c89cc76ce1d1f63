"""Together AI."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="together",
    source="https://docs.together.ai/docs/openai-api-compatibility",
    base_url="https://api.together.xyz/v1",
    dialects=(
        "openai_chat",
        "openai_embeddings",
        "openai_completions",
        "rerank",
        "openai_images",
        "openai_speech",
        "openai_transcriptions",
        "openai_audio_translations",
    ),
    more=("max_tokens", "top_k"),
    catalogue="together",
    example=("{kind: together, api_key: env:TOGETHER_API_KEY}", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
)
