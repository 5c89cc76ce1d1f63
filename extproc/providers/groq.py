"""Groq."""

from extproc.providers import Provider

PROVIDER = Provider(
    gen_ai_name="groq",
    source="https://console.groq.com/docs/openai",
    base_url="https://api.groq.com/openai/v1",
    dialects=(
        "openai_chat",
        "openai_speech",
        "openai_transcriptions",
        "openai_audio_translations",
    ),
    catalogue="groq",
    example=("{kind: groq, api_key: env:GROQ_API_KEY}", "llama-3.3-70b-versatile"),
)
