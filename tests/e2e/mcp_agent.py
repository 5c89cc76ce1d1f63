"""A client of MCP for tests, of either era: it writes requests as the specification says, and reads JSON and SSE."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx

Json = dict[str, Any]
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


class Answer(NamedTuple):
    """The answer to one POST: its messages in order. The last is the answer to the request."""

    status: int
    headers: httpx.Headers
    messages: Sequence[Json]
    text: str

    @property
    def last(self) -> Json:
        return self.messages[-1]

    @property
    def result(self) -> Json:
        assert "result" in self.last, (self.status, self.text[:2000])
        found: Json = self.last["result"]
        return found

    @property
    def said(self) -> str:
        """The text of a tool's result."""
        found: str = self.result["content"][0]["text"]
        return found

    @property
    def code(self) -> int:
        assert "error" in self.last, (self.status, self.text[:2000])
        return int(self.last["error"]["code"])


def answer(response: httpx.Response) -> Answer:
    text = response.text
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.startswith("data:")]
        messages = [json.loads(line[5:]) for line in lines]
    else:
        messages = [json.loads(text)] if text else []
    return Answer(response.status_code, response.headers, messages, text)


def encoded(name: str) -> str:
    """A name as the header Mcp-Name carries it."""
    if name.isascii() and name.isprintable() and name == name.strip():
        return name
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="


def message(method: str, params: Json | None = None, id: Any = 1) -> Json:
    body: Json = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        body["id"] = id
    if params is not None:
        body["params"] = params
    return body


def modern(
    method: str, params: Json | None = None, id: Any = 1, able: Json | None = None
) -> tuple[Json, dict[str, str]]:
    """Body and headers of a request of 2026-07-28."""
    params = dict(params or {})
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": able or {}}
    params["_meta"] = meta | params.get("_meta", {})
    headers = {"mcp-protocol-version": MODERN, "mcp-method": method}
    if method in NAMED and isinstance(params.get(NAMED[method]), str):
        headers["mcp-name"] = encoded(params[NAMED[method]])
    return message(method, params, id), headers


class Agent:
    """A consumer's client at one profile. Legacy ones open a session with their first request."""

    def __init__(self, url: str, key: str | None, *, era: str = "modern", able: Json | None = None) -> None:
        self.url, self.era, self.able = url, era, able or {}
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.session: dict[str, str] = {}

    def request(self, method: str, params: Json | None = None, id: Any = 1) -> tuple[bytes, dict[str, str]]:
        if self.era == "modern":
            body, headers = modern(method, params, id, self.able)
        else:
            body, headers = message(method, params, id), self.session
        return json.dumps(body).encode(), ACCEPT | self.headers | headers

    def send(self, http: httpx.Client, method: str, params: Json | None = None, id: Any = 1, **more: str) -> Answer:
        if self.era != "modern" and not self.session and method != "initialize":
            self.open(http)
        body, headers = self.request(method, params, id)
        return answer(
            http.post(self.url, content=body, headers=headers | {n.replace("_", "-"): v for n, v in more.items()})
        )

    def open(self, http: httpx.Client, version: str = LEGACY) -> Answer:
        """Open a session of an older revision."""
        params = {"protocolVersion": version, "capabilities": self.able, "clientInfo": {"name": "test", "version": "1"}}
        body, headers = self.request("initialize", params, 0)
        found = answer(http.post(self.url, content=body, headers=headers))
        self.session = {"mcp-protocol-version": found.result["protocolVersion"]}
        if session := found.headers.get("mcp-session-id"):
            self.session["mcp-session-id"] = session
        body, headers = self.request("notifications/initialized", None, None)
        assert http.post(self.url, content=body, headers=headers).status_code == 202
        return found

    def call(self, http: httpx.Client, name: str, arguments: Mapping[str, Any] | None = None, id: Any = 1) -> Answer:
        return self.send(http, "tools/call", {"name": name, "arguments": dict(arguments or {})}, id)

    def tools(self, http: httpx.Client) -> list[Json]:
        found: list[Json] = self.send(http, "tools/list").result["tools"]
        return found

    async def acall(self, http: httpx.AsyncClient, name: str, arguments: Json, id: Any = 1) -> Answer:
        """A call; a legacy session has to be open."""
        body, headers = self.request("tools/call", {"name": name, "arguments": arguments}, id)
        return answer(await http.post(self.url, content=body, headers=headers))
