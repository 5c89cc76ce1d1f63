"""Requests and answers between the revisions of the protocol, and everything that is refused in an answer."""

import json

import pytest

from extproc.tools.mcp.call import CALL, LEGACY, MODERN, Call
from extproc.tools.mcp.catalogue import Definition
from extproc.tools.mcp.eras import Translate, decoded, encoded, request_for
from extproc.tools.mcp.profile_settings import MCPProfileSettings
from extproc.tools.mcp.servers import ServerSession
from extproc.tools.mcp.sessions import ClientSession, Sessions
from extproc.wire.framing import rpc
from extproc.wire.framing.json import WholeBody
from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Report
from extproc.words.errors import Refusal
from tests.exchanges import new_exchange, write

META = "io.modelcontextprotocol/"
PROFILE = MCPProfileSettings(servers={"s": {}})


class FakeServers:
    def __init__(self):
        self.sessions = Sessions("k" * 32, 60.0)
        self.refused, self.looked = [], []

    def refuse(self, question):
        self.refused.append(question)

    def again(self, name):
        self.looked.append(name)


def call(method="tools/call", params=None, *, client=MODERN, server=MODERN, id="c", **more):
    params = {"name": "s__t", "arguments": {}} if params is None else params
    message = rpc.message({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    found = Call("dev", PROFILE, message, version=client, server="s", server_version=server, must_read=True)
    found.name, found.tool = "s__t", "t"
    for name, value in more.items():
        setattr(found, name, value)
    return found


def test_names_in_headers_survive_any_letter():
    for name in ("echo", "a b", "\u00e9", " lead", "trail ", "=?base64?x?=", "\U0001f600", "a\x7fb", ""):
        assert decoded(encoded(name)) == name
        assert encoded(name).isascii()
    for forged in ("=?base64?!?=", "=?base64?YWI?=", "=?base64?/w==?=", "=?base64?YR==?="):
        assert decoded(forged) is None


def test_a_request_of_the_same_era_changes_its_name_alone():
    edits, headers = request_for(call(), None, "own")
    assert edits == {"params.name": "t"}
    assert (headers["mcp-name"], headers["mcp-method"]) == ("t", "tools/call")
    assert (headers["mcp-protocol-version"], "mcp-session-id" in headers) == (MODERN, False)
    edits, headers = request_for(call(client=LEGACY[0], server=LEGACY[0]), ServerSession("z", LEGACY[0]), "own")
    assert edits == {"params.name": "t"}
    assert headers["mcp-session-id"] == "z"
    assert "mcp-method" not in headers


def test_a_modern_request_to_a_server_with_sessions_gets_an_id_of_its_own_and_loses_modern_fields():
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}, "progressToken": 7, "traceparent": "x"}
    made = call(params={"name": "s__t", "_meta": meta}, server=LEGACY[0])
    edits, headers = request_for(made, ServerSession("z", LEGACY[0]), "own")
    assert edits == {"params.name": "t", "params._meta": {"progressToken": 7, "traceparent": "x"}, "id": "own"}
    assert (headers["mcp-session-id"], headers["mcp-protocol-version"], made.sent_id) == ("z", LEGACY[0], "own")


def test_a_request_with_a_session_to_a_modern_server_says_what_it_needs():
    headers = ((("region",), "region"), (("in", "zone"), "zone"), (("flag",), "flag"), (("none",), "none"))
    entry = Definition("tools", "s", "t", {}, headers)
    arguments = {"region": "eu \u00e9", "in": {"zone": 7}, "flag": True}
    made = call(params={"name": "s__t", "arguments": arguments}, client=LEGACY[1], entry=entry)
    edits, sent = request_for(made, None, "own")
    assert edits["params._meta"][META + "protocolVersion"] == MODERN
    assert edits["params._meta"][META + "clientCapabilities"] == {}
    assert "id" not in edits
    assert decoded(sent["mcp-param-region"]) == "eu \u00e9"
    assert (sent["mcp-param-zone"], sent["mcp-param-flag"]) == ("7", "true")
    assert "mcp-param-none" not in sent
    modern = call(params={"name": "s__t", "arguments": arguments}, client=MODERN, entry=entry)
    assert "mcp-param-zone" not in request_for(modern, None, "own")[1], "the client sends it itself"
    modern.rewritten = True
    assert request_for(modern, None, "own")[1] == sent


def test_a_reference_to_a_prompt_changes_its_name():
    params = {"ref": {"type": "ref/prompt", "name": "s__t", "title": "x"}, "argument": {"name": "a", "value": "b"}}
    edits, _ = request_for(call("completion/complete", params), None, "own")
    assert edits == {"params.ref": {"type": "ref/prompt", "name": "t", "title": "x"}}


# --- answers


def asking(call, operation):
    exchange = new_exchange("id")
    exchange.features[CALL] = call
    write(exchange, report=Report(), operation=operation)
    return exchange


