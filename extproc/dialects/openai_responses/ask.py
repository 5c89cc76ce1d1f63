"""The gateway's reading of a request.

Source: https://developers.openai.com/api/reference/resources/responses/methods/create

Content on OpenAI's servers is "state": earlier responses, conversations, stored prompts and items, compacted history,
answers in the background. Tools that the provider runs are "hosted_tools", and so are their items in the input. Other
APIs have neither state nor these tools. Their tokens are unknown until the provider has read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from extproc.dialects import ADDED_TOKENS, MAX_TOKENS, _media, _safety, read_flag, read_integer, read_model, token_count
from extproc.dialects._calls import add_calls
from extproc.dialects._conversation import effort_of, inner
from extproc.dialects._effort import asked
from extproc.dialects._named import EACH, ROUTERS
from extproc.dialects._refusals import wrong
from extproc.dialects._safety import read_safety
from extproc.dialects._tooling import known, name_of, objects, plain_fields
from extproc.dialects._view import Answered, Call, Node, View
from extproc.dialects.openai_responses.shapes import is_ours
from extproc.words.api import Objects
from extproc.words.dialect import NO_ENDPOINT, SAFETY, Ask, Endpoint, Fields, Tooling
from extproc.words.messages import Effort

_STORED = ("previous_response_id", "conversation", "prompt")

FIELDS = Fields(
    model="model",
    fixed=("model", "input", "stream"),
    output_limits=("max_output_tokens",),
    needs={
        **dict.fromkeys(("images", "files", "audio"), ("input",)),
        "tools": ("tools", "input"),
        "json_schema": ("text",),
        "logprobs": ("include", "top_logprobs"),
        "state": (*_STORED, "background", "input"),
        "hosted_tools": ("tools", "tool_choice", "input"),
        "hosted_call": ("tool_choice",),
        SAFETY: _safety.FIELDS,
    },
    spoken=frozenset(("input", "instructions")),
    files=frozenset(("data", "file_data")),
    opaque=frozenset(("data", "file_data", "result", "encrypted_content")),
    options=("service_tier",),
    models=(*ROUTERS, ("tools", EACH, "model"), ("moderation", "model")),
    also=("reasoning",),
    inside=frozenset(
        (
            *("role", "content", "type", "text", "name", "id", "call_id", "arguments", "input", "output", "summary"),
            *("image_url", "file_data", "file_id", "file_url", "data", "tools", "effort", "format"),
        )
    ),
    data=frozenset(("parameters", "schema", "metadata", "variables", "headers", "action", "actions", "operation")),
)

LOGPROBS = "message.output_text.logprobs"
"""Value of `include` that asks for log probabilities."""

_TRANSLATABLE = frozenset(
    (
        *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
        *("reasoning", "additional_tools"),
    )
)
_OURS = ("function", "custom", "namespace")  # tools that the client runs, and groups of them
_STATE = frozenset(("item_reference", "compaction", "compaction_trigger", "configuration_update"))
_TEXTS = frozenset(("input_text", "output_text", "refusal", "summary_text", "reasoning_text", "text"))
_RESULTS = ("function_call_output", "custom_tool_call_output")
_ARGUMENTS = ("arguments", "input")  # arguments of function calls, and of custom tool calls


class ResponsesView(View):
    """See `View`. A turn is an item."""

    fields = FIELDS
    turns_at = "input"
    turns_first = False
    system_at = "instructions"
    kept_at = ("previous_response_id", "conversation")
    hold_text = ("text", "content", "output")
    speakers = {"instructions": "system", "input": "user"}  # noqa: RUF012
    deep = False

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        """See `ClientAPI.read`."""
        ask = Ask(model=read_model(body), stream=read_flag(body, "stream"))
        ask.output_field = "max_output_tokens"
        ask.max_output_tokens = read_integer(body, "max_output_tokens", 1, MAX_TOKENS)
        needs = ask.needs
        for name in _STORED:
            if body.get(name) is not None:
                needs.setdefault("state", name)
                ask.add_unseen(name)
        self._read_input(body.get("input"), ask)
        read_safety(body, ask)
        if read_flag(body, "background"):
            needs.setdefault("state", "background")
            ask.lasting = True
        self._read_tools(body.get("tools"), "tools", ask)
        if ask.calls and (most := token_count(body.get("max_tool_calls"))) is not None:
            ask.calls = {kind: most if calls is None else min(calls, most) for kind, calls in ask.calls.items()}
        choice = inner(body, "tool_choice", "type")
        if isinstance(body.get("tool_choice"), dict) and choice not in (*_OURS, "allowed_tools"):
            ask.add_hosted(choice, "tool_choice")
            needs["hosted_call"] = "tool_choice"
        ask.thinking = self.thinking(body)
        if _format(body).get("type") == "json_schema":
            needs["json_schema"] = "text"
            ask.added_tokens = ADDED_TOKENS
        include = body.get("include")
        if isinstance(include, list) and LOGPROBS in include:
            needs["logprobs"] = "include"
        elif read_integer(body, "top_logprobs", 0, 20):
            needs["logprobs"] = "top_logprobs"
        return ask

    def _read_input(self, items: Any, ask: Ask) -> None:
        if isinstance(items, str) or (items is None and "state" in ask.needs):
            return
        if not isinstance(items, list) or not (items or "state" in ask.needs):
            raise wrong("'input' must be a text or a list with at least one item.", "input")
        for item in self.checked(items):
            self._read_item(item, items, ask)
            self.read_parts(item.get("content"), ask)
            self.read_parts(item.get("output"), ask)

    def _read_item(self, item: Node, items: list[Any], ask: Ask) -> None:
        type = "item_reference" if is_reference(item) else item.get("type")
        if type == "additional_tools":
            self._read_tools(item.get("tools"), "input", ask)
        elif type == "image_generation_call":
            if isinstance(item.get("result"), str):
                _media.add_image_data(ask, item["result"])
                ask.needs["images"] = "input"
            else:
                ask.add_hosted(type, "input")
                ask.add_unseen(type)
        elif isinstance(type, str) and type not in _TRANSLATABLE:
            if type == "item_reference" and is_resolved(item, items):
                return
            if type in _STATE:
                ask.needs.setdefault("state", "input")
                ask.add_unseen(type, "input")
            else:
                ask.add_hosted(type, "input")
        elif type == "reasoning" and _is_kept(item):
            ask.add_unseen(type)

    def read_part(self, part: Node, ask: Ask) -> None:
        type = part.get("type")
        if type == "input_image":
            ask.needs["images"] = "input"
            _media.add_image(ask, part.get("image_url"), type)
            ask.add_url(part.get("image_url"), "input")
        elif type == "input_file":
            ask.needs["files"] = "input"
            data = part.get("file_data")
            ask.add_url(part.get("file_url"), "input")
            elsewhere = part.get("file_id") or part.get("file_url")
            _media.add_file(ask, data, type, text=not elsewhere and _media.is_text(data))
        elif type == "input_audio":
            ask.needs["audio"] = "input"
            _media.add_audio(ask, inner(part, type, "data"), type)
        elif not (isinstance(type, str) and type in _TEXTS):
            ask.add_unseen(type, "input")

    def _read_tools(self, tools: Any, field: str, ask: Ask) -> None:
        for tool in tools if isinstance(tools, list) else ():
            type = tool.get("type") if isinstance(tool, dict) else None
            ask.added_tokens = ADDED_TOKENS
            if type in _OURS:
                ask.needs.setdefault("tools", field)
            else:
                ask.add_hosted(type, field)
                add_calls(ask, type, tool)

    def is_own(self, kind: Any) -> bool:
        return kind in _OURS

    def hosted_in(self, node: Node) -> Sequence[str]:
        type = node.get("type")
        if type == "image_generation_call":
            return () if isinstance(node.get("result"), str) else (type,)
        return (type,) if isinstance(type, str) and type not in _TRANSLATABLE and type not in _STATE else ()

    def without_hosted(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[str]]:
        """See `ClientTranslation.without_hosted`. Items may offer tools, too."""
        made, dropped = super().without_hosted(body)
        if not isinstance(items := made.get("input"), list):
            return made, dropped
        more: list[str] = []
        own = [
            {**item, "tools": self.own_tools(item["tools"], more)}
            if item.get("type") == "additional_tools" and isinstance(item.get("tools"), list)
            else item
            for item in items
        ]
        return {**made, "input": own}, list(dict.fromkeys([*dropped, *more]))

    def thinking(self, body: Mapping[str, Any]) -> int:
        """See `Offers.thinking`."""
        return asked(inner(body, "reasoning", "effort"))

    def effort(self, body: Mapping[str, Any]) -> Effort | None:
        return effort_of(inner(body, "reasoning", "effort"))

    def is_shaped(self, body: Mapping[str, Any]) -> bool:
        shaped = _format(body).get("type") in ("json_schema", "json_object")
        return shaped or inner(body, "tool_choice", "type") == "function"

    def schema(self, body: Mapping[str, Any]) -> Any:
        wanted = _format(body)
        return {} if wanted.get("type") == "json_object" else wanted.get("schema")

    def speaker(self, turn: Node) -> str:
        """Role of an item, or the speaker of its type."""
        role, kind = turn.get("role"), turn.get("type")
        if isinstance(role, str):
            return role
        if not isinstance(kind, str):
            return ""
        return "tool" if kind.endswith("_output") else "assistant"

    def offered(self, body: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
        for entry in objects(body.get("tools")):
            for tool in (entry, *objects(entry.get("tools"))):
                if tool.get("type") in ("function", "custom"):
                    yield tool.get("name"), tool.get("parameters")

    def is_result(self, node: Node) -> bool:
        return node.get("type") in _RESULTS

    def calls_in(self, node: Node) -> Sequence[Call]:
        """Calls in an item. A hosted tool's call is an item with its result; the whole item is its arguments."""
        type = name_of(node.get("type"))
        if not type.endswith("_call"):
            return ()
        given = next((node[name] for name in _ARGUMENTS if name in node), node)
        tool = name_of(node.get("name")) or type.removesuffix("_call")
        return (Call(tool, given, (name_of(node.get("call_id")),)),)

    def results_in(self, node: Node, names: Mapping[Any, str]) -> Sequence[Answered]:
        """Results in an item. Items of hosted tools hold their results, which cannot be replaced."""
        type = name_of(node.get("type"))
        if type.endswith("_call") and "call_id" not in node:
            return (Answered(names[""], None, None),)
        if not type.endswith("_output"):
            return ()
        written = partial(_written, node) if self.is_result(node) else None
        return (Answered(known(names, node.get("call_id")), node.get("output"), written),)

    def tooling(self, body: Mapping[str, Any]) -> Tooling:
        """See `Tools.tooling`. A reference may stand for any tool's result."""
        found = super().tooling(body)
        found.results += ["" for item in objects(body.get("input")) if _may_refer(item)]
        return found


