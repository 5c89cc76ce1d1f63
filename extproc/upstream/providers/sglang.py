"""SGLang; `base_url` is the address of your server, with /v1."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="sglang",
    source="https://docs.sglang.ai/basic_usage/openai_api.html",
    dialects=("openai_chat", "openai_embeddings", "openai_completions", "rerank"),
    more=("top_k",),
    key_required=False,
    example=(
        "{kind: sglang, base_url: http://sglang.models.svc:30000/v1}",
        "meta-llama/Llama-3.3-70B-Instruct",
    ),
)
