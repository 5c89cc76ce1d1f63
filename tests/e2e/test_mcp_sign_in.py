"""OAuth from beginning to end with the official SDK: the client finds the company's issuer through the gateway,
registers there, signs its user in with PKCE, and calls a tool with a token for the profile. `make mcp` runs the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.doubles.authorization import AuthorizationServer
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


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_signs_in_at_the_companys_issuer(tmp_path: Path, mode: str) -> None:
    python = INSTALLED / "bin" / "python"
    if not python.exists():
        pytest.skip("the clients are not installed: `make mcp` does it")
    door, status, admin, port = free_ports(4)
    issuer = Issuer(f"http://127.0.0.1:{port}")
    company = AuthorizationServer(
        make=lambda grant: issuer.token(sub=grant.user, aud=grant.query["resource"], team="platform")
    )
    (tmp_path / "keys.json").write_bytes(issuer.jwks())
    with kinds("dual").running() as servers, company.running(port):
        servers["dual"].key = TOKEN
        file, log = tmp_path / "gateway.yaml", tmp_path / "log.txt"
        places = {"door": door, "status": status, "admin": admin, "folder": tmp_path, "issuer": issuer.url}
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