def read(made, *messages, sse=False, servers=None):
    """The messages that the client gets."""
    servers = servers or FakeServers()
    framing = SSE(1 << 16) if sse else WholeBody(1 << 16)
    body = b"".join(b"event: message\ndata: %b\n\n" % text(m) for m in messages) if sse else text(messages[0])
    exchange = asking(made, made.message.method)
    events = [*framing.feed(body), *framing.end()]
    kept = Translate(servers)(exchange, events, True)
    if exchange.answer.cut is not None:
        assert not kept, "nothing of it leaves"
        raise exchange.answer.cut
    raw = b"".join(event.raw for event in kept)
    lines = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: ")] if sse else [raw]
    return [json.loads(line) for line in lines], exchange.answer.report.error


def text(message):
    return message if isinstance(message, bytes) else json.dumps(message).encode()


def answer(result, id="own"):
    return {"jsonrpc": "2.0", "id": id, "result": result}


def test_an_answer_to_a_modern_client_gets_its_id_and_its_fields():
    made = call(server=LEGACY[0], sent_id="own")
    [got], error = read(made, answer({"content": [], "isError": True}))
    assert got == {"jsonrpc": "2.0", "id": "c", "result": {"resultType": "complete", "content": [], "isError": True}}
    assert (error, made.failed) == ("tool_error", True)
    [got], _ = read(call("resources/read", {"uri": "a:b"}, server=LEGACY[0], sent_id="own"), answer({"contents": []}))
    assert got["result"] == {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "contents": []}


def test_an_error_of_the_server_comes_through_with_the_clients_id():
    servers = FakeServers()
    failed = {"jsonrpc": "2.0", "id": "own", "error": {"code": -32602, "message": "m", "data": {"d": 1}}}
    [got], error = read(call(server=LEGACY[0], sent_id="own"), failed, servers=servers)
    assert (got["id"], got["error"], error) == ("c", failed["error"], "-32602")
    assert servers.looked == ["s"], "it may have other tools by now"
    [got], _ = read(call(server=LEGACY[0], sent_id="own"), {**failed, "id": None})
    assert got["id"] == "c"


def test_an_answer_that_is_none_is_refused():
    for wrong in (b"<html>", b"[]", b'{"jsonrpc":"2.0"}', answer({}, "other"), answer({}, 1), answer(7), b"{"):
        with pytest.raises(Refusal) as raised:
            read(call(server=LEGACY[0], sent_id="own"), wrong)
        assert raised.value.kind.code == "mcp_bad_answer"
    with pytest.raises(Refusal):
        read(call(server=LEGACY[0], sent_id="own"), {"jsonrpc": "2.0", "method": "notifications/x"}, sse=True)
    with pytest.raises(Refusal):
        read(call(server=LEGACY[0], sent_id="own"), answer({"content": "x" * 70_000}))


def test_an_answer_that_is_read_for_the_audit_alone_is_never_refused_or_changed():
    for odd in (b"<html>", answer({"content": "x" * 70_000}, "c"), answer({}, "other")):
        made = call(must_read=False)
        exchange = asking(made, "tools/call")
        framing = WholeBody(1 << 16)
        events = [*framing.feed(text(odd)), *framing.end()]
        assert b"".join(event.raw for event in Translate(FakeServers())(exchange, events, True)) == text(odd)


def test_progress_and_comments_pass_and_questions_get_ids_that_find_their_way_back():
    servers = FakeServers()
    session = servers.sessions.begin("dev/bob", LEGACY[0], {"elicitation": {}})
    made = call(client=LEGACY[0], server=LEGACY[0], session=session, server_session="z")
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
    question = {"jsonrpc": "2.0", "id": 0, "method": "elicitation/create", "params": {"message": "?"}}
    got, _ = read(made, progress, question, answer({"content": []}, "c"), sse=True, servers=servers)
    assert (got[0], got[2]) == (progress, answer({"content": []}, "c"))
    assert got[1]["params"] == {"message": "?"}
    asked = servers.sessions.asked(session, got[1]["id"])
    assert (asked.server, asked.session, asked.id) == ("s", "z", 0)


def test_events_without_a_message_pass():
    """Servers of 2025-11-25 begin with an event that has an id alone, to which clients may come back."""
    made = call(server=LEGACY[0], sent_id="own", streamed=True)
    exchange = asking(made, "tools/call")
    body = b"id: 7\nretry: 500\ndata: \n\n: alive\n\nretry: 3\n\n"
    events = SSE(1 << 16).feed(body)
    assert b"".join(event.raw for event in Translate(FakeServers())(exchange, events, False)) == body
    assert exchange.answer.cut is None


def test_questions_to_clients_that_take_none_are_refused_for_them():
    question = {"jsonrpc": "2.0", "id": 3, "method": "sampling/createMessage", "params": {}}
    without = ClientSession("i", LEGACY[0], {})
    for made in (
        call(server=LEGACY[0], sent_id="own"),
        call(client=LEGACY[0], server=LEGACY[0], session=without, id="own"),
    ):
        servers = FakeServers()
        got, _ = read(made, question, answer({"content": []}), sse=True, servers=servers)
        assert [each["id"] for each in got] == [made.id]
        assert [each.id for each in servers.refused] == [3]