def _may_refer(item: Node) -> bool:
    type = name_of(item.get("type"))
    return type == "item_reference" or (not type and "role" not in item)


def _format(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Format of the answer; empty for a request without one."""
    found = inner(body, "text", "format")
    return found if isinstance(found, dict) else {}


def _written(item: Mapping[str, Any], text: str) -> dict[str, Any]:
    return plain_fields(item, "type", "id", "call_id", "name") | {"output": text}


def _is_kept(reasoning: Mapping[str, Any]) -> bool:
    """True when OpenAI keeps the item's thinking."""
    id = reasoning.get("id")
    return bool(id) and not (reasoning.get("encrypted_content") or reasoning.get("content") or is_ours(id))


def is_resolved(reference: Mapping[str, Any], items: list[Any]) -> bool:
    """True when the request has the item that a reference names."""
    id = reference.get("id")
    named = (item for item in items if isinstance(item, dict) and item is not reference)
    return any(item.get("id") == id and item.get("type") not in ("item_reference", None) for item in named)


def refers(item: Mapping[str, Any], resolved: bool) -> bool:
    """See `Objects.refers`. Calls, results and messages are complete, so their ids are only echoes."""
    type = item.get("type")
    if is_reference(item):
        return not resolved
    if type == "image_generation_call":
        return not isinstance(item.get("result"), str)
    return type == "reasoning" and _is_kept(item)


def is_reference(item: Mapping[str, Any]) -> bool:
    """True for an item that only refers to another item's id."""
    return item.get("type") == "item_reference" or (item.get("type") is None and "role" not in item and "id" in item)


OBJECTS = Objects(
    at={
        "conversation": "conversation",
        "conversation.id": "conversation",
        "prompt.id": "prompt",
        "tools.container": "container",
        "input.tools.container": "container",
    },
    items="input",
    refers=refers,
    ours=is_ours,
)
