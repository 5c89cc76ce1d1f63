"""A client's request in the neutral form.

Source: https://developers.openai.com/api/reference/resources/responses/methods/create

Items of the input become turns: consecutive texts, thinking and calls of the model are one message, and so are
consecutive tool results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from extproc.dialects import safe_names
from extproc.dialects._effort import LEVELS
from extproc.dialects._refusals import convert, unsupported, wrong
from extproc.dialects.openai_chat.media import data_url, file_type
from extproc.dialects.openai_chat.shapes import MODES
from extproc.dialects.openai_responses import ask, custom, shapes, signature
from extproc.words.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Part,
    Prompt,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

_CARRIED = frozenset((*shapes.Request.__struct_fields__, "stream_options", "background"))
_OF_A_TOOL = frozenset(shapes.Tool.__struct_fields__)
_VIEW = ask.ResponsesView()
_HERE_ONLY = {
    "state": "content that a provider stores can only be used there: send the whole conversation in 'input'.",
    "hosted_tools": "tools that OpenAI runs itself exist nowhere else: use functions.",
}


def decode(body: Mapping[str, Any]) -> Prompt:
    """The neutral form of a request. Raises Refusal (400) with the field's name."""
    asks = _VIEW.read(body)
    for need, why in _HERE_ONLY.items():
        if (field := asks.needs.get(need)) is not None:
            raise unsupported(f"'{field}': {why}", field)
    asked = convert(body, shapes.Request)
    prompt = Prompt(
        model=asked.model,
        messages=[],
        system=[TextPart(asked.instructions)] if asked.instructions else [],
        stream=asked.stream is True,
        tools=[*_tools(asked.tools)],
        parallel_tools=asked.parallel_tool_calls,
        max_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        user=asked.safety_identifier or asked.user or "",
        metadata=asked.metadata or {},
        service_tier=asked.service_tier or "",
    )
    if "logprobs" in asks.needs:
        prompt.logprobs = asked.top_logprobs or 0
    if isinstance(asked.input, str):
        prompt.messages.append(Message("user", [TextPart(asked.input)]))
    else:
        _Conversation(prompt).read(asked.input)
    _choose_tools(asked.tool_choice, prompt)
    if asked.text is not None:
        prompt.format = _format(asked.text.format)
    if asked.reasoning is not None:
        if asked.reasoning.effort is not None:
            prompt.effort = LEVELS.get(asked.reasoning.effort)
        if asked.reasoning.summary or asked.reasoning.generate_summary:
            prompt.show_thinking = True
    prompt.ignored = safe_names(sorted({*_ignored(body)}))
    return prompt


def _ignored(body: Mapping[str, Any]) -> Iterator[str]:
    """Names of effective fields that the neutral form cannot express."""
    for name, value in body.items():
        if name in _CARRIED or value is None or value is False or (name == "truncation" and value == "disabled"):
            continue
        yield name
    if any(name not in (ask.LOGPROBS, "reasoning.encrypted_content") for name in body.get("include") or ()):
        yield "include"
    if (body.get("text") or {}).get("verbosity"):
        yield "text.verbosity"
    reasoning = body.get("reasoning") or {}
    for name, value in reasoning.items():
        if value and (name not in shapes.Reasoning.__struct_fields__ or (name == "effort" and value not in LEVELS)):
            yield f"reasoning.{name}"
    for tool in body.get("tools") or ():
        if not tool.keys() <= _OF_A_TOOL:
            for name in tool.keys() - _OF_A_TOOL:
                if tool[name]:
                    yield f"tools.{name}"
        if (tool.get("format") or {}).get("type") == "grammar":
            yield "tools.format"


# --- the input


