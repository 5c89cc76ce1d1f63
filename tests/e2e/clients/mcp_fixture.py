"""The server that the conformance suite of MCP expects, on the official SDK: `python mcp_fixture.py PORT`.

It serves every revision at /mcp. Names and texts are those of the suite's scenarios, the optional diagnostic tools
included. `--json` answers in JSON in place of streams, `--stateless` keeps no sessions. Runs with `mcp` 2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.shared.exceptions import MCPError

Json = dict[str, Any]
IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SOUND = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
BUS = InMemorySubscriptionBus()


def text(value: str) -> Json:
    return {"type": "text", "text": value}


def embedded(uri: str, value: str, kind: str = "text/plain") -> Json:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": value}}


def complete(*content: Json) -> types.CallToolResult:
    return types.CallToolResult.model_validate({"content": list(content)})


PICTURE = {"type": "image", "data": IMAGE, "mimeType": "image/png"}
PLAIN: dict[str, list[Json]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [PICTURE],
    "test_audio_content": [{"type": "audio", "data": SOUND, "mimeType": "audio/wav"}],
    "test_embedded_resource": [embedded("test://embedded-resource", "This is an embedded resource content.")],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        PICTURE,
        embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
    ],
    "json_schema_2020_12_tool": [text("ok")],
}


def form(message: str, properties: Json) -> Json:
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


def sampling(question: str, most: int) -> Json:
    messages = [{"role": "user", "content": text(question)}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": most}}


STRING = {"type": "string"}
ROOTS: Json = {"method": "roots/list", "params": {}}
NAME = form("What is your name?", {"name": STRING})
CONFIRM = form("Please confirm", {"ok": {"type": "boolean"}})
FIRST, SECOND = (
    form("Step 1: What is your name?", {"name": STRING}),
    form("Step 2: What is your favorite color?", {"color": STRING}),
)
# Questions of a tool by round, with the state of each.
ROUNDS: dict[str, list[tuple[Json, str | None]]] = {
    "test_input_required_result_elicitation": [({"user_name": NAME}, None)],
    "test_input_required_result_sampling": [
        ({"capital_question": sampling("What is the capital of France?", 100)}, None)
    ],
    "test_input_required_result_list_roots": [({"client_roots": ROOTS}, None)],
    "test_input_required_result_request_state": [({"confirm": CONFIRM}, "one")],
    "test_input_required_result_tampered_state": [({"confirm": CONFIRM}, "one")],
    "test_input_required_result_multiple_inputs": [
        ({"user_name": NAME, "greeting": sampling("Generate a greeting", 50), "client_roots": ROOTS}, "one")
    ],
    "test_input_required_result_multi_round": [({"step1": FIRST}, "one"), ({"step2": SECOND}, "two")],
    "test_input_required_result_capabilities": [({"user_name": NAME, "greeting": sampling("Hello?", 50)}, None)],
    "test_streaming_elicitation": [({"user_name": NAME}, None)],
}
DEFAULTS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
TITLED = [
    {"const": "value1", "title": "First Option"},
    {"const": "value2", "title": "Second Option"},
    {"const": "value3", "title": "Third Option"},
]
OPTIONS = ["option1", "option2", "option3"]
ENUMS = {
    "untitledSingle": {"type": "string", "enum": OPTIONS},
    "titledSingle": {"type": "string", "oneOf": TITLED},
    "legacyEnum": {
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
}
DRAFT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING}}},
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
NOTHING: Json = {"type": "object", "properties": {}}
SCHEMAS: dict[str, Json] = {
    "test_sampling": {"type": "object", "properties": {"prompt": STRING}, "required": ["prompt"]},
    "test_elicitation": {"type": "object", "properties": {"message": STRING}, "required": ["message"]},
    "json_schema_2020_12_tool": DRAFT,
}
TOOLS = sorted(
    {
        *PLAIN,
        *ROUNDS,
        *SCHEMAS,
        *("test_tool_with_logging", "test_logging_tool", "test_tool_with_progress", "test_error_handling"),
        *("test_elicitation_sep1034_defaults", "test_elicitation_sep1330_enums", "test_reconnection"),
        *("test_missing_capability", "test_trigger_tool_change"),
    }
)


async def list_tools(_context: Any, _params: Any) -> types.ListToolsResult:
    tools = [
        {"name": name, "description": f"{name} of the suite.", "inputSchema": SCHEMAS.get(name, NOTHING)}
        for name in TOOLS
    ]
    return types.ListToolsResult.model_validate({"tools": tools})


async def call_tool(context: Any, params: Any) -> types.CallToolResult | types.InputRequiredResult:
    name, given = params.name, params.arguments or {}
    if name in PLAIN:
        return complete(*PLAIN[name])
    if name in ROUNDS:
        return rounds(context, params, ROUNDS[name], check=name.endswith("capabilities"))
    match name:
        case "test_error_handling":
            return types.CallToolResult.model_validate(
                {"content": [text("This tool intentionally returns an error for testing")], "isError": True}
            )
        case "test_tool_with_logging" | "test_logging_tool":
            for told in ("Tool execution started", "Tool processing data", "Tool execution completed"):
                await context.session.send_log_message("info", told, related_request_id=context.request_id)
                await asyncio.sleep(0.05)
            return complete(text("Logged."))
        case "test_tool_with_progress":
            for done in (0, 50, 100):
                await context.session.report_progress(done, 100, f"{done} of 100")
                await asyncio.sleep(0.05)
            return complete(text("Progressed."))
        case "test_sampling":
            message = types.SamplingMessage.model_validate({"role": "user", "content": text(given["prompt"])})
            answer = await context.session.create_message(
                [message], max_tokens=100, related_request_id=context.request_id
            )
            return complete(text(f"LLM response: {answer.content.text}"))
        case "test_elicitation":
            return await elicited(context, given["message"], {"username": STRING, "email": STRING})
        case "test_elicitation_sep1034_defaults":
            return await elicited(context, "Defaults, please.", DEFAULTS)
        case "test_elicitation_sep1330_enums":
            return await elicited(context, "Choices, please.", ENUMS)
        case "test_reconnection":
            if context.close_sse_stream:
                await context.close_sse_stream()
            return complete(text("Reconnected."))
        case "test_missing_capability":
            able = context.session.client_capabilities
            if able is None or able.sampling is None:
                needed = {"requiredCapabilities": {"sampling": {}}}
                raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "Sampling is required.", needed)
            return complete(text("Able."))
        case "test_trigger_tool_change":
            await BUS.publish(ToolsListChanged())
            return complete(text("Told."))
    raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {name}")


async def elicited(context: Any, message: str, properties: Json) -> types.CallToolResult:
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    answer = await context.session.elicit_form(message, schema, related_request_id=context.request_id)
    told = f"User response: action={answer.action}, content={json.dumps(answer.content)}"
    return complete(text(told))


def rounds(
    context: Any, params: Any, stages: list[tuple[Json, str | None]], *, check: bool
) -> types.CallToolResult | types.InputRequiredResult:
    """The next question, or the result when all were answered."""
    got = params.input_responses or {}
    number = 1 if len(stages) > 1 and params.request_state is not None else 0
    questions, state = stages[number]
    able = context.session.client_capabilities
    if check and able is not None:
        kinds = {"elicitation/create": able.elicitation, "sampling/createMessage": able.sampling}
        questions = {name: asked for name, asked in questions.items() if kinds[asked["method"]] is not None}
    if (
        params.request_state == state
        and set(questions) <= set(got)
        and all(map(fits, questions.values(), (got[name] for name in questions)))
    ):
        return complete(text(f"state-ok {json.dumps(got, default=str)}"))
    if number == 0 and len(stages) > 1 and set(questions) <= set(got):
        questions, state = stages[1]
    if params.request_state == "one" and len(stages) > 1 and "step1" in got:
        questions, state = stages[1]
    return types.InputRequiredResult.model_validate({"inputRequests": questions, "requestState": state})


def fits(question: Json, answer: Any) -> bool:
    found = answer if isinstance(answer, dict) else answer.model_dump(by_alias=True)
    keys = {"elicitation/create": "action", "sampling/createMessage": "content", "roots/list": "roots"}
    return keys[question["method"]] in found


RESOURCES = {
    "test://static-text": ("text/plain", "This is the content of the static text resource."),
    "test://static-binary": ("image/png", IMAGE),
    "test://watched-resource": ("text/plain", "Watched resource content"),
}


async def list_resources(_context: Any, _params: Any) -> types.ListResourcesResult:
    found = [
        {"uri": uri, "name": uri.removeprefix("test://"), "description": uri, "mimeType": kind}
        for uri, (kind, _) in RESOURCES.items()
    ]
    return types.ListResourcesResult.model_validate({"resources": found})


async def list_templates(_context: Any, _params: Any) -> types.ListResourceTemplatesResult:
    template = {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}
    return types.ListResourceTemplatesResult.model_validate({"resourceTemplates": [template]})


async def read_resource(_context: Any, params: Any) -> types.ReadResourceResult:
    uri = str(params.uri)
    if uri in RESOURCES:
        kind, value = RESOURCES[uri]
        held = {"blob": value} if kind == "image/png" else {"text": value}
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.removeprefix("test://template/").removesuffix("/data")
        kind = "application/json"
        held = {"text": json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})}
    else:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
    return types.ReadResourceResult.model_validate({"contents": [{"uri": uri, "mimeType": kind, **held}]})


ARGUMENTS = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}
CONTEXT = form("What context should the prompt use?", {"context": STRING})


async def list_prompts(_context: Any, _params: Any) -> types.ListPromptsResult:
    found = [
        {"name": name, "description": name, "arguments": [{"name": each, "required": True} for each in arguments]}
        for name, arguments in ARGUMENTS.items()
    ]
    return types.ListPromptsResult.model_validate({"prompts": found})


async def get_prompt(_context: Any, params: Any) -> types.GetPromptResult | types.InputRequiredResult:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            content = [text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            content = [text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")]
        case "test_prompt_with_embedded_resource":
            held = embedded(given["resourceUri"], "Embedded resource content for testing.")
            content = [held, text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            content = [PICTURE, text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            if "user_context" not in (params.input_responses or {}):
                return types.InputRequiredResult.model_validate({"inputRequests": {"user_context": CONTEXT}})
            content = [text("With your context.")]
        case _:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    messages = [{"role": "user", "content": each} for each in content]
    return types.GetPromptResult.model_validate({"messages": messages})


async def complete_argument(_context: Any, params: Any) -> types.CompleteResult:
    values = [each for each in ("paris", "park", "party") if each.startswith(params.argument.value)]
    return types.CompleteResult.model_validate({"completion": {"values": values, "total": len(values)}})


async def nothing(_context: Any, _params: Any) -> types.EmptyResult:
    return types.EmptyResult()


def server() -> Server[Any]:
    made = Server(
        "mcp-fixture",
        version="1",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=nothing,
        on_unsubscribe_resource=nothing,
        on_subscriptions_listen=ListenHandler(BUS),
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete_argument,
        on_set_logging_level=nothing,
    )
    made.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience="fixture"))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stateless", action="store_true")
    options = parser.parse_args()
    app = server().streamable_http_app(json_response=options.json, stateless_http=options.stateless)
    uvicorn.run(app, port=options.port, log_level="critical")


if __name__ == "__main__":
    main()
