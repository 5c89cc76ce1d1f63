"""Strict MCP servers for tests, several on one port: a server per name, each of one era and temper, with a log.

They refuse what the official servers refuse, and note in `violations` what real servers forgive or answer wrongly: an
id used twice at a time in one session, a session header at a server of 2026-07-28, a header that no server should see.
Nothing of the gateway is imported. Sources: https://modelcontextprotocol.io/specification/2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

Json = dict[str, Any]
Scope = Json
Receive = Callable[[], Awaitable[Json]]
Send = Callable[[Json], Awaitable[None]]

MODERN = "2026-07-28"
LEGACY = ("2025-03-26", "2025-06-18", "2025-11-25")
META = "io.modelcontextprotocol/"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
STATUSES = {-32601: 404, -32700: 400, -32600: 400, -32602: 400, -32020: 400, -32021: 400, -32022: 400}
FORBIDDEN = re.compile(r"cookie|origin|x-forwarded-|x-extproc-|x-envoy-|x-ai-|x-request-id|forwarded|via")
"""Headers of a client or of the gateway that no server may see."""


def tool(name: str, description: str = "", **more: Any) -> Json:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    return {"name": name, "description": description or f"The tool {name}.", "inputSchema": schema, **more}


TOOLS = (
    tool("echo", "Repeats a text.", title="Echo", annotations={"readOnlyHint": True}, _meta={"acme/kept": [1, 2.50]}),
    tool("told", "Tells what the server saw.", inputSchema={"type": "object", "properties": {}}),
    tool("slow", "Reports progress.", execution={"taskSupport": "forbidden"}),
    tool("fail", "Fails.", icons=[{"src": "https://example.com/icon.png"}]),
    tool("broken", "Ends in a JSON-RPC error."),
    tool("ask", "Asks the user.", outputSchema={"type": "object", "properties": {"answer": {"type": "string"}}}),
    tool("sample", "Asks the client's model."),
)
PROMPT = {"name": "greet", "description": "Greets.", "arguments": [{"name": "name", "required": True}]}


class Failed(Exception):  # noqa: N818 - it is an answer
    def __init__(self, code: int, message: str, data: Any = None, status: int | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})
        self.status = status or STATUSES.get(code, 200)


@dataclass
class Seen:
    """One HTTP request: its JSON-RPC method, the name it called, and what was wrong with it."""

    http: str
    headers: list[tuple[str, str]]
    body: Any
    at: float
    method: str = ""
    name: str = ""
    session: str = ""
    id: Any = None
    violations: list[str] = field(default_factory=list)
    finished: bool = False
    cancelled: bool = False

    def header(self, name: str) -> str | None:
        return next((value for each, value in self.headers if each == name), None)


@dataclass
class Session:
    version: str
    capabilities: Json
    ready: bool = False
    called: set[str] = field(default_factory=set)
    open: dict[Any, asyncio.Queue[Json]] = field(default_factory=dict)  # where the answer to an id goes
    questions: dict[Any, asyncio.Future[Json]] = field(default_factory=dict)


@dataclass
class McpServer:
    """One server. `eras` are those it speaks; `answers` is json or sse; `temper` is a fault of every answer."""

    name: str
    eras: tuple[str, ...] = ("legacy", "modern")
    sessions: bool = True
    answers: str = "json"
    temper: str = ""  # hang, html, badjson, status=503, wrongid, early (the stream ends without an answer), slow=0.2
    key: str = ""
    users: set[str] = field(default_factory=set)  # tokens of users, which it takes beside the key
    admits: Callable[[str, Json], tuple[int, str] | None] | None = None  # token, message -> status and challenge
    page: int = 1000
    tools: list[Json] = field(default_factory=lambda: [dict(each) for each in TOOLS])
    prompts: list[Json] = field(default_factory=lambda: [dict(PROMPT)])
    resources: list[Json] = field(default_factory=lambda: [{"uri": "test://one", "name": "one"}])
    templates: list[Json] = field(default_factory=lambda: [{"uriTemplate": "test://{id}", "name": "any"}])
    results: dict[str, Json] = field(default_factory=dict)  # the result of a tool, in place of its own
    needs: dict[str, str] = field(default_factory=dict)  # tools that only clients with a capability have
    unlocks: dict[str, str] = field(default_factory=dict)  # tools that a session has once it called another one
    instructions: str = ""
    seen: list[Seen] = field(default_factory=list)
    opened: dict[str, Session] = field(default_factory=dict)
    tempers: dict[str, str] = field(default_factory=dict)  # of one JSON-RPC method

    @property
    def calls(self) -> list[Seen]:
        return [each for each in self.seen if each.method in (*NAMED, "completion/complete")]

    @property
    def violations(self) -> list[str]:
        return [violation for each in self.seen for violation in each.violations]

    def forget(self) -> None:
        self.seen.clear()
        self.results.clear()
        self.tempers.clear()
        self.temper = ""

    # --- one POST

    async def handle(self, scope: Scope, body: bytes, send: Send) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        seen = Seen(scope["method"], headers, None, time.monotonic())
        self.seen.append(seen)
        seen.violations += [f"{name}: {value}" for name, value in headers if FORBIDDEN.match(name)]
        try:
            await self._handle(seen, body, send)
            seen.finished = True
        except asyncio.CancelledError:
            seen.cancelled = True
            raise
        except Failed as failed:
            await reply(send, failed.status, {"jsonrpc": "2.0", "id": seen.id, "error": failed.error})

    async def _handle(self, seen: Seen, body: bytes, send: Send) -> None:
        if self.key and (seen.header("authorization") or "").removeprefix("Bearer ") not in {self.key, *self.users}:
            await reply(send, 401, {"error": "canary-401-body"}, (("www-authenticate", 'Bearer realm="server"'),))
            return
        if self.admits is not None and seen.http == "POST":
            refused = self.admits((seen.header("authorization") or "").removeprefix("Bearer "), json.loads(body))
            if refused is not None:
                await reply(send, refused[0], {"error": "canary-401-body"}, (("www-authenticate", refused[1]),))
                return
        if seen.http == "DELETE":
            await reply(send, 200 if self.opened.pop(seen.header("mcp-session-id") or "", None) else 404, None)
            return
        if seen.http != "POST":
            await reply(send, 405, None)
            return
        accept = seen.header("accept") or ""
        if "application/json" not in accept or "text/event-stream" not in accept:
            raise Failed(-32600, "Not Acceptable", status=406)
        if (seen.header("content-type") or "").partition(";")[0] != "application/json":
            raise Failed(-32600, "Unsupported media type", status=415)
        message = self._read(body)
        seen.body, seen.id, seen.method = message, message.get("id"), message.get("method", "")
        seen.name = str(message.get("params", {}).get(NAMED.get(seen.method, ""), ""))
        temper = self.tempers.get(seen.method, self.temper)
        if temper and await self._tempered(temper, seen, send):
            return
        modern = self._is_modern(seen, message)
        session = None if modern else self._session(seen, message)
        if "method" not in message:
            self._answered(session, message)
            await reply(send, 202, None)
        elif "id" not in message:
            if session and seen.method == "notifications/initialized":
                session.ready = True
            await reply(send, 202, None)
        elif seen.method == "initialize" and not modern:
            await self._initialize(message, send)
        else:
            await self._answer(seen, message, session, send, modern=modern)

    def _read(self, body: bytes) -> Json:
        def pairs(found: list[tuple[str, Any]]) -> Json:
            if len({name for name, _ in found}) != len(found):
                raise Failed(-32700, "Duplicate key")
            return dict(found)

        try:
            message = json.loads(body, object_pairs_hook=pairs)
        except ValueError:
            raise Failed(-32700, "Parse error") from None
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            raise Failed(-32600, "Invalid request")
        return message

    def _is_modern(self, seen: Seen, message: Json) -> bool:
        stated = seen.header("mcp-protocol-version")
        meta = message.get("params", {}).get("_meta", {})
        version = meta.get(META + "protocolVersion")
        if "modern" not in self.eras:
            if stated is not None and stated not in LEGACY:
                raise Failed(-32000, f"Bad Request: Unsupported protocol version: {stated}", status=400)
            seen.violations += ["modern _meta at a legacy server"] if version else []
            return False
        if stated != MODERN and version is None:
            if "legacy" in self.eras:
                return False
            raise Failed(-32022, "Unsupported protocol version", {"supported": [MODERN], "requested": stated or ""})
        if "id" not in message:
            return True
        if version is None or META + "clientCapabilities" not in meta:
            raise Failed(-32602, "_meta lacks version or capabilities")
        if stated != version or seen.header("mcp-method") != message["method"]:
            raise Failed(-32020, "Headers do not match the body")
        if seen.name and decoded(seen.header("mcp-name")) != seen.name:
            raise Failed(-32020, "Mcp-Name does not match the body")
        seen.violations += ["session header at a modern server"] if seen.header("mcp-session-id") else []
        return True

    def _session(self, seen: Seen, message: Json) -> Session | None:
        seen.violations += ["modern header at a legacy server"] if seen.header("mcp-method") else []
        if not self.sessions or seen.method == "initialize":
            return None
        seen.session = seen.header("mcp-session-id") or ""
        if not seen.session:
            raise Failed(-32600, "Bad Request: Missing session ID", status=400)
        if (session := self.opened.get(seen.session)) is None:
            raise Failed(-32600, "Session not found", status=404)
        stated = seen.header("mcp-protocol-version")
        if stated != session.version and (session.version > "2025-03-26" or stated is not None):
            seen.violations.append(f"version {stated} in a session of {session.version}")
        if not session.ready and seen.method not in ("notifications/initialized", "ping"):
            raise Failed(-32602, "Received request before initialization was complete")
        if "method" in message and message.get("id") in session.open and "id" in message:
            seen.violations.append("an id twice at a time in one session")
        return session

    def _answered(self, session: Session | None, message: Json) -> None:
        question = session.questions.pop(message.get("id"), None) if session else None
        if question is None:
            raise Failed(-32600, "Invalid server response ID", status=400)
        question.get_loop().call_soon(question.set_result, message)

    async def _initialize(self, message: Json, send: Send) -> None:
        params = message["params"]
        version = params["protocolVersion"] if params["protocolVersion"] in LEGACY else LEGACY[-1]
        headers: tuple[tuple[str, str], ...] = ()
        if self.sessions:
            identifier = f"{self.name}-canary-session-{secrets.token_hex(8)}"
            self.opened[identifier] = Session(version, params["capabilities"])
            headers = (("mcp-session-id", identifier),)
        result = {"protocolVersion": version, "capabilities": self._capabilities(), "serverInfo": self._info()}
        result |= {"instructions": self.instructions} if self.instructions else {}
        await self._one(send, {"jsonrpc": "2.0", "id": message["id"], "result": result}, headers)

    def _info(self) -> Json:
        return {"name": self.name, "version": "1"}

    def _capabilities(self) -> Json:
        return {"tools": {"listChanged": True}, "prompts": {}, "resources": {"subscribe": True}, "completions": {}}

    # --- answers

    async def _answer(self, seen: Seen, message: Json, session: Session | None, send: Send, *, modern: bool) -> None:
        queue: asyncio.Queue[Json] = asyncio.Queue()
        table = session.open if session else {}
        table[seen.id] = (
            queue  # a second request with this id takes the answer of the first, as in the official servers
        )
        streams = self.answers == "sse" or seen.name in ("slow", "ask", "sample")
        work = asyncio.ensure_future(self._work(seen, message, session, table, modern=modern))
        try:
            if not streams:
                answer = await queue.get()
                status = STATUSES.get(answer["error"]["code"], 200) if modern and "error" in answer else 200
                await reply(send, status, answer)
                return
            await begin(send, "text/event-stream")
            async for event in self._events(queue, seen.id):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            work.cancel()
            if table.get(seen.id) is queue:
                del table[seen.id]

    async def _events(self, queue: asyncio.Queue[Json], number: Any) -> AsyncIterator[bytes]:
        while True:
            message = await queue.get()
            yield b": \n\n" if not message else b"event: message\r\ndata: %s\r\n\r\n" % json.dumps(message).encode()
            if message and "method" not in message:
                return

    async def _work(
        self, seen: Seen, message: Json, session: Session | None, table: dict[Any, asyncio.Queue[Json]], *, modern: bool
    ) -> None:
        def tell(each: Json) -> None:
            table[seen.id].put_nowait(each)

        try:
            result = await self._result(seen, message.get("params", {}), session, tell, modern=modern)
            if modern:
                result = {
                    "resultType": "complete",
                    **result,
                    "_meta": {**result.get("_meta", {}), META + "serverInfo": self._info()},
                }
                if seen.method in LISTS or seen.method in ("server/discover", "resources/read"):
                    result = {"ttlMs": 60_000, "cacheScope": "public", **result}
            tell({"jsonrpc": "2.0", "id": seen.id, "result": result})
        except Failed as failed:
            tell({"jsonrpc": "2.0", "id": seen.id, "error": failed.error})

    async def _result(
        self, seen: Seen, params: Json, session: Session | None, tell: Callable[[Json], None], *, modern: bool
    ) -> Json:
        if seen.method in LISTS:
            kind = LISTS[seen.method]
            found = self.templates if kind == "resourceTemplates" else getattr(self, kind)
            if kind == "tools" and (self.needs or self.unlocks):
                found = [each for each in found if self._has(each["name"], params, session)]
            start = int(params.get("cursor", 0))
            more = {"nextCursor": str(start + self.page)} if start + self.page < len(found) else {}
            return {kind: found[start : start + self.page], **more}
        match seen.method:
            case "server/discover" if modern:
                found = {"supportedVersions": [MODERN], "capabilities": self._capabilities()}
                return found | ({"instructions": self.instructions} if self.instructions else {})
            case "ping" if not modern:
                return {}
            case "tools/call":
                return await self._call(seen, params, session, tell, modern=modern)
            case "prompts/get" if any(each["name"] == seen.name for each in self.prompts):
                text = f"Greet {params.get('arguments', {}).get('name')}."
                return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}
            case "prompts/get":
                raise Failed(-32602, f"Unknown prompt: {seen.name}")
            case "resources/read" if seen.name.startswith(("test://", "ui://")):
                return {"contents": [{"uri": seen.name, "text": f"{self.name}: {seen.name}"}]}
            case "resources/read":
                raise Failed(-32602 if modern else -32002, "Resource not found", {"uri": seen.name})
            case "completion/complete":
                return {"completion": {"values": [self.name, params["argument"]["value"]]}}
            case "logging/setLevel" if not modern:
                return {}
        raise Failed(-32601, "Method not found")

    def _has(self, name: str, params: Json, session: Session | None) -> bool:
        """Whether a client has a tool, by its capabilities and by what its session called before."""
        able = params.get("_meta", {}).get(META + "clientCapabilities") if session is None else session.capabilities
        needed, key = self.needs.get(name), self.unlocks.get(name)
        return (needed is None or needed in (able or {})) and (key is None or bool(session and key in session.called))

    async def _call(
        self, seen: Seen, params: Json, session: Session | None, tell: Callable[[Json], None], *, modern: bool
    ) -> Json:
        if all(each["name"] != seen.name for each in self.tools) or not self._has(seen.name, params, session):
            raise Failed(-32602, f"Unknown tool: {seen.name}")
        if session:
            session.called.add(seen.name)
        given = params.get("arguments", {})
        if seen.name in self.results:
            return self.results[seen.name]
        match seen.name:
            case "told":
                shown = {"server": self.name, "id": seen.id, "session": seen.session, "meta": params.get("_meta")}
                return said(json.dumps(shown))
            case "slow":
                await self._progress(params, tell)
            case "fail":
                return {"content": [{"type": "text", "text": "It failed."}], "isError": True}
            case "broken":
                raise Failed(-32050, "Broken.", {"why": "asked"})
            case "ask":
                return await self._ask(params, session, tell, modern=modern)
            case "sample":
                asked = {"messages": [{"role": "user", "content": {"type": "text", "text": "?"}}], "maxTokens": 5}
                got = await self._question(session, tell, "sampling/createMessage", asked)
                return said(json.dumps(got))
        return said(f"{self.name}: {given.get('text', '')}")

    async def _progress(self, params: Json, tell: Callable[[Json], None]) -> None:
        given, token = params.get("arguments", {}), params.get("_meta", {}).get("progressToken")
        steps, pause = int(given.get("steps", 3)), float(given.get("pause", 0.02))
        for step in range(1, steps + 1):
            params = {"progressToken": token, "progress": step, "total": steps}
            silent = token is None or given.get("silent")
            tell({} if silent else {"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            await asyncio.sleep(pause)

    async def _ask(self, params: Json, session: Session | None, tell: Callable[[Json], None], *, modern: bool) -> Json:
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
        question = {"mode": "form", "message": "Which?", "requestedSchema": schema}
        if modern:
            if "inputResponses" not in params:
                able = params["_meta"][META + "clientCapabilities"]
                if "elicitation" not in able:
                    raise Failed(-32021, "Missing capability", {"requiredCapabilities": {"elicitation": {}}})
                asked = {"which": {"method": "elicitation/create", "params": question}}
                state = base64.b64encode(self.name.encode()).decode()
                return {"resultType": "input_required", "inputRequests": asked, "requestState": state}
            if base64.b64decode(params["requestState"]).decode() != self.name:
                raise Failed(-32602, "Foreign state")
            got = params["inputResponses"]["which"]
        else:
            got = await self._question(session, tell, "elicitation/create", question)
        answer = str((got.get("content") or {}).get("answer", got.get("action", "")))
        return {**said(f"{self.name}: {answer}"), "structuredContent": {"answer": answer}}

    async def _question(self, session: Session | None, tell: Callable[[Json], None], method: str, params: Json) -> Json:
        if session is None:
            raise Failed(-32603, "A stateless server cannot ask.")
        number = len(session.questions)
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        session.questions[number] = future  # small integers, as the official servers count them
        tell({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        answer = await future
        if "error" in answer:
            return {"action": f"error {answer['error']['code']}"}
        result: Json = answer["result"]
        return result

    async def _one(self, send: Send, answer: Json, headers: Any) -> None:
        if self.answers == "json":
            await reply(send, 200, answer, headers)
            return
        await begin(send, "text/event-stream", headers=headers)
        event = b"event: message\ndata: %s\n\n" % json.dumps(answer).encode()
        await send({"type": "http.response.body", "body": event})

    async def _tempered(self, temper: str, seen: Seen, send: Send) -> bool:
        """Answer as a broken server; false: answer properly, now."""
        kind, _, value = temper.partition("=")
        match kind:
            case "hang":
                await asyncio.Event().wait()
            case "slow":
                await asyncio.sleep(float(value))
                return False
            case "html":
                await begin(send, "text/html")
                await send({"type": "http.response.body", "body": b"<html>canary-html-body</html>"})
            case "badjson":
                await begin(send, "application/json")
                await send({"type": "http.response.body", "body": b'{"jsonrpc":"2.0","id":1,"resu'})
            case "status":
                await reply(send, int(value), {"error": "canary-error-body"})
            case "wrongid":
                await reply(send, 200, {"jsonrpc": "2.0", "id": "canary-wrong-id", "result": said("of another")})
            case "early":
                await begin(send, "text/event-stream")
                await send({"type": "http.response.body", "body": b": \n\n"})
            case "redirect":
                await reply(send, 307, None, (("location", value),))
        return True


def said(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}]}


def decoded(value: str | None) -> str | None:
    found = re.fullmatch(r"=\?base64\?(.*)\?=", value or "")
    return base64.b64decode(found[1]).decode() if found else value


async def begin(send: Send, kind: str, status: int = 200, headers: Any = ()) -> None:
    more = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode()), *more]})


async def reply(send: Send, status: int, answer: Any, headers: Any = ()) -> None:
    body = b"" if answer is None else json.dumps(answer).encode()
    await begin(send, "application/json", status, (*headers, ("content-length", str(len(body)))))
    await send({"type": "http.response.body", "body": body})


KINDS: dict[str, Json] = {
    "dual": {},
    "modern": {"eras": ("modern",)},
    "modern-sse": {"eras": ("modern",), "answers": "sse"},
    "stateful": {"eras": ("legacy",)},
    "stateful-sse": {"eras": ("legacy",), "answers": "sse"},
    "stateless": {"eras": ("legacy",), "sessions": False},
}


class McpServers:
    """Servers by name, each at /name of one port."""

    def __init__(self, *servers: McpServer) -> None:
        self.by_name = {server.name: server for server in servers}
        self.url = ""

    def __getitem__(self, name: str) -> McpServer:
        return self.by_name[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        server = self.by_name.get(scope["path"].strip("/"))
        if server is None:
            await reply(send, 404, {"error": "there is no such server"})
            return
        work = asyncio.ensure_future(server.handle(scope, body, send))
        gone = asyncio.ensure_future(left(receive))
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not work.done():
            work.cancel()
        await asyncio.wait((work,))

    @contextmanager
    def running(self, port: int = 0) -> Iterator[McpServers]:
        """Serve on a thread of its own, until the context ends."""
        config = uvicorn.Config(self, port=port, log_level="critical", lifespan="off", timeout_graceful_shutdown=0)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.should_exit = True
            thread.join(10)


async def left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def kinds(*names: str) -> McpServers:
    """One server of each kind, named after it."""
    return McpServers(*(McpServer(name, **KINDS[name]) for name in names or KINDS))
