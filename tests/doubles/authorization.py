"""An OAuth 2.1 authorization server that protects one MCP server: it takes what RFC 6749, 7591, 7636, 8414, 8707 and
9728 demand and nothing else. Refresh tokens rotate, and a second use of one ends all tokens of its sign-in.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

Json = dict[str, Any]
Answer = tuple[int, dict[str, str], Any]


@dataclass
class Grant:
    """One sign-in, from its code on."""

    user: str
    query: dict[str, str]
    refresh: set[str] = field(default_factory=set)  # tokens that were used
    ended: bool = False


@dataclass
class AuthorizationServer:
    resource: str = ""  # address of the MCP server
    user: str = "alice"  # the user whose browser comes next
    scopes: tuple[str, ...] = ()
    lives: float = 600.0  # seconds of an access token
    registers: bool = True
    changes: Json = field(default_factory=dict)  # fields of the server's document; None removes one
    named: str = ""  # issuer in the resource's document, in place of the own one
    iss: str | None = None  # issuer of its answers, in place of the own one
    make: Callable[[Grant], str] = lambda _grant: secrets.token_urlsafe(16)
    url: str = ""
    tokens: dict[str, tuple[Grant, float]] = field(default_factory=dict)  # access tokens, with their end
    clients: dict[str, Json] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)  # parameters of /authorize and /token
    reused: int = 0  # refresh tokens that came again
    down: bool = False
    _codes: dict[str, Grant] = field(default_factory=dict)
    _refresh: dict[str, Grant] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admits(
        self, needs: Callable[[Json], str] = lambda _message: ""
    ) -> Callable[[str, Json], tuple[int, str] | None]:
        """The check of an MCP server behind this one. `needs`: the scope that a message needs."""

        def check(token: str, message: Json) -> tuple[int, str] | None:
            document = f'resource_metadata="{self.url}/.well-known/oauth-protected-resource/mcp"'
            grant, ends = self.tokens.get(token, (None, 0.0))
            if grant is None or grant.ended or ends < time.time():
                return 401, f"Bearer {document}"
            if (scope := needs(message)) and scope not in grant.query.get("scope", "").split():
                return 403, f'Bearer error="insufficient_scope", scope="{scope}", {document}'
            return None

        return check

    def get(self, path: str, query: dict[str, str]) -> Answer:
        if path == "/.well-known/oauth-protected-resource/mcp":
            servers = [self.named or self.url]
            return (
                200,
                {},
                {"resource": self.resource, "authorization_servers": servers, "scopes_supported": self.scopes},
            )
        if path == "/.well-known/oauth-authorization-server":
            document = {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "registration_endpoint": f"{self.url}/register" if self.registers else None,
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none"],
                "authorization_response_iss_parameter_supported": True,
            } | self.changes
            return 200, {}, {name: value for name, value in document.items() if value is not None}
        if path == "/authorize":
            self.asked.append(query)
            client = self.clients[query["client_id"]]
            assert query["redirect_uri"] in client["redirect_uris"]
            assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
            assert not self.resource or query["resource"] == self.resource
            code = secrets.token_urlsafe(8)
            self._codes[code] = Grant(self.user, query)
            back = {"code": code, "state": query["state"], "iss": self.url if self.iss is None else self.iss}
            return 302, {"location": f"{query['redirect_uri']}?{urlencode(back)}"}, None
        return 404, {}, None

    def post(self, path: str, body: bytes) -> Answer:
        if path == "/register" and self.registers:
            id = f"client-{len(self.clients)}"
            self.clients[id] = json.loads(body)
            return 201, {}, {**self.clients[id], "client_id": id}
        form = {name: value for name, [value] in parse_qs(body.decode(), strict_parsing=True).items()}
        self.asked.append(form)
        with self._lock:
            found = 503 if self.down else self._grant(form)
            if not isinstance(found, Grant):
                return found, {}, {"error": "invalid_grant", "error_description": "canary-words"}
            access, refresh = self.make(found), secrets.token_urlsafe(16)
            self.tokens[access], self._refresh[refresh] = (found, time.time() + self.lives), found
        given = {"access_token": access, "token_type": "Bearer", "expires_in": self.lives, "refresh_token": refresh}
        return 200, {"cache-control": "no-store"}, given

    def _grant(self, form: dict[str, str]) -> Grant | int:
        if form["grant_type"] == "refresh_token":
            token = form["refresh_token"]
            if (found := self._refresh.get(token)) is None or found.ended:
                return 400
            if token in found.refresh:
                self.reused, found.ended = self.reused + 1, True
                return 400
            found.refresh.add(token)
            return found if form["resource"] == found.query["resource"] else 400
        if (found := self._codes.pop(form["code"], None)) is None:
            return 400
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        right = base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == found.query["code_challenge"]
        right &= all(form[name] == found.query[name] for name in ("redirect_uri", "resource", "client_id"))
        return found if right else 400

    @contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                where = urlsplit(self.path)
                self._say(owner.get(where.path, {name: each[0] for name, each in parse_qs(where.query).items()}))

            def do_POST(self) -> None:
                self._say(owner.post(self.path, self.rfile.read(int(self.headers["content-length"]))))

            def _say(self, found: Answer) -> None:
                status, headers, document = found
                body = b"" if document is None else json.dumps(document).encode()
                self.send_response(status)
                for name, value in (
                    headers | {"content-type": "application/json", "content-length": str(len(body))}
                ).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self.url
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
