"""OpenAI, and any other service that speaks its API at a `base_url` of its own."""

from extproc.upstream.providers import Provider
from extproc.words.dialect import BatchLimits

REASON = ("gpt-5*", "gpt-6*", "o1*", "o3*", "o4*", "codex*")
"""Models that reason: https://developers.openai.com/api/docs/guides/reasoning"""

PROVIDER = Provider(
    gen_ai_name="openai",
    source="https://platform.openai.com/docs/api-reference",
    base_url="https://api.openai.com/v1",
    cache_keys=("openai_chat", "openai_responses"),
    dialects=(
        "openai_chat",
        "openai_responses",
        "openai_responses_input_tokens",
        "openai_responses_compact",
        "openai_embeddings",
        "openai_completions",
        "openai_moderations",
        "openai_images",
        "openai_speech",
        "openai_transcriptions",
        "openai_audio_translations",
        "openai_files",
        "openai_batches",
    ),
    # From GPT-5.4 on, chat completions refuse function tools together with reasoning, from 5.6 on even without an
    # effort: https://github.com/openai/openai-openapi/issues/541,
    # https://github.com/danny-avila/LibreChat/issues/14355
    prefers={"openai_responses": REASON},
    batches={"*": BatchLimits(2048, 300_000)},  # https://platform.openai.com/docs/api-reference/embeddings/create
    client_headers=("openai-beta",),
    catalogue="openai",
    example=("{kind: openai, api_key: env:OPENAI_API_KEY}", "gpt-6-luna"),
)
