"""An OpenID provider on a thread: discovery, sign-on without questions, tokens with PKCE, keys."""

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
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.e2e.idp import Issuer

CLIENT, SECRET = "gateway-console", "client:secret/+"


class Provider:
    """`groups` and `claims` are those of the next tokens; `signed` makes a token of claims; `asked` counts requests."""

    def __init__(self) -> None:
        self.url = ""
        self.groups: Any = ["ops"]
        self.claims: dict[str, Any] = {}
        self.signed: Callable[[dict[str, Any]], str] = lambda claims: self.issuer.token(**claims)
        self.discovered: dict[str, Any] = {}
        self.asked: list[str] = []
        self.codes: dict[str, dict[str, str]] = {}

    @property
    def issuer(self) -> Issuer:
        if not hasattr(self, "_issuer"):
            self._issuer = Issuer(self.url)
        return self._issuer

    def get(self, path: str, given: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        if path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/jwks"}
            return 200, {}, {"issuer": self.url} | {name: self.url + at for name, at in names.items()} | self.discovered
        if path == "/jwks":
            return 200, {}, json.loads(self.issuer.jwks())
        assert path == "/authorize", path
        assert (given["response_type"], given["code_challenge_method"], given["client_id"]) == ("code", "S256", CLIENT)
        code = secrets.token_urlsafe(8)
        self.codes[code] = given
        where = given["redirect_uri"] + "?" + urlencode({"code": code, "state": given["state"]})
        return 302, {"location": where}, {}

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        given = self.codes.pop(form["code"], None)
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        )
        wanted = "Basic " + base64.b64encode(b"gateway-console:client%3Asecret%2F%2B").decode()
        if given is None or challenge != given["code_challenge"] or authorization != wanted:
            return 400, {"error": "invalid_grant"}
        assert form["redirect_uri"] == given["redirect_uri"]
        claims = {"aud": CLIENT, "iat": int(time.time()), "nonce": given["nonce"], "email": "zoe@example.com"}
        return 200, {"id_token": self.signed(claims | {"realm": {"groups": self.groups}} | self.claims)}

    @contextmanager
    def running(self) -> Iterator[Provider]:
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                provider.asked.append(url.path)
                self._send(*provider.get(url.path, {name: values[0] for name, values in parse_qs(url.query).items()}))

            def do_POST(self) -> None:
                provider.asked.append(self.path)
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                status, found = provider.token(form, self.headers.get("authorization", ""))
                self._send(status, {}, found)

            def _send(self, status: int, headers: dict[str, str], found: Any) -> None:
                content = json.dumps(found).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
