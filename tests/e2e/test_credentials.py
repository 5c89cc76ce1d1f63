"""Keys rotate and tokens are fetched while the gateway runs, without a command of an operator."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import eventually

CANARY = "canary-91c2"

SETTINGS = """
providers:
  keyed: {{kind: openai, base_url: "{{mock_a}}", api_key: "file:{place}/key"}}
  azure:
    kind: azure_openai
    base_url: "{{mock_a}}"
    credentials: {{azure: {{tenant: acme, client_id: app, client_secret: "file:{place}/secret"}}}}
  google: {{kind: openai, base_url: "{{mock_a}}", credentials: {{google: "file:{place}/google.json"}}}}
  a: {{kind: mock, base_url: "{{mock_a}}"}}
  spare: {{kind: mock, base_url: "{{mock_spare}}"}}
models:
  keyed: {{provider: keyed}}
  azure: {{provider: azure}}
  google: {{provider: google}}
  a: {{provider: a}}
  spare: {{provider: spare}}
virtual_models:
  assistant: {{targets: [{{model: azure}}, {{model: spare}}]}}
consumers: [{{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}]
stores: {{counters: "memory:"}}
"""


class TokenEndpoint(http.server.ThreadingHTTPServer):
    """A token endpoint. It gives numbered tokens, or answers that it is down."""

    daemon_threads = True
    down = False
    given = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: TokenEndpoint

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.given += not self.server.down
        token = f"{CANARY}{self.path.replace('/', '-')}-{self.server.given}"
        body = json.dumps({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(503 if self.server.down else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def tokens() -> Iterator[TokenEndpoint]:
    server = TokenEndpoint()
    yield server
    server.shutdown()
    server.server_close()


def service_account(url: str) -> str:
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import serialization as form

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()).decode()
    email = "gateway@acme.iam.gserviceaccount.com"
    return json.dumps({"type": "service_account", "client_email": email, "private_key": pem, "token_uri": url})


def test_rotated_keys_and_fetched_tokens_reach_the_provider(start: Any, tokens: TokenEndpoint, tmp_path: Path) -> None:
    key, secret, google = (tmp_path / name for name in ("key", "secret", "google.json"))
    authority = f"http://127.0.0.1:{tokens.server_address[1]}"
    key.write_text(f"{CANARY}-first")
    secret.write_text(f"{CANARY}-secret")
    google.write_text(service_account(f"{authority}/google"))
    tokens.down = True
    env = {"AZURE_AUTHORITY_HOST": authority}
    gateway = start(SETTINGS.format(place=tmp_path), mocks=("a", "spare"), env=env)

    def arrived(model: str) -> str:
        """The credential in the request that reaches the provider, or the error."""
        gateway.reset()
        answer = gateway.chat(model)
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.json()['error']['code']}"
        headers = dict(gateway.seen("a")[0]["headers"])
        assert "api-key" not in headers
        return str(headers["authorization"])

    assert arrived("keyed") == f"Bearer {CANARY}-first"
    assert arrived("azure") == arrived("google") == "502 provider_credential_rejected"
    assert "no token for provider azure now" in gateway.chat("azure").json()["error"]["message"]
    assert gateway.chat("assistant").json()["model"] == "spare"
    assert eventually(lambda: gateway.metric("extproc_credential_refreshes_total", provider="azure", outcome="failed"))

    tokens.down = False
    eventually(lambda: arrived("azure").startswith(f"Bearer {CANARY}-acme-oauth2-v2.0-token-"))
    eventually(lambda: arrived("google").startswith(f"Bearer {CANARY}-google-"))
    gateway.reset()
    assert gateway.chat("assistant").json()["model"] == "azure"
    given = tokens.given

    key.write_text(f"{CANARY}-second")
    eventually(lambda: arrived("keyed") == f"Bearer {CANARY}-second")
    key.unlink()
    eventually(lambda: arrived("keyed") == "503 no_provider_available")
    key.write_text(f"{CANARY}-third")
    eventually(lambda: arrived("keyed") == f"Bearer {CANARY}-third")

    assert tokens.given == given  # tokens are cached
    text = gateway.log.read_text()
    assert CANARY not in text
    assert "provider azure: no new token (failed: status 503); there is none" in text
    assert gateway.stop() == 0
