"""Names of tools on their way to a provider and back."""

from extproc.dialects import client_apis
from extproc.exchange.translation.tool_names import ToolNames
from extproc.words.messages import Delta, Message, Prompt, TextPart, Tool, ToolCall, ToolChoice

CHAT, RESPONSES = client_apis()["openai_chat"], client_apis()["openai_responses"]
LONG = "mcp__" + "a_server_with_a_long_name__" * 3 + "read"


def prompt(*tools, calls=(), choice=None):
    asked = Prompt("m", [Message("user", [TextPart("Hi")]), Message("assistant", list(calls))], tools=list(tools))
    asked.tool_choice = choice
    return asked


def back(names, name):
    call = ToolCall("1", name, "{}")
    names.restore((call,))
    return call.namespace, call.name


def test_names_that_fit_stay_and_need_nothing():
    asked = prompt(Tool("read"), calls=[ToolCall("1", "read", "{}")])
    assert not ToolNames(asked, CHAT.able).changed
    assert asked.tools[0].name == "read"


def test_a_long_name_is_shortened_everywhere_and_comes_back():
    other = LONG + "_too"
    asked = prompt(Tool(LONG), Tool(other), calls=[ToolCall("1", LONG, "{}")], choice=ToolChoice("tool", LONG))
    names = ToolNames(asked, CHAT.able)
    there = [tool.name for tool in asked.tools]
    assert all(len(name) == 64 for name in there)
    assert len(set(there)) == 2
    assert asked.messages[1].parts[0].name == asked.tool_choice.name == there[0]
    assert [back(names, name) for name in there] == [("", LONG), ("", other)]
    event = Delta("tool_call", "", 0, id="1", name=there[1])
    names.restore((event,))
    assert event.name == other


def test_the_same_name_is_shortened_alike_in_every_request():
    first, second = prompt(Tool(LONG)), prompt(Tool("x"), calls=[ToolCall("1", LONG, "{}")])
    ToolNames(first, CHAT.able)
    ToolNames(second, CHAT.able)
    assert second.messages[1].parts[0].name == first.tools[0].name


def test_a_group_becomes_part_of_the_names_where_there_are_none():
    grouped = [Tool("open", "Opens.", namespace="files", about="About files."), Tool("shut", namespace="files")]
    asked = prompt(*grouped, calls=[ToolCall("1", "open", "{}", namespace="files")])
    names = ToolNames(asked, CHAT.able)
    assert [(tool.namespace, tool.name) for tool in asked.tools] == [("", "files__open"), ("", "files__shut")]
    assert asked.tools[0].description == "About files.\n\nOpens."
    assert asked.messages[1].parts[0].name == "files__open"
    assert back(names, "files__open") == ("files", "open")


def test_a_model_that_calls_a_groups_tool_by_its_name_alone_is_understood():
    """Unless the name means another tool, too."""
    asked = prompt(Tool("open"), *(Tool(name, namespace="files") for name in ("open", "shut")), Tool("shut2"))
    names = ToolNames(asked, CHAT.able)
    assert back(names, "shut") == ("files", "shut")
    assert back(names, "open") == ("", "open")


def test_a_flattened_name_is_never_that_of_another_tool():
    asked = prompt(Tool("files__open"), Tool("open", namespace="files"))
    names = ToolNames(asked, CHAT.able)
    one, other = (tool.name for tool in asked.tools)
    assert one == "files__open" != other
    assert back(names, other) == ("files", "open")
    assert back(names, one) == ("", "files__open")


def test_groups_stay_where_there_are_groups():
    asked = prompt(Tool("open", namespace="files"), calls=[ToolCall("1", "open", "{}", namespace="files")])
    assert not ToolNames(asked, RESPONSES.able).changed
    assert asked.tools[0].namespace == asked.messages[1].parts[0].namespace == "files"


def test_a_name_that_begins_with_a_digit_gets_an_underscore_where_it_must_not():
    """Gemini's: https://ai.google.dev/api/caching#FunctionDeclaration."""
    asked = prompt(Tool("3d_render"), calls=[ToolCall("1", "3d_render", "{}")])
    names = ToolNames(asked, client_apis()["gemini_generate_content"].able)
    assert asked.tools[0].name == asked.messages[1].parts[0].name == "_3d_render"
    assert back(names, "_3d_render") == ("", "3d_render")
    assert not ToolNames(prompt(Tool("3d_render")), CHAT.able).changed