class _Conversation:
    """Converts items to messages."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._said: list[Part] | None = None  # parts of the model's current turn
        self._results: list[Part] | None = None  # results of the current turn of tools
        self._signatures: dict[str, str] = {}  # signatures of calls, by call id
        self._calls: list[ToolCall] = []

    def read(self, items: Sequence[shapes.Item]) -> None:
        for index, item in enumerate(items):
            where = f"input[{index}]"
            kind = item.type or "message"
            if kind == "item_reference" or (item.type is None and item.role is None and item.id):
                continue  # the input has the item itself, see `ask.is_resolved`
            if kind == "message":
                self._message(item, where)
            elif kind in ("function_call_output", "custom_tool_call_output"):
                self._prompt.late = 0
                self._result(item, where)
            elif kind == "additional_tools":
                self._prompt.tools += _tools(item.tools)
            else:
                self._results = None
                self._prompt.late = 0
                said = self._turn_parts()
                if kind == "reasoning":
                    self._reasoning(item, where, said)
                elif kind == "image_generation_call":
                    said.append(ImagePart(data=item.result or "", media_type=f"image/{item.output_format or 'png'}"))
                else:
                    call = _call(item, kind, where)
                    self._calls.append(call)
                    said.append(call)
        for call in self._calls:
            call.signature = self._signatures.get(call.id, "")
        self._prompt.messages[:] = [message for message in self._prompt.messages if message.parts]

    def _turn_parts(self) -> list[Part]:
        if self._said is None:
            self._said = []
            self._prompt.messages.append(Message("assistant", self._said))
        return self._said

    def _message(self, item: shapes.Item, where: str) -> None:
        role, content = item.role, item.content
        if content is None:
            raise wrong(f"'{where}.content' is missing.", f"{where}.content")
        if role not in ("user", "assistant", "system", "developer"):
            raise wrong(f"'{where}.role' must be a role of this API.", f"{where}.role")
        parts: list[Part]
        if isinstance(content, str):
            parts = [TextPart(content)]
        else:
            parts = [
                _part(part, f"{where}.content[{number}]", by_model=role == "assistant")
                for number, part in enumerate(content)
            ]
        if role in ("system", "developer"):
            for part in parts:
                if not isinstance(part, TextPart):
                    raise wrong(f"'{where}.content' can only be text.", f"{where}.content")
                self._prompt.system.append(part)
                self._prompt.late += 1
            return
        self._prompt.late = 0
        self._results = None
        if role == "assistant":
            self._turn_parts().extend(parts)
        else:
            self._said = None
            self._prompt.messages.append(Message("user", parts))

    def _result(self, item: shapes.Item, where: str) -> None:
        if not item.call_id:
            raise wrong(f"'{where}.call_id' must name the call that this answers.", f"{where}.call_id")
        if item.output is None:
            raise wrong(f"'{where}.output' is missing.", f"{where}.output")
        found: list[TextPart | ImagePart | FilePart] = []
        if isinstance(item.output, str):
            found.append(TextPart(item.output))
        else:
            for number, said in enumerate(item.output):
                at = f"{where}.output[{number}]"
                part = _part(said, at, by_model=False)
                if not isinstance(part, TextPart | ImagePart | FilePart):
                    raise wrong(f"'{at}' can only be text, an image or a file.", at)
                found.append(part)
        self._said = None
        if self._results is None:
            self._results = []
            self._prompt.messages.append(Message("user", self._results))
        self._results.append(ToolResult(item.call_id, found, name=item.name or ""))

    def _reasoning(self, item: shapes.Item, where: str, said: list[Part]) -> None:
        shown = item.summary or (item.content if isinstance(item.content, list) else None) or ()
        text = "\n\n".join(part.text for part in shown if part.text)
        try:
            proof = signature.unpack(item.id or "", item.encrypted_content or "")
        except ValueError:
            at = f"{where}.encrypted_content"
            raise wrong(f"'{at}' did not come back as it was sent.", at) from None
        self._signatures |= proof.calls
        if text or proof.signature or proof.redacted:
            said.append(ThinkingPart(text, proof.signature, proof.redacted))


def _call(item: shapes.Item, kind: str, where: str) -> ToolCall:
    if not item.call_id or not item.name:
        name = "name" if item.call_id else "call_id"
        raise wrong(f"'{where}.{name}' is missing.", f"{where}.{name}")
    written = item.arguments if kind == "function_call" else item.input
    if written is None:
        name = "arguments" if kind == "function_call" else "input"
        raise wrong(f"'{where}.{name}' is missing.", f"{where}.{name}")
    arguments = written if kind == "function_call" else custom.arguments(written)
    return ToolCall(item.call_id, item.name, arguments, namespace=item.namespace or "")


def _part(part: shapes.Part, where: str, *, by_model: bool) -> Part:
    kind = part.type
    if kind in ("input_text", "output_text") and part.text is not None:
        return TextPart(part.text, _mark(part))
    if kind == "refusal" and by_model and part.refusal is not None:
        return RefusalPart(part.refusal)
    if kind == "input_image":
        return _image(part, where)
    if kind == "input_file":
        return _file(part, where)
    if kind == "input_audio" and part.input_audio is not None:
        return AudioPart(part.input_audio.data, part.input_audio.format)
    raise wrong(f"'{where}' must be a part of this API.", where)


def _image(part: shapes.Part, where: str) -> ImagePart:
    url = part.image_url
    if not url:
        if part.file_id:
            raise unsupported(f"'{where}.file_id': send the image itself, as a data URL.", f"{where}.file_id")
        raise wrong(f"'{where}.image_url' is missing.", where)
    if not url.startswith("data:"):
        return ImagePart(url=url, detail=part.detail or "", cache=_mark(part))
    media_type, data = data_url(url, where)
    return ImagePart(data=data, media_type=media_type, detail=part.detail or "", cache=_mark(part))


def _file(part: shapes.Part, where: str) -> FilePart:
    name = part.filename or ""
    if part.file_data:
        if part.file_data.startswith("data:"):
            media_type, data = data_url(part.file_data, where)
        else:
            media_type, data = "", part.file_data
        media_type = media_type or file_type(name)
        return FilePart(data=data, media_type=media_type, name=name, cache=_mark(part))
    if part.file_url:
        return FilePart(url=part.file_url, name=name, cache=_mark(part))
    if part.file_id:
        return FilePart(id=part.file_id, name=name, cache=_mark(part))
    raise wrong(f"'{where}' needs file_data, file_url or file_id.", where)


def _mark(part: shapes.Part) -> Mapping[str, Any] | None:
    """The cache mark in Anthropic's form. Its longer lifetime stands for any lifetime of this mark."""
    if not part.prompt_cache_breakpoint:
        return None
    return {"type": "ephemeral", "ttl": "1h"} if part.prompt_cache_breakpoint.get("ttl") else {"type": "ephemeral"}


