"""A request for Converse.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html and, for Claude on Bedrock,
https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.dialects import _effort, _limits
from extproc.dialects._models import Traits
from extproc.dialects.anthropic_messages.provider_request import JSON_ONLY, add_sampling
from extproc.dialects.anthropic_messages.schema import Fitter, strict_schemas
from extproc.dialects.anthropic_messages.thinking import plan
from extproc.dialects.aws_converse.conversation import ConverseMessages, Json, cache_point
from extproc.dialects.aws_converse.models import family_of
from extproc.words.dialect import Destination
from extproc.words.messages import Effort, Prompt

_TIERS = {tier: tier for tier in ("default", "flex", "priority", "reserved")} | {
    "standard": "default",
    "standard_only": "default",
}
_MOST_METADATA = 16
_LEVELS: Mapping[Effort, str] = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}
_can_be_metadata = re.compile(r"[A-Za-z0-9\s:_@$#=/+,.-]{1,256}").fullmatch
_encode = msgspec.json.encode


def encode(prompt: Prompt, destination: Destination) -> tuple[Json, Sequence[str]]:
    """The body of a request, and the names of the prompt's fields that it cannot express."""
    made = _Request(prompt, destination)
    return made.body, list(dict.fromkeys(made.ignored))


class _Request:
    """Builds a request. `inference` has the settings of all models, `more` a family's own settings."""

    def __init__(self, prompt: Prompt, destination: Destination) -> None:
        self.ignored: list[str] = []
        self._prompt = prompt
        self._family = family = family_of(destination.model)
        conversation = ConverseMessages(family, self.ignored)
        for message in prompt.messages:
            conversation.add(message)
        self.body: Json = {"messages": conversation.finish()}
        most = destination.max_output_tokens
        limit = _limits.capped(prompt.max_tokens or most, most)
        self._inference: Json = {} if limit is None else {"maxTokens": limit}
        self._more: Json = {}
        self._forced_tools = True
        self._add_system()
        if family.claude is not None:
            self._add_claude(destination, family.claude)
        else:
            self._add_sampling()
            self._add_effort()
        self._add_format()
        self._add_tools(conversation.called())
        self._add_rest()
        if self._inference:
            self.body["inferenceConfig"] = self._inference
        if self._more:
            self.body["additionalModelRequestFields"] = self._more

    def _add_system(self) -> None:
        blocks: list[Json] = []
        for part in self._prompt.system:
            if part.text.strip():
                blocks.append({"text": part.text})
                self._add_mark(part.cache, blocks, can=self._family.caches)
        if self._prompt.format is not None and self._prompt.format.schema is None:
            blocks.append({"text": JSON_ONLY})
        if blocks:
            self.body["system"] = blocks

    def _add_mark(self, cache: Mapping[str, Any] | None, blocks: list[Json], *, can: bool) -> None:
        if cache and can:
            blocks.append(cache_point(cache, self._family))
        elif cache:
            self.ignored.append("cache_control")

    # --- thinking and sampling

    def _add_claude(self, destination: Destination, traits: Traits) -> None:
        """Add settings of Claude, in Anthropic's own words."""
        made = plan(self._prompt, destination, traits, self.ignored, in_turn=_in_turn(self.body["messages"]))
        by_budget = made.thinking is not None and made.thinking["type"] == "enabled"
        if made.thinking is not None:
            # Some regions do not know `display` with a budget; they always show thinking.
            if by_budget and made.thinking.pop("display", "") == "omitted":
                self.ignored.append("thinking.display")
            self._more["thinking"] = made.thinking
        if made.effort is not None:
            self.body["outputConfig"] = {"effort": made.effort}
        if self._inference or by_budget:
            self._inference["maxTokens"] = made.max_tokens
        sampling: Json = {}
        add_sampling(self._prompt, traits, made, sampling, self.ignored)
        for name, ours in (("temperature", "temperature"), ("top_p", "topP")):
            if name in sampling:
                self._inference[ours] = sampling[name]
        if "top_k" in sampling:
            self._more["top_k"] = sampling["top_k"]
        self._forced_tools = made.forced_tools

    def _add_sampling(self) -> None:
        prompt = self._prompt
        if prompt.temperature is not None:
            self._inference["temperature"] = min(prompt.temperature, 1.0)
            if prompt.temperature > 1:
                self.ignored.append("temperature")
        if prompt.top_p is not None:
            self._inference["topP"] = prompt.top_p
        if prompt.top_k is not None and self._family.nova:
            self._more["inferenceConfig"] = {"topK": prompt.top_k}
        elif prompt.top_k is not None:
            self.ignored.append("top_k")

    def _add_effort(self) -> None:
        """Add the effort for models other than Claude."""
        prompt, kind = self._prompt, self._family.effort
        wanted = _effort.asked_effort(prompt)
        if wanted is None and prompt.thinking_adaptive and kind != "openai":  # other models decide by default
            wanted = "medium"
        if wanted is None:
            return
        if kind == "openai":
            self._more["reasoning"] = {"effort": "low" if wanted == "minimal" else wanted}
            return
        able = wanted != "none" and kind != ""
        if able and kind == "oss":
            self._more["reasoning_effort"] = _LEVELS[wanted]
        # High effort allows no limit and no sampling
        elif able and _LEVELS[wanted] == "high" and prompt.max_tokens is None:
            self.ignored += [name for name in ("temperature", "top_p", "top_k") if getattr(prompt, name) is not None]
            self._inference, self._more = {}, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}
        elif able:
            level = "low" if _LEVELS[wanted] == "low" else "medium"
            self._more["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": level}
            able = level == _LEVELS[wanted]
        if not able and (wanted != "none" or kind == "oss"):  # oss models always think
            self.ignored.append("reasoning_effort" if prompt.effort is not None else "thinking")

    # --- tools and format

    def _add_format(self) -> None:
        wanted = self._prompt.format
        if wanted is None:
            return
        if wanted.schema is None:
            self.ignored.append("response_format")
            return
        fitter = Fitter()
        schema = {"name": wanted.name or "answer", "schema": _encode(fitter.fit(wanted.schema)).decode()}
        if wanted.description:
            schema["description"] = wanted.description
        if fitter.closed:
            self.ignored.append("response_format")
        form = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        self.body["outputConfig"] = self.body.get("outputConfig", {}) | {"textFormat": form}

    def _add_tools(self, called: Sequence[str]) -> None:
        """Add the tools. `called` are tools of past calls, which need a definition even if no more calls may follow."""
        prompt, claude = self._prompt, self._family.claude
        mode = prompt.tool_choice.mode if prompt.tool_choice is not None else "auto"
        if not prompt.tools and called:
            specs = [{"name": name, "inputSchema": {"json": {"type": "object"}}} for name in called]
            self.body["toolConfig"] = {"tools": [{"toolSpec": spec} for spec in specs]}
        if not prompt.tools or (mode == "none" and not called):  # a tool choice requires tools
            return
        schemas = strict_schemas(prompt.tools) if claude is not None and claude.strict else None
        if schemas is None and any(tool.strict for tool in prompt.tools):
            self.ignored.append("strict")
        tools: list[Json] = []
        for index, tool in enumerate(prompt.tools):
            strict = schemas is not None and index in schemas
            schema = schemas[index] if schemas is not None and strict else tool.schema
            if schema.get("type") != "object":
                schema = {**schema, "type": "object"}
            spec: Json = {"name": tool.name, "inputSchema": {"json": schema}}
            if tool.description:
                spec["description"] = tool.description
            if strict:
                spec["strict"] = True
            tools.append({"toolSpec": spec})
            self._add_mark(tool.cache, tools, can=claude is not None)
        config: Json = {"tools": tools}
        self.body["toolConfig"] = config
        if mode == "none" or (mode != "auto" and not self._forced_tools):
            self.ignored.append("tool_choice")
        elif mode == "required":
            config["toolChoice"] = {"any": {}}
        elif mode == "tool" and prompt.tool_choice is not None:
            config["toolChoice"] = {"tool": {"name": prompt.tool_choice.name}}
        if prompt.parallel_tools is False:
            self.ignored.append("parallel_tool_calls")

    # --- service tier and metadata

    def _add_rest(self) -> None:
        prompt, body = self._prompt, self.body
        if stop := [word for word in prompt.stop if word.strip()]:
            self._inference["stopSequences"] = stop
            if self._family.claude is not None:
                body["additionalModelResponseFieldPaths"] = ["/stop_sequence"]
        if tier := _TIERS.get(prompt.service_tier):
            body["serviceTier"] = {"type": tier}
        metadata = {key: value for key, value in prompt.metadata.items() if _fits(key) and _fits(value)}
        if 0 < len(metadata) <= _MOST_METADATA:
            body["requestMetadata"] = metadata
        self.ignored += [
            name
            for name, unsaid in (
                ("stop", len(stop) < len(prompt.stop)),
                ("service_tier", not tier and prompt.service_tier not in ("", "auto")),
                ("metadata", body.get("requestMetadata", {}) != prompt.metadata),
                ("seed", prompt.seed is not None),
                ("presence_penalty", bool(prompt.presence_penalty)),
                ("frequency_penalty", bool(prompt.frequency_penalty)),
                ("user", bool(prompt.user)),
            )
            if unsaid
        ]


def _in_turn(turns: Sequence[Json]) -> bool:
    """True inside a model's turn that began without thinking: it called tools, or the client wrote its beginning."""
    last = next((turn["content"] for turn in reversed(turns) if turn["role"] == "assistant"), None)
    if last is None:
        return False
    if turns[-1]["role"] == "user" and not any("toolUse" in block for block in last):
        return False
    return "reasoningContent" not in last[0]


def _fits(text: Any) -> bool:
    """True for a text allowed as a key or a value of metadata."""
    return isinstance(text, str) and _can_be_metadata(text) is not None
