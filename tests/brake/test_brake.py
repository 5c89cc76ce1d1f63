"""Agents that go in circles are refused, in every API that clients speak; agents that get on are not."""

import json
from pathlib import Path

import pytest
from hypothesis import given

from extproc.dialects import client_apis
from extproc.tools.brake import MOST_RUNS, Brake, BrakeSettings, Runs, repeated
from extproc.words.errors import RUN_LOOPING, Refusal
from tests.fuzz.edits import PROGRAMS, changed_json, vocabulary
from tests.talk import asks, sends, talk

TESTS = Path(__file__).parents[1]
SAY, USER = "say", "user"


def openai_chat(steps):
    for number, (tool, arguments, result) in enumerate(steps):
        if tool in (SAY, USER):
            yield {"role": "assistant" if tool == SAY else "user", "content": arguments}
            continue
        function = {"name": tool, "arguments": json.dumps(arguments)}
        yield {"role": "assistant", "content": None, "tool_calls": [{"id": f"c{number}", "function": function}]}
        yield {"role": "tool", "tool_call_id": f"c{number}", "content": result}


def openai_responses(steps):
    for number, (tool, arguments, result) in enumerate(steps):
        if tool in (SAY, USER):
            yield {"role": "assistant" if tool == SAY else "user", "content": arguments}
            continue
        yield {"type": "reasoning", "summary": []}
        yield {"type": "function_call", "call_id": f"c{number}", "name": tool, "arguments": json.dumps(arguments)}
        yield {"type": "function_call_output", "call_id": f"c{number}", "output": result}


def anthropic_messages(steps):
    """As Claude Code writes: reminders of its own stand beside results."""
    for number, (tool, arguments, result) in enumerate(steps):
        if tool in (SAY, USER):
            yield {"role": "assistant" if tool == SAY else "user", "content": arguments}
            continue
        call = {"type": "tool_use", "id": f"c{number}", "name": tool, "input": arguments}
        yield {"role": "assistant", "content": [{"type": "text", "text": f"Step {number}."}, call]}
        given = {"type": "tool_result", "tool_use_id": f"c{number}", "content": result}
        yield {"role": "user", "content": [given, {"type": "text", "text": f"<system-reminder>{number}"}]}


def gemini_generate_content(steps):
    for tool, arguments, result in steps:
        if tool in (SAY, USER):
            yield {"role": "model" if tool == SAY else "user", "parts": [{"text": arguments}]}
            continue
        yield {"role": "model", "parts": [{"functionCall": {"name": tool, "args": arguments}}]}
        yield {"role": "user", "parts": [{"functionResponse": {"name": tool, "response": {"result": result}}}]}


WRITERS = {
    "openai_chat": (openai_chat, "messages"),
    "openai_responses": (openai_responses, "input"),
    "anthropic_messages": (anthropic_messages, "messages"),
    "gemini_generate_content": (gemini_generate_content, "contents"),
}
ASK = (USER, "Mend it.", None)
READ, EDIT = ("read", {"path": "a.py", "lines": [1, 9]}, "def a(): …"), ("edit", {"path": "a.py"}, "no match")
TURNED = ("read", {"lines": [1, 9], "path": "a.py"}, "def a(): …")
CASES = {
    # steps, and the latest tool with its repetitions
    "nothing yet": ([ASK], (None, 0)),
    "a call": ([ASK, READ], ("read", 1)),
    "the same again": ([ASK, READ, READ, READ], ("read", 3)),
    "with another between": ([ASK, READ, EDIT, READ, EDIT, READ], ("read", 3)),
    "a result that differs is progress": ([ASK, READ, READ, ("read", READ[1], "mended"), READ], ("read", 1)),
    "other arguments": ([ASK, READ, ("read", {"path": "b.py"}, READ[2])], ("read", 1)),
    "a loop that was left": ([ASK, READ, READ, READ, EDIT], ("edit", 1)),
    "the user spoke": ([ASK, READ, READ, (USER, "Go on.", None), READ], ("read", 1)),
    "words without a call": ([ASK, *[(SAY, f"Part {n}.", None) for n in range(4)]], ("", 4)),
    "words before each call": ([ASK, (SAY, "I look.", None), READ, (SAY, "Again.", None), EDIT], ("edit", 1)),
    "words after calls": ([ASK, (SAY, "a", None), (SAY, "b", None), READ, (SAY, "c", None)], ("", 1)),
}


@pytest.mark.parametrize("api", WRITERS)
@pytest.mark.parametrize("case", CASES)
def test_steps_since_the_users_last_turn_are_counted_alike_in_every_api(api, case):
    steps, found = CASES[case]
    write, field = WRITERS[api]
    assert repeated(client_apis()[api].offers.tools.steps({field: list(write(steps))})) == found


