"""Google's Gemini API, with a key of AI Studio."""

from extproc.upstream.providers import Credential, Provider

PROVIDER = Provider(
    gen_ai_name="gcp.gemini",
    source="https://ai.google.dev/api/generate-content",
    base_url="https://generativelanguage.googleapis.com/v1beta",
    dialects=(
        "gemini_generate_content",
        "gemini_embeddings",
        "gemini_count_tokens",
        "gemini_embed_content",
        "gemini_batches",
        "gemini_files",
    ),
    client_query=("alt",),
    client_headers=(  # https://ai.google.dev/gemini-api/docs/files
        "x-goog-upload-protocol",
        "x-goog-upload-command",
        "x-goog-upload-offset",
        "x-goog-upload-header-content-length",
        "x-goog-upload-header-content-type",
    ),
    credential=Credential("x-goog-api-key", ""),
    catalogue="google",
    example=("{kind: gcp_gemini, api_key: env:GEMINI_API_KEY}", "gemini-3.8-flash"),
)
