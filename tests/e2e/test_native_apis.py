"""A model server with further APIs than its kind: their requests reach it as they are."""

from __future__ import annotations

from anthropic import Anthropic
from openai import OpenAI

from tests.e2e.conftest import KEY

YAML = """
providers:
  old: {kind: vllm, base_url: "{mock_old}"}
  new:
    kind: vllm
    base_url: "{mock_new}"
    headers: {anthropic-version: "2023-06-01"}  # the double is Anthropic's; vLLM does not ask for it
    native_apis: [openai_responses, anthropic_messages, anthropic_count_tokens]
models:
  old-llama: {provider: old, model: llama}
  new-llama: {provider: new, model: llama}
consumers:
  - {name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}
stores: {counters: "memory:"}
"""


def test_responses_messages_and_counts_are_native_where_the_server_has_them(start):
    gateway = start(YAML, mocks=("old", "new"))
    claude = Anthropic(base_url=gateway.url, auth_token=KEY, api_key=None, max_retries=0)
    chat = OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)
    for model in ("old-llama", "new-llama"):
        words = [{"role": "user", "content": "Hello"}]
        said = claude.messages.create(model=model, max_tokens=50, messages=words)
        assert said.content[0].text
        with claude.messages.stream(model=model, max_tokens=50, messages=words) as stream:
            assert stream.get_final_text()
        assert chat.responses.create(model=model, input="Hello").output_text
        assert claude.messages.count_tokens(model=model, messages=words).input_tokens > 0
        assert chat.chat.completions.create(model=model, messages=words).choices[0].message.content
    asked = {name: [each["path"].partition("?")[0] for each in gateway.seen(name)] for name in ("old", "new")}
    assert {*asked["old"]} == {"/v1/chat/completions"}
    assert {*asked["new"]} == {"/v1/messages", "/v1/responses", "/v1/messages/count_tokens", "/v1/chat/completions"}
