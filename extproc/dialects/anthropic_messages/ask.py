"""The gateway's reading of a request.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from extproc.dialects import ADDED_TOKENS, MAX_TOKENS, _media, read_flag, read_integer, read_model
from extproc.dialects._conversation import effort_of, inner
from extproc.dialects._effort import asked
from extproc.dialects._named import EACH, ROUTERS
from extproc.dialects._refusals import wrong
from extproc.dialects._tooling import known, name_of, objects, plain_fields
from extproc.dialects._view import Answered, Call, Node, View
from extproc.words.api import Objects
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint, Fields
from extproc.words.messages import Effort

FIELDS = Fields(
    model="model",
    fixed=("model", "messages", "stream"),
    output_limits=("max_tokens",),
    needs={
        **dict.fromkeys(("images", "files"), ("messages",)),
        "tools": ("tools",),
        "json_schema": ("output_config", "output_format"),
        "hosted_tools": ("tools", "messages", "mcp_servers"),
        "hosted_call": ("tool_choice",),
        "thread": ("thread",),
        "state": ("thread",),
    },
    spoken=frozenset(("messages", "system")),
    files=frozenset(("data",)),
    opaque=frozenset(("data", "signature", "encrypted_content")),
    signed={"thinking": "signature"},
    options=("service_tier", "speed", "inference_geo"),
    # https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool
    models=(*ROUTERS, ("tools", EACH, "model")),
    also=("thinking", "tool_choice", "mcp_servers", "container"),
    inside=frozenset(
        (
            *("role", "content", "type", "text", "name", "id", "source", "data", "media_type", "url", "file_id"),
            *("tool_use_id", "input", "budget_tokens", "format"),
        )
    ),
    data=frozenset(("input", "input_schema", "schema", "metadata")),
)

_INLINE = ("text", "content")  # fields of text; a PDF is packed, and a kilobyte of it can hold a thousand pages
_RESULT = "tool_result"
OBJECTS = Objects(
    at={"container": "container", "container.id": "container"},
    answers={
        "id": "message",
        "message.id": "message",
        **dict.fromkeys(("container.id", "message.container.id", "delta.container.id"), "container"),
    },
    marks=(b'"message"', b'"container"'),
    clients=frozenset(("messages.content.input",)),
)

_SAID = frozenset(("text", "thinking", "redacted_thinking", "tool_use", "search_result", "tool_reference"))
_HOSTED = frozenset(
    (
        *("server_tool_use", "mcp_tool_use", "mcp_tool_result", "web_search_tool_result"),
        *("web_fetch_tool_result", "code_execution_tool_result", "tool_search_tool_result", "browser_state"),
        *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result"),
    )
)
"""Blocks that Anthropic's own tools add to the conversation."""
_CLIENT_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")  # defined by Anthropic, run by the client
_DEFINITION = 1280  # tokens of the definition of one of `_CLIENT_TOOLS`: at most 735, and 499 for using a computer


