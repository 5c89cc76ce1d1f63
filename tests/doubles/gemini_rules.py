"""Gemini's demands on a request of valid shape: turns of functions, schemas, thought signatures, thinking.

Sources: https://ai.google.dev/gemini-api/docs/function-calling, .../thought-signatures, .../thinking,
.../structured-output; the errors as they are reported from the API.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from tests.doubles.answers import Json, Refused
from tests.doubles.gemini_shapes import found
from tests.doubles.seals import unseal

_UNCHECKED = ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go")
_BUDGETS = {
    "2.5-pro": (128, 32768),
    "2.5-flash-lite": (512, 24576),
    "2.5-flash": (1, 24576),
}  # more specific names first
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_MEDIA = ("image/", "audio/", "video/", "text/", "application/pdf", "application/json")
_REQUEST = "* GenerateContentRequest."


def check(body: Json, model: str, *, vertex: bool) -> None:
    """Refuse the requests that the API would refuse."""
    contents = body["contents"]
    if not contents:
        raise Refused(400, _REQUEST + "contents: contents is not specified")
    for index, content in enumerate(contents):
        _check_content(content, f"contents[{index}]", vertex=vertex)
    for index, part in enumerate(found(body, "systemInstruction", "parts") or []):
        _check_part(part, f"system_instruction.parts[{index}]", vertex=vertex)
    _check_turns(contents)
    _check_signatures(contents, generation(model))
    _check_tools(body, vertex=vertex)
    _check_generation(body, model)


def generation(model: str) -> int:
    """3 for gemini-3-pro; 0 for unknown names."""
    match = re.search(r"gemini-(\d+)", model)
    return int(match[1]) if match else 0


# --- contents


def _check_content(content: Json, where: str, *, vertex: bool) -> None:
    role = content.get("role")
    if role not in ("user", "model") and (role or vertex):
        raise Refused(400, "Please use a valid role: user, model.")
    if not content.get("parts"):
        raise Refused(400, f"{_REQUEST}{where}.parts: contents.parts must not be empty.")
    for index, part in enumerate(content["parts"]):
        _check_part(part, f"{where}.parts[{index}]", vertex=vertex)


def _check_part(part: Json, where: str, *, vertex: bool) -> None:
    if part.get("text") == "" and not part.get("thoughtSignature"):
        message = "data: required oneof field 'data' must have one initialized field"
        raise Refused(
            400,
            "Unable to submit request because it must have a text parameter."
            if vertex
            else f"{_REQUEST}{where}.{message}",
        )
    media = part.get("inlineData") or part.get("fileData") or {}
    kind = media.get("mimeType")
    if kind and not kind.startswith(_MEDIA):
        raise Refused(400, f"Unsupported MIME type: {kind}")
    uri = media.get("fileUri")
    if uri and not kind and vertex:
        raise Refused(400, f"Unable to submit request because it must have a mimeType parameter: {where}")
    if uri and not uri.startswith(("https://", "gs://", "files/")):
        raise Refused(400, "Invalid or unsupported file uri: " + uri)


def _check_turns(contents: list[Json]) -> None:
    """A turn of calls follows a turn of the user, and the next turn answers each of the calls."""
    open_calls: list[Json] = []
    before = ""
    for content in contents:
        calls = [part["functionCall"] for part in content["parts"] if part.get("functionCall")]
        answers = [part["functionResponse"] for part in content["parts"] if part.get("functionResponse")]
        if answers and not open_calls:
            raise Refused(
                400, "Please ensure that function response turn comes immediately after a function call turn."
            )
        if len(answers) != len(open_calls):
            same = "equal to the number of function call parts of the function call turn."
            raise Refused(400, f"Please ensure that the number of function response parts is {same}")
        _check_answers(open_calls, answers)
        if calls and (before != "user" or content.get("role") != "model"):
            after = "comes immediately after a user turn or after a function response turn."
            raise Refused(400, f"Please ensure that function call turn {after}")
        open_calls = calls
        before = content.get("role") or "user"
    if open_calls:
        raise Refused(400, "Please ensure that a function call turn is followed by a function response turn.")


def _check_answers(calls: list[Json], answers: list[Json]) -> None:
    called, answered = ([(each["name"], each.get("id")) for each in many] for many in (calls, answers))
    if Counter(name for name, _ in called) != Counter(name for name, _ in answered):
        raise Refused(400, f"The function responses {answered} do not have the names of the function calls {called}.")
    wrong = [each for each in answered if each[1] and each not in called]
    if wrong:
        raise Refused(400, f"The function responses {wrong} do not have the ids of the function calls {called}.")


def _check_signatures(contents: list[Json], model: int) -> None:
    """Signatures are ours. Since Gemini 3 the first call of every step of the current turn has one."""
    spoken = [
        index
        for index, content in enumerate(contents)
        if content.get("role") != "model" and not any(part.get("functionResponse") for part in content["parts"])
    ]
    for index, content in enumerate(contents):
        for part in content["parts"]:
            signature = part.get("thoughtSignature")
            name = found(part, "functionCall", "name")
            if signature and signature not in _UNCHECKED:
                sealed = unseal("gemini", signature)
                if sealed is None or (name is not None and sealed != name):
                    raise Refused(400, "Corrupted thought signature.")
        calls = [at for at, part in enumerate(content["parts"]) if part.get("functionCall")]
        first: Json = content["parts"][calls[0]] if calls else {}
        if model >= 3 and first and index > max(spoken, default=-1) and not first.get("thoughtSignature"):
            message = "Function call is missing a thought_signature in functionCall parts. This is required for tools"
            data = f"function call `{first['functionCall']['name']}`, position {calls[0]}."
            raise Refused(400, f"{message} to work correctly. Additional data, {data}")


# --- tools


def declarations(body: Json) -> list[Json]:
    return [each for tool in body.get("tools") or [] for each in tool.get("functionDeclarations") or []]


def _check_tools(body: Json, *, vertex: bool) -> None:
    names = [each["name"] for each in declarations(body)]
    for index, each in enumerate(declarations(body)):
        where = f"tools[0].function_declarations[{index}]"
        if not _NAME.fullmatch(each["name"]):
            must = (
                "Must start with a letter or an underscore. Must be alphanumeric (a-z, A-Z, 0-9), underscores (_), dots"
            )
            raise Refused(
                400, f"{_REQUEST}{where}.name: [FieldDescription] Invalid function name. {must} (.) or dashes."
            )
        if each.get("parameters") is not None:
            if each.get("parametersJsonSchema") is not None:
                raise Refused(400, f"{where}: parameters and parameters_json_schema cannot both be set.")
            if (each["parameters"].get("type") or "").upper() != "OBJECT":
                raise Refused(400, f"{_REQUEST}{where}.parameters: functions' parameters should be of type OBJECT.")
            check_schema(each["parameters"], f"{where}.parameters", vertex=vertex)
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise Refused(400, f"Duplicate function declaration found: {doubled[0]}")
    calling = found(body, "toolConfig", "functionCallingConfig") or {}
    allowed = calling.get("allowedFunctionNames") or []
    if allowed and calling.get("mode") not in ("ANY", "VALIDATED"):
        raise Refused(400, "Function calling config: allowed_function_names is only for the modes ANY and VALIDATED.")
    if {*allowed} - {*names}:
        raise Refused(400, f"Function calling config: allowed_function_names {allowed} are not all declared.")
    if calling.get("mode") == "ANY" and not names:
        raise Refused(400, "Function calling config is set without function_declarations.")


def check_schema(schema: Json, where: str, *, vertex: bool) -> None:
    """Refuse what a Schema, which is not a JSON Schema, does not accept."""
    kind = (schema.get("type") or "").upper()
    if not kind and not schema.get("anyOf") and not schema.get("ref"):
        raise Refused(400, f"{_REQUEST}{where}.type: must be specified")
    if vertex and schema.get("anyOf") and {*schema} - {"anyOf", "description", "title", "nullable", "default"}:
        raise Refused(400, f"{where}: when using any_of, it must be the only field set")
    if schema.get("enum") and kind != "STRING":
        raise Refused(400, f"{_REQUEST}{where}.enum: only allowed for STRING type")
    if "" in (schema.get("enum") or []):
        raise Refused(400, f"{_REQUEST}{where}.enum: cannot be empty")
    if kind == "ARRAY" and schema.get("items") is None:
        raise Refused(400, f"{_REQUEST}{where}.items: missing field.")
    if kind == "STRING" and not vertex and schema.get("format") not in (None, "enum", "date-time"):
        raise Refused(400, f"{_REQUEST}{where}.format: only 'enum' and 'date-time' are supported for STRING type")
    properties = schema.get("properties") or {}
    for index, name in enumerate(schema.get("required") or []):
        if name not in properties:
            raise Refused(400, f"{_REQUEST}{where}.required[{index}]: property is not defined")
    for name, each in properties.items():
        check_schema(each, f"{where}.properties[{name}]", vertex=vertex)
    for each in [schema["items"]] if schema.get("items") is not None else []:
        check_schema(each, f"{where}.items", vertex=vertex)
    for index, each in enumerate(schema.get("anyOf") or []):
        check_schema(each, f"{where}.any_of[{index}]", vertex=vertex)


# --- generationConfig


def _check_generation(body: Json, model: str) -> None:
    config: Json = body.get("generationConfig") or {}
    older = 0 < generation(model) < 3
    wants_json = config.get("responseMimeType") == "application/json"
    schemas = [name for name in ("responseSchema", "responseJsonSchema") if config.get(name) is not None]
    if len(schemas) == 2:
        raise Refused(400, "generation_config: response_schema and response_json_schema cannot both be set.")
    if schemas and config.get("responseMimeType") not in ("application/json", "text/x.enum"):
        raise Refused(400, "generation_config: a response schema requires the response_mime_type application/json.")
    if config.get("responseSchema") is not None:
        check_schema(config["responseSchema"], "generation_config.response_schema", vertex=False)
    if wants_json and declarations(body) and older:
        raise Refused(400, "Function calling with a response mime type: 'application/json' is unsupported")
    if config.get("logprobs") is not None and not config.get("responseLogprobs"):
        raise Refused(400, "generation_config.logprobs: response_logprobs must be true.")
    _check_thinking(config.get("thinkingConfig") or {}, model, older=older)


def _check_thinking(thinking: Json, model: str, *, older: bool) -> None:
    budget: Any = thinking.get("thinkingBudget")
    level = thinking.get("thinkingLevel")
    if budget is not None and level is not None:
        raise Refused(400, "You can only set only one of thinking budget and thinking level.")
    if level is not None and older:
        raise Refused(400, "Thinking level is not supported for this model.")
    least, most = next((bounds for name, bounds in _BUDGETS.items() if name in model), (0, 2**31))
    if budget == 0 and "2.5-pro" in model:
        raise Refused(400, "Budget 0 is invalid. This model only works in thinking mode.")
    if budget is not None and budget > 0 and not least <= budget <= most:
        bounds = f"Please choose a value between {least} and {most}."
        raise Refused(400, f"The thinking budget {budget} is invalid. {bounds}")
