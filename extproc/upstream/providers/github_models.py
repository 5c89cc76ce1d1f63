"""GitHub Models."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="github_models",
    source="https://docs.github.com/en/rest/models/inference",
    base_url="https://models.github.ai/inference",
    dialects=("openai_chat", "openai_embeddings"),
    example=("{kind: github_models, api_key: env:GITHUB_TOKEN}", "meta/Llama-3.3-70B-Instruct"),
)
