"""Images and files at addresses on the web: targets that fetch nothing are skipped."""

import json

from tests.talk import asks, error, sends, talk

YAML = """
providers:
  openai: {kind: openai, api_key: env:PATH}
  anthropic: {kind: anthropic, api_key: env:PATH}
  bedrock: {kind: aws_bedrock, region: us-east-1}
  vertex: {kind: gcp_vertex_ai, region: eu, project: p, api_key: env:PATH}
  cohere: {kind: cohere, api_key: env:PATH}
models:
  gpt-4o: {provider: openai}
  claude: {provider: anthropic, model: claude-sonnet-4-6}
  nova: {provider: bedrock, model: amazon.nova-pro-v1:0}
  claude-aws: {provider: bedrock, model: anthropic.claude-sonnet-4-6-v1:0}
  claude-google: {provider: vertex, model: claude-sonnet-4-6}
  gemini: {provider: vertex, model: gemini-2.5-pro}
  command: {provider: cohere, model: command-a-vision-07-2025}
virtual_models:
  all: {targets: [{model: nova}, {model: claude-aws}, {model: claude-google}, {model: gemini}, {model: command},
                  {model: claude}, {model: gpt-4o}], retry: {attempts: 9}}
  aws: {targets: [{model: nova}, {model: claude-aws}]}
auth: {required: false}
"""
URL = "https://images.test/cat.png"
DATA = "data:image/png;base64,iVBORw0KGgo="
FETCH_NOTHING = {"nova": "dialect", "claude-aws": "dialect", "claude-google": "dialect"}


def chat(*parts):
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": list(parts)}]}


def responses(*parts):
    return "/v1/responses", {"input": [{"role": "user", "content": list(parts)}], "store": False}


def messages(*blocks):
    return "/v1/messages", {"messages": [{"role": "user", "content": list(blocks)}], "max_tokens": 9}


BY_URL = [
    chat({"type": "image_url", "image_url": {"url": URL}}),
    responses({"type": "input_image", "image_url": URL}),
    messages({"type": "image", "source": {"type": "url", "url": URL}}),
]
FILES = [
    responses({"type": "input_file", "file_url": "https://files.test/a.pdf"}),
    messages({"type": "document", "source": {"type": "url", "url": "https://files.test/a.pdf"}}),
]
INLINE = [
    chat({"type": "image_url", "image_url": {"url": DATA}}),
    responses({"type": "input_image", "image_url": DATA}),
    messages({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA[22:]}}),
]


async def ask(gateway, path, body, model="all"):
    stream = gateway.stream()
    _, answer = await talk(stream, asks(path), sends(body | {"model": model}))
    return answer, {skip.target.name: skip.reason for skip in stream._exchange.route.skipped}


async def test_targets_that_fetch_nothing_are_skipped(world):
    gateway = world(YAML)
    for path, body in BY_URL:
        assert (await ask(gateway, path, body))[1] == FETCH_NOTHING, path
    for path, body in FILES:
        assert (await ask(gateway, path, body))[1].items() >= FETCH_NOTHING.items(), path
    for path, body in INLINE:
        assert (await ask(gateway, path, body))[1] == {}, path


async def test_the_refusal_names_the_targets_and_the_remedy(world):
    gateway = world(YAML)
    for path, body in BY_URL:
        answer, _ = await ask(gateway, path, body, "aws")
        said = json.loads(answer.body)["error"]["message"]
        assert answer.status == 400
        assert "nova: provider bedrock fetches no images or files by URL (send them in base64)" in said
        assert "claude-aws: provider bedrock" in said
    assert error((await ask(gateway, *BY_URL[0], "aws"))[0]) == (400, "unsupported_by_targets", "gateway")
