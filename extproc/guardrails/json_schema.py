"""Answers, and arguments of calls, that have to be JSON of a given schema.

Controls: OWASP LLM10:2026 (improper output handling); FINOS AIGF mi-3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from extproc.guardrails import TOOL_CALL, Judge, Whole
from extproc.guardrails._base import UnmaskableSettings
from extproc.guardrails._schema import Schema
from extproc.wire.framing.json import InvalidJSON, parse
from extproc.words.values import Patterns

if TYPE_CHECKING:
    from extproc.words.exchange import Exchange

_DEPTH = 128  # levels of a text's JSON


class JSONSchemaSettings(UnmaskableSettings):
    """A guardrail that checks answers, or the arguments of calls, against a JSON Schema."""

    kind: Literal["json_schema"] = Field(
        description="Kind of the guardrail. `json_schema`: answers or arguments that must be JSON of a schema. `block` "
        "holds a streamed text back until it is complete."
    )
    on: Sequence[Literal["output", "tool_calls"]] = Field(
        ("output",),
        min_length=1,
        max_length=1,
        description="Text that is checked. `output`: the answer itself, without reasoning and calls. `tool_calls`: the "
        "arguments of calls.",
    )
    document: Mapping[str, Any] | Literal["request"] = Field(
        "request",
        alias="schema",
        description="The JSON Schema, in YAML. `request`: the schema that the request itself asks for, in its response "
        "format or in the definition of the tool; text without one is not checked.",
    )
    tools: Annotated[Sequence[str], Field(max_length=1000)] = Field(
        ("*",), description="Patterns of the tools whose arguments are checked, with `*` for any characters."
    )

    @field_validator("document")
    @classmethod
    def _can_be_checked(cls, value: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
        if not isinstance(value, str):
            Schema(value, strict=True, patterns=True)
        return value

    @model_validator(mode="after")
    def _tools_of_calls(self) -> JSONSchemaSettings:
        if "tools" in self.model_fields_set and "tool_calls" not in self.on:
            raise ValueError("tools: only for `on: [tool_calls]`")
        return self

    def build(self) -> JSONSchema:
        schema = None if self.document == "request" else Schema(self.document, strict=True, patterns=True)
        return JSONSchema(Patterns(self.tools), schema, calls="tool_calls" in self.on)


class JSONSchema(Judge):
    """Finds text that is not JSON, or does not fit its schema. A finding's kind is the broken keyword.

    Without `schema` the detector is made for each exchange, with the request's own schemas. `client`: the schema is the
    client's. `of_tools` are schemas of arguments, by the tool's name.
    """

    def __init__(
        self,
        tools: Patterns,
        schema: Schema | None = None,
        of_tools: Mapping[str, Schema] | None = None,
        *,
        calls: bool,
        client: bool = False,
    ) -> None:
        self.heavy = of_tools is not None or client
        self._tools, self._schema, self._of_tools, self._calls = tools, schema, of_tools, calls

    def for_exchange(self, exchange: Exchange) -> JSONSchema | None:
        if self._schema is not None:
            return self
        tooling = exchange.request.dialect.offers.tools.tooling(exchange.request.json)
        if not self._calls:
            if tooling.answer is None:
                return None
            return JSONSchema(Patterns(()), _of_client(tooling.answer, json_object=True), calls=False, client=True)
        found = {name: _of_client(schema) for name, schema in tooling.offered.items() if schema is not None}
        return JSONSchema(self._tools, None, found, calls=True) if found else None

    def reads(self, role: str, tool: str, answer: bool) -> bool:
        if not self._calls:
            return answer
        if role != TOOL_CALL or self._of(tool) is None:
            return False
        return not tool or self._tools(tool)

    def judge(self, whole: Whole) -> Sequence[str]:
        schema = self._of(whole.tool) if self._calls else self._schema
        if schema is None:
            return ()
        try:
            value = parse(whole.text.encode("utf-8", "surrogatepass"), _DEPTH)
        except InvalidJSON:
            return ("not_json",)
        broken = schema.broken(value)
        return (broken,) if broken else ()

    def _of(self, tool: str) -> Schema | None:
        return self._of_tools.get(tool) if self._of_tools is not None else self._schema


def _of_client(document: Any, *, json_object: bool = False) -> Schema:
    """A schema of a client. Raises SchemaError if the schema cannot be checked."""
    if document == {} and json_object:
        document = {"type": "object"}
    return Schema(document, strict=False, patterns=False)


SETTINGS = JSONSchemaSettings