# --- tools and format


def _tools(tools: Sequence[shapes.Tool] | None) -> Iterator[Tool]:
    """Tools, with those of groups. The first tool of a group has the group's description."""
    for tool in tools or ():
        if tool.type != "namespace":
            yield _tool(tool)
            continue
        about = tool.description or ""
        for inner in tool.tools or ():
            if not isinstance(inner.type, str) or inner.type not in ("function", "custom"):
                raise wrong(f"'tools' has a group {tool.name[:64]!r} with more than functions.", "tools")
            found = _tool(inner)
            found.namespace, found.about, about = tool.name, about, ""
            yield found


def _tool(tool: shapes.Tool) -> Tool:
    if tool.type == "function":
        return Tool(tool.name, tool.description or "", tool.parameters or {}, tool.strict)
    description, wanted = tool.description or "", tool.format
    if wanted is not None and wanted.definition:
        description = custom.describe(description, wanted.syntax or "", wanted.definition)
    return Tool(tool.name, description, custom.SCHEMA)


def _choose_tools(choice: str | shapes.ChosenTool | None, prompt: Prompt) -> None:
    """Set the tools that the model may or must call. `allowed_tools` excludes all other tools."""
    if choice is None:
        return
    if isinstance(choice, str):
        mode = MODES.get(choice)
        if mode is None:
            _wrong_choice()
        prompt.tool_choice = ToolChoice(mode)
    elif choice.type == "allowed_tools":
        if choice.mode is None or choice.tools is None:
            _wrong_choice()
        allowed = {tool.name for tool in choice.tools if tool.type in ("function", "custom")}
        prompt.tools = [tool for tool in prompt.tools if tool.name in allowed]
        prompt.tool_choice = ToolChoice(choice.mode)
    else:
        if not choice.name:
            _wrong_choice()
        prompt.tool_choice = ToolChoice("tool", choice.name)


def _wrong_choice() -> NoReturn:
    raise wrong("'tool_choice' must be auto, none, required, allowed tools or name a function.", "tool_choice")


def _format(asked: shapes.Format | None) -> OutputFormat | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return OutputFormat()
    if asked.schema is None:
        raise wrong("'text.format.schema' is missing.", "text.format.schema")
    return OutputFormat(asked.schema, asked.name or "", asked.description or "", asked.strict)
