"""The built-in mock: the same words for the same request. `extproc up` starts it; `extproc mock` runs it alone.

An answer repeats the last user message, and calls the first tool if there are any. A model's name may ask for a fault,
such as `stub+status=503` or `stub+pace=50ms+words=100`; `extproc mock --help` lists the faults. No key is needed.
"""

from extproc.upstream.providers import Credential, Provider

PROVIDER = Provider(
    gen_ai_name="mock",
    source="extproc/upstream/mock",
    base_url="http://127.0.0.1:8089/v1",
    dialects=("openai_chat", "openai_embeddings"),
    credential=Credential(),
    key_required=False,
    example=("{kind: mock}", "stub"),
)