@pytest.mark.parametrize("api", [name for name in WRITERS if "openai" not in name])
def test_the_order_of_arguments_says_nothing(api):
    write, field = WRITERS[api]
    steps = client_apis()[api].offers.tools.steps({field: list(write([ASK, READ, TURNED]))})
    assert repeated(steps) == ("read", 2)


def test_tools_of_the_provider_are_no_repetition():
    """Each is an item with an id; a long search has many."""
    search = [{"type": "web_search_call", "id": f"ws_{n}", "status": "completed"} for n in range(9)]
    assert repeated(client_apis()["openai_responses"].offers.tools.steps({"input": search}))[1] == 1


def test_recorded_requests_of_all_apis_pass_the_strictest_brake():
    seen = 0
    for path in [*TESTS.glob("golden/requests/*/*.json"), *TESTS.glob("dialects/full_requests/*.json")]:
        dialect = client_apis().get(path.stem if path.parent.name == "full_requests" else path.parent.name)
        said = json.loads(path.read_text())
        for body in [case["body"] for case in said.values()] if path.parent.name == "full_requests" else [said]:
            if dialect is not None and isinstance(body, dict):
                steps = dialect.offers.tools.steps(body.get("body", body))
                seen += bool(steps)
                assert repeated(steps)[1] < 2, path
    assert seen > 10


async def refusal(gateway, steps, path="/v1/chat/completions"):
    write, field = WRITERS["openai_chat" if "chat" in path else "openai_responses"]
    body = {"model": "m", field: list(write(steps)), "tools": []}
    return await talk(gateway.stream(), asks(path), sends(body))


async def test_a_run_is_refused_from_so_many_times_on_with_the_evidence(world):
    gateway = world("brake: {repeats: 3}")
    assert not hasattr((await refusal(gateway, [ASK, READ, READ]))[-1], "status")
    told = (await refusal(gateway, [ASK, READ, READ, READ]))[-1]
    assert (told.status, told.headers["x-should-retry"]) == (429, "false")
    error = json.loads(told.body)["error"]
    assert error["code"] == RUN_LOOPING.code
    assert "tool 'read' was called 3 times with the same arguments and gave the same result" in error["message"]
    told = (await refusal(gateway, [ASK, *[(SAY, "More.", None)] * 3]))[-1]
    assert "answered 3 times in a row without a call" in json.loads(told.body)["error"]["message"]
    assert "a.py" not in str(gateway.lines)
    assert gateway.metric("extproc_refusals_total", code="run_looping") == 2
    off = world()
    assert not hasattr((await refusal(off, [ASK, *[READ] * 50]))[-1], "status")


def goes_on(exchange, content, run="7"):
    """A request that goes on from an answer which its provider keeps."""
    output = {"type": "function_call_output", "call_id": "new each time", "output": content}
    body = {"model": "m", "previous_response_id": "resp_1", "input": [output]}
    return exchange(body, path="/v1/responses", labels={"run": run} if run else {})


def test_results_alone_are_counted_by_run_and_consumer(exchange):
    brake = Brake(BrakeSettings(repeats=3), Runs())
    for content in ("a", "a", "b", "b", "a", "a"):
        brake(goes_on(exchange, content))
    brake(goes_on(exchange, "a", run="8"))
    for _ in range(9):
        brake(goes_on(exchange, "a", run=""))  # nothing says that these belong together
    with pytest.raises(Refusal, match="3 requests in a row brought the same results"):
        brake(goes_on(exchange, "a"))
    brake(exchange({"model": "m", "input": "Another question."}, path="/v1/responses", labels={"run": "7"}))
    brake(goes_on(exchange, "a"))


def test_the_runs_that_are_remembered_are_bounded():
    runs = Runs(most=100)
    for number in range(1000):
        runs.count(("alice", str(number % 990)), b"x")
    assert len(runs) == 100
    assert runs.count(("alice", "9"), b"x") == 2
    assert runs.count(("alice", "889"), b"x") == 1, "forgotten"
    assert MOST_RUNS == 20_000


@pytest.mark.parametrize("api", WRITERS)
@given(program=PROGRAMS)
def test_no_conversation_breaks_the_count(api, program):
    write, field = WRITERS[api]
    body = {field: list(write([ASK, READ, EDIT, (SAY, "x", None), READ]))}
    for changed in changed_json(body, program, *vocabulary([body])):
        if isinstance(changed, dict) and "\\ud" not in json.dumps(changed):  # Parse takes no lone surrogate
            repeated(client_apis()[api].offers.tools.steps(changed))
