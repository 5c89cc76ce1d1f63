"""Amazon Bedrock: Converse for every model, Anthropic's own API for Anthropic's models, and OpenAI's for its models.

Requests are signed by Envoy with the credentials it finds (environment, instance, pod identity); with an `api_key`, a
Bedrock API key, they carry the key instead.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from extproc.upstream.providers import Provider


class _Chunk(msgspec.Struct):
    bytes: bytes


_decode = msgspec.json.Decoder(_Chunk).decode


_RESPONSES = ("openai.gpt-5*", "*.openai.gpt-5*")
"""Models with OpenAI's Responses at this address; gpt-oss has them only at `bedrock-mantle`.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/inference-responses-api.html
"""


def adapt(dialect: str, model: str, stream: bool, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if dialect == "openai_responses":
        return f"/openai/v1{path}", body
    if dialect != "anthropic_messages":
        return path, body
    body = {name: value for name, value in body.items() if name not in ("model", "stream")}
    verb = "invoke-with-response-stream" if stream else "invoke"
    return f"/model/{quote(model, safe='')}/{verb}", {"anthropic_version": "bedrock-2023-05-31", **body}


def unwrap(data: bytes) -> bytes:
    """The event of Anthropic's inside a chunk of Bedrock's stream. Raises ValueError."""
    return _decode(data).bytes


PROVIDER = Provider(
    gen_ai_name="aws.bedrock",
    source="https://docs.aws.amazon.com/bedrock/latest/APIReference/welcome.html",
    base_url="https://bedrock-runtime.{region}.amazonaws.com",
    adapt=adapt,
    # The adaptation follows Anthropic's SDK: anthropic-sdk-python/src/anthropic/lib/bedrock/_client.py. Betas are a
    # field here: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html
    in_body={"anthropic-beta": "anthropic_beta"},
    # Converse accepts bytes and S3; for Claude at Bedrock "URL sources are not supported".
    no_urls=("aws_converse", "anthropic_messages"),
    unwrap={"anthropic_messages": unwrap},
    dialects=("aws_converse", "anthropic_messages", "openai_responses", "aws_titan_embed"),
    models={
        "anthropic_messages": ("anthropic.*", "*.anthropic.*"),
        "openai_responses": _RESPONSES,
        "aws_titan_embed": ("amazon.titan-embed-*",),
    },
    prefers={"openai_responses": _RESPONSES},
    signed_for="bedrock",
    catalogue="aws",
    example=("{kind: aws_bedrock, region: us-east-1}", "anthropic.claude-sonnet-4-6-v1:0"),
)
