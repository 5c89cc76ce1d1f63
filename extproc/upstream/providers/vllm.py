"""vLLM; `base_url` is the address of your server, with /v1."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="vllm",
    source="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
    dialects=(
        "openai_chat",
        "openai_embeddings",
        "openai_completions",
        "rerank",
        "openai_transcriptions",
        "openai_audio_translations",
    ),
    more=("top_k",),
    key_required=False,
    example=("{kind: vllm, base_url: http://vllm.models.svc:8000/v1}", "meta-llama/Llama-3.3-70B-Instruct"),
)