class MessagesView(View):
    """See `View`. A part is a block."""

    fields = FIELDS
    objects = OBJECTS
    system_at = "system"
    hosted_at = ("mcp_servers",)
    kept_at = ("thread",)
    roles = frozenset(("user", "assistant", "system"))
    speakers = {"system": "system"}  # noqa: RUF012

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        """See `ClientAPI.read`."""
        ask = self.read_input(body)
        limit = read_integer(body, "max_tokens", 0, MAX_TOKENS)
        if limit is None:
            raise wrong("'max_tokens' is required: the most tokens the answer may have.", "max_tokens")
        ask.output_field = "max_tokens"
        ask.max_output_tokens = max(1, limit)  # a limit of 0 only fills the prompt cache
        ask.thinking = self.thinking(body)
        return ask

    def read_input(self, body: Mapping[str, Any]) -> Ask:
        """Read the fields that a token count has, too. Raises Refusal (400)."""
        ask = Ask(read_model(body), read_flag(body, "stream"))
        if body.get("thread") is not None:  # anthropic-sdk-python/src/anthropic/types/beta/beta_message_thread_param.py
            ask.needs["thread"] = "thread"
            if inner(body, "thread", "type") != "create":  # the thread continues an earlier one, which Anthropic keeps
                ask.needs["state"] = "thread"
                ask.add_unseen("thread")
        for message in self.turns(body):
            if isinstance(content := message.get("content"), list):
                self.read_parts(content, ask)
        if body.get("container"):
            ask.add_unseen("container")
        if body.get("mcp_servers"):
            ask.add_hosted("mcp_servers", "mcp_servers")
        if body.get("tools"):
            self._read_tools(body, ask)
        if inner(body, "output_config", "format"):
            ask.needs["json_schema"] = "output_config"
        elif body.get("output_format"):
            ask.needs["json_schema"] = "output_format"
        if "tools" in ask.needs or "json_schema" in ask.needs:
            ask.added_tokens += ADDED_TOKENS
        return ask

    def _read_tools(self, body: Mapping[str, Any], ask: Ask) -> None:
        ask.needs["tools"] = "tools"
        hosted = self.read_tools(body["tools"], "tools", ask)
        if inner(body, "tool_choice", "name") in [tool.get("name", "") for tool in hosted]:
            ask.needs["hosted_call"] = "tool_choice"
        kinds = [tool.get("type") for tool in objects(body["tools"])]
        ask.added_tokens += _DEFINITION * sum(
            isinstance(kind, str) and kind.startswith(_CLIENT_TOOLS) for kind in kinds
        )

    def read_part(self, part: Node, ask: Ask) -> None:
        kind, source = part.get("type"), part.get("source")
        source = source if isinstance(source, dict) else {}
        if kind == "image":
            ask.needs["images"] = "messages"
            data = source.get("data")
            if source.get("type") == "base64" and isinstance(data, str):
                _media.add_image_data(ask, data)
            else:
                _media.add_image(ask, None, kind)
                ask.add_url(source.get("url"), "messages")
        elif kind == "document":
            content = source.get("content")
            self.read_parts(content, ask)
            if content is None:
                ask.needs["files"] = "messages"
            if source.get("type") not in _INLINE:
                _media.add_file(ask, source.get("data"), kind, text=False)
                ask.add_url(source.get("url"), "messages")
        elif kind == _RESULT:
            self.read_parts(part.get("content"), ask)
        elif isinstance(kind, str) and kind in _HOSTED:
            ask.add_hosted(kind, "messages")
        elif not (isinstance(kind, str) and kind in _SAID):
            ask.add_unseen(kind, "content")

    def is_own(self, kind: Any) -> bool:
        return kind in (None, "custom") or (isinstance(kind, str) and kind.startswith(_CLIENT_TOOLS))

    def hosted_in(self, node: Node) -> Sequence[str]:
        kind = node.get("type")
        return (kind,) if isinstance(kind, str) and kind in _HOSTED else ()

    def thinking(self, body: Mapping[str, Any]) -> int:
        """See `Offers.thinking`."""
        level, settings = inner(body, "output_config", "effort"), body.get("thinking")
        if not isinstance(settings, dict):
            return asked(level)
        kind = settings.get("type")
        tokens = settings.get("budget_tokens") if kind == "enabled" else 0 if kind != "adaptive" else None
        return asked(level, tokens, adaptive=kind == "adaptive")

    def effort(self, body: Mapping[str, Any]) -> Effort | None:
        found = effort_of(inner(body, "output_config", "effort"))
        return "high" if found is None and inner(body, "thinking", "type") == "enabled" else found

    def is_shaped(self, body: Mapping[str, Any]) -> bool:
        formats = inner(body, "output_config", "format"), body.get("output_format")
        return any(isinstance(one, dict) for one in formats) or inner(body, "tool_choice", "type") == "tool"

    def schema(self, body: Mapping[str, Any]) -> Any:
        wanted = inner(body, "output_config", "format") or body.get("output_format")
        return wanted.get("schema") if isinstance(wanted, dict) else None

    def offered(self, body: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
        return ((tool.get("name"), tool.get("input_schema")) for tool in objects(body.get("tools")))

    def is_result(self, node: Node) -> bool:
        return node.get("type") == _RESULT

    def calls_in(self, node: Node) -> Sequence[Call]:
        called = name_of(node.get("type")).endswith("tool_use")
        return (Call(name_of(node.get("name")), node.get("input"), (name_of(node.get("id")),)),) if called else ()

    def results_in(self, node: Node, names: Mapping[Any, str]) -> Sequence[Answered]:
        """Results of Anthropic's own tools cannot be replaced."""
        type = name_of(node.get("type"))
        if not type.endswith(_RESULT):
            return ()
        name = known(names, node.get("tool_use_id")) or type.removesuffix(_RESULT).removesuffix("_")
        return (Answered(name, node.get("content"), partial(_written, node) if type == _RESULT else None),)


def _written(block: Mapping[str, Any], text: str) -> dict[str, Any]:
    found = plain_fields(block, "type", "tool_use_id", "is_error") | {"content": text}
    if isinstance(marked := block.get("cache_control"), dict):  # the client's mark for the prompt cache
        found["cache_control"] = plain_fields(marked, "type", "ttl")
    return found
