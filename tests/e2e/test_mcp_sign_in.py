"""OAuth from beginning to end with the official SDK: the client finds the company's issuer through the gateway,
registers there, signs its user in with PKCE, and calls a tool with a token for the profile. `make mcp` runs the tests.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.doubles.mcp import kinds
from tests.e2e import parts
from tests.e2e.conftest import HERE, free_ports
from tests.e2e.idp import Issuer
from tests.e2e.test_mcp_clients import INSTALLED

pytestmark = pytest.mark.mcp_clients

SETTINGS = """
listener: {{address: 127.0.0.1, port: {door}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {admin}}}
providers: {{none: {{kind: mock}}}}
models: {{none: {{provider: none}}}}
mcp:
  resource: http://127.0.0.1:{door}
  servers: {{dual: {{url: "{servers}/dual", token: env:SERVER_TOKEN}}}}
  profiles: {{dev: {{servers: {{dual: {{}}}}}}}}
auth:
  jwt:
    - issuer: "{issuer}"
      audiences: ["http://127.0.0.1:{door}/mcp/dev"]
      jwks: "file:{folder}/keys.json"
      team: team
teams: {{platform: {{tools: ["dev/dual__echo"]}}}}
stores: {{counters: "memory:"}}
"""
TOKEN = "canary-server-token"


class Company:
    """An authorization server that signs everybody in as alice of the team platform."""

    def __init__(self, port: int) -> None:
        self.issuer = Issuer(f"http://127.0.0.1:{port}")
        self.asked: list[dict[str, str]] = []  # parameters of /authorize and /token
        self._challenges: dict[str, dict[str, str]] = {}

    def get(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        url = self.issuer.url
        if path in ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"):
            return (
                200,
                {},
                {
                    "issuer": url,
                    "authorization_endpoint": f"{url}/authorize",
                    "token_endpoint": f"{url}/token",
                    "registration_endpoint": f"{url}/register",
                    "response_types_supported": ["code"],
                    "grant_types_supported": ["authorization_code"],
                    "code_challenge_methods_supported": ["S256"],
                    "token_endpoint_auth_methods_supported": ["none"],
                    "authorization_response_iss_parameter_supported": True,
                },
            )
        if path == "/authorize":
            self.asked.append(query)
            code = f"code-{len(self._challenges)}"
            self._challenges[code] = query
            back = urlencode({"code": code, "state": query["state"], "iss": url})
            return 302, {"location": f"{query['redirect_uri']}?{back}"}, None
        return 404, {}, None

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], Any]:
        if path == "/register":
            return 201, {}, {**json.loads(body), "client_id": "registered", "token_endpoint_auth_method": "none"}
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        begun = self._challenges.pop(form["code"])
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == begun["code_challenge"]
        assert form["resource"] == begun["resource"]
        self.asked.append(form)
        token = self.issuer.token(sub="alice", aud=form["resource"], team="platform")
        return 200, {}, {"access_token": token, "token_type": "Bearer", "expires_in": 600}

    @contextmanager
    def running(self, port: int) -> Iterator[None]:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                where = urlsplit(self.path)
                self._say(owner.get(where.path, {name: each[0] for name, each in parse_qs(where.query).items()}))

            def do_POST(self) -> None:
                self._say(owner.post(self.path, self.rfile.read(int(self.headers["content-length"]))))

            def _say(self, found: tuple[int, dict[str, str], Any]) -> None:
                status, headers, document = found
                body = b"" if document is None else json.dumps(document).encode()
                self.send_response(status)
                for name, value in (
                    headers | {"content-type": "application/json", "content-length": len(body)}
                ).items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_signs_in_at_the_companys_issuer(tmp_path: Path, mode: str) -> None:
    python = INSTALLED / "bin" / "python"
    if not python.exists():
        pytest.skip("the clients are not installed: `make mcp` does it")
    door, status, admin, port = free_ports(4)
    company = Company(port)
    (tmp_path / "keys.json").write_bytes(company.issuer.jwks())
    with kinds("dual").running() as servers, company.running(port):
        servers["dual"].key = TOKEN
        file, log = tmp_path / "gateway.yaml", tmp_path / "log.txt"
        places = {"door": door, "status": status, "admin": admin, "folder": tmp_path, "issuer": company.issuer.url}
        file.write_text(SETTINGS.format(servers=servers.url, **places))
        with parts.running(file, log, {"SERVER_TOKEN": TOKEN}):
            done = subprocess.run(
                [python, "-W", "ignore", HERE / "clients" / "mcp_oauth.py", mode, f"http://127.0.0.1:{door}/mcp/dev"],
                env={**os.environ, "PYTHONPATH": ""},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout.splitlines()[-1]) == [["dual__echo"], "dual: signed in"]
        assert company.asked[0]["resource"] == f"http://127.0.0.1:{door}/mcp/dev"
        assert {each.header("authorization") for each in servers["dual"].seen} == {f"Bearer {TOKEN}"}
        assert "eyJ" not in log.read_text(), "no token in the log"
