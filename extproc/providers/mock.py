"""The built-in mock: deterministic, needs nothing. `extproc up` starts it; `extproc mock` runs it alone."""

from extproc.providers import Credential, Provider

PROVIDER = Provider(
    gen_ai_name="mock",
    source="extproc/mock",
    base_url="http://127.0.0.1:8089/v1",
    dialects=("openai_chat", "openai_embeddings"),
    credential=Credential(),
    key_required=False,
    example=("{kind: mock}", "stub"),
)
