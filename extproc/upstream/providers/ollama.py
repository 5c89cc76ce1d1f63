"""Ollama, by default on this machine."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="ollama",
    source="https://docs.ollama.com/api/openai-compatibility",
    base_url="http://127.0.0.1:11434/v1",
    dialects=("openai_chat", "openai_embeddings", "openai_completions"),
    more=("max_tokens",),
    key_required=False,
    example=("{kind: ollama}", "llama3.3"),
)
