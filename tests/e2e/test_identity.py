"""Consumers identified by tokens and client certificates that a real Envoy verifies."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import KEY, Gateway, chat_body, eventually, free_ports, run_gateway
from tests.e2e.idp import AUDIENCE, Authority, Issuer, base64url, served

STAFF, ROBOTS = Issuer("https://idp.example/staff"), Issuer("https://idp.example/robots")
STRANGER = Issuer("https://elsewhere.example")

TWO_ISSUERS = """
providers:
  sandbox: {{kind: mock, base_url: "{{mock_sandbox}}"}}
  backup: {{kind: mock, base_url: "{{mock_backup}}"}}
models: {{stub: {{provider: sandbox}}, spare: {{provider: backup}}}}
virtual_models: {{assistant: {{targets: [{{model: stub}}, {{model: spare}}]}}}}
auth:
  jwt:
    - issuer: {staff}
      audiences: [{audience}]
      jwks_uri: https://127.0.0.1:{port}/jwks
      tls_ca: {ca}
      prefix: "staff:"
      team: org.teams
      groups: https://acme.example/roles
      labels: {{cost-center: department, absent: nothing}}
    - {{issuer: {robots}, audiences: [other, {audience}], jwks: "file:{file}", prefix: "robot:"}}
teams: {{platform: {{models: [stub, spare, assistant], labels: {{division: red}}}}, closed: {{models: []}}}}
groups: {{stubs: {{models: [stub, assistant]}}, spares: {{models: [spare]}}}}
consumers:
  - {{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}
  - {{name: deployer, subjects: ["robot:repo:acme/app"], models: [spare]}}
  - {{name: retired, subjects: ["robot:old"], disabled: true}}
budgets: [{{name: each, per: [consumer], unit: requests, limit: 1000, window: day}}]
stores: {{counters: "memory:"}}
"""


@pytest.fixture(scope="module")
def two_issuers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("tokens")
    authority, [port] = Authority(folder), free_ports(1)
    (folder / "robots.json").write_bytes(ROBOTS.jwks())
    places = {"port": port, "ca": authority.file, "file": folder / "robots.json"}
    text = TWO_ISSUERS.format(staff=STAFF.url, robots=ROBOTS.url, audience=AUDIENCE, **places)
    with served(STAFF.jwks(), port, authority.give("idp", ips=("127.0.0.1",))):
        for gateway in run_gateway(folder, text, ("sandbox", "backup"), {}):
            eventually(lambda: gateway.chat(key=staff(), headers={}).status_code == 200)  # noqa: B023 - called at once
            yield gateway


@pytest.fixture
def gateway(two_issuers: Gateway) -> Gateway:
    two_issuers.reset()
    return two_issuers


def staff(**changes: Any) -> str:
    good = {"org": {"teams": ["unknown", "platform"]}, "https://acme.example/roles": ["stubs"], "department": 42}
    return STAFF.token(**good | changes)


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_token_gives_consumer_team_groups_and_labels(gateway: Gateway) -> None:
    token = staff()
    answer = gateway.chat(key=token, headers={"x-ai-cost-center": "0", "x-ai-division": "0", "x-ai-absent": "forged"})
    assert answer.status_code == 200, answer.text
    entry = gateway.exchange_of(answer)
    assert (entry["consumer"], entry["team"]) == ("staff:alice", "platform")
    assert entry["labels"] == {"cost-center": "42", "division": "red"}
    assert gateway.metric("extproc_consumer_requests_total", consumer="staff:alice") == 0
    assert gateway.metric("extproc_consumer_requests_total", consumer="other", team="platform") > 0
    assert token.split(".")[2] not in json.dumps(gateway.seen("sandbox"))
    assert token.split(".")[2] not in gateway.log.read_text()


def test_a_token_with_a_listed_subject_is_that_consumer(gateway: Gateway) -> None:
    token = ROBOTS.token(sub="repo:acme/app")
    answer = gateway.chat("spare", key=token)
    assert gateway.exchange_of(answer)["consumer"] == "deployer"
    assert refused(gateway.chat("stub", key=token)) == (403, "model_not_allowed")
    assert refused(gateway.chat(key=ROBOTS.token(sub="old"))) == (401, "invalid_key")
    # The same name from another issuer is another consumer.
    assert gateway.exchange_of(gateway.chat(key=staff(sub="repo:acme/app")))["consumer"] == "staff:repo:acme/app"


def test_grants_of_teams_and_groups_bind_on_every_target(gateway: Gateway) -> None:
    assert refused(gateway.chat("spare", key=staff())) == (403, "model_not_allowed")
    gateway.fault("sandbox", "status=503")
    assert gateway.chat("assistant", key=staff()).status_code == 503
    assert gateway.seen("backup") == []
    both = staff(**{"https://acme.example/roles": ["stubs", "nobody", "spares"]})
    assert gateway.chat("assistant", key=both).headers["x-ai-provider"] == "backup"
    listed = gateway.http.get(gateway.base_url + "/models", headers={"authorization": f"Bearer {staff()}"}).json()
    assert [model["id"] for model in listed["data"]] == ["stub", "assistant"]


@pytest.mark.parametrize(
    "claims",
    [
        {"org": None},
        {"org": {"teams": []}},
        {"org": {"teams": "closed"}},
        {"org": {"teams": ["nobody"]}},
        {"org": ["platform"]},
        {"org": {"teams": {"platform": True}}},
        {"org.teams": "nobody"},
        {"https://acme.example/roles": None},
        {"https://acme.example/roles": []},
        {"https://acme.example/roles": "stubs spares"},
    ],
    ids=str,
)
def test_a_token_whose_claims_grant_nothing_gets_no_model(gateway: Gateway, claims: dict[str, Any]) -> None:
    assert refused(gateway.chat(key=staff(**claims))) == (403, "model_not_allowed")


# Made on demand, because they expire sooner than all tests take.
BAD = {
    "expired": (lambda: staff(exp=int(time.time()) - 120), "expired_key"),
    "expired, of the second issuer": (lambda: ROBOTS.token(exp=int(time.time()) - 120), "expired_key"),
    "not yet": (lambda: staff(nbf=int(time.time()) + 3600), "invalid_key"),
    "for ever": (lambda: staff(exp=None), "invalid_key"),
    "audience": (lambda: staff(aud="other"), "invalid_key"),
    "no audience": (lambda: staff(aud=None), "invalid_key"),
    "issuer": (STRANGER.token, "invalid_key"),
    "no issuer": (lambda: staff(iss=None), "invalid_key"),
    "issuer with a slash": (lambda: staff(iss=STAFF.url + "/"), "invalid_key"),
    "signed by another": (lambda: STRANGER.token(iss=STAFF.url), "invalid_key"),
    "signed by the other issuer": (lambda: ROBOTS.token(iss=STAFF.url), "invalid_key"),
    "unknown kid": (lambda: staff(kid="two"), "invalid_key"),
    "none": (STAFF.unsigned, "invalid_key"),
    "none, with a signature": (lambda: STAFF.unsigned() + base64url(b"x"), "invalid_key"),
    "hs256 with the public key": (STAFF.confused, "invalid_key"),
    "tampered": (lambda: STAFF.tampered(sub="root"), "invalid_key"),
    "cut": (lambda: staff()[:-10], "invalid_key"),
    "two dots": (lambda: "a.b.c", "invalid_key"),
    "dots": (lambda: "..", "invalid_key"),
    "twice": (lambda: f"{staff()},Bearer {staff()}", "invalid_key"),
    "subject that is a number": (lambda: staff(sub=12345), "invalid_key"),
    "no subject": (lambda: staff(sub=None), "invalid_key"),
    "empty subject": (lambda: staff(sub=""), "invalid_key"),
    "subject of control characters": (lambda: staff(sub="a\r\nx-injected: 1"), "invalid_key"),
    "subject of 257 bytes": (lambda: staff(sub="k" * 257), "invalid_key"),
}


@pytest.mark.parametrize(("make", "code"), BAD.values(), ids=BAD)
def test_an_invalid_token_is_refused(gateway: Gateway, make: Callable[[], str], code: str) -> None:
    token = make()
    answer = gateway.chat(key=token)
    assert refused(answer) == (401, code)
    assert gateway.calls() == 0
    assert token[-40:] not in gateway.log.read_text() + answer.text or len(token) < 40


@pytest.mark.parametrize(
    "make",
    [
        lambda: staff(exp=int(time.time()) - 20),  # within the clock skew of one minute
        lambda: staff(kid=None),
        lambda: staff(aud=["x", AUDIENCE]),
        lambda: staff(sub="k" * 256),
        lambda: staff(sub="Zoë Ω"),
        lambda: ROBOTS.token(aud="other"),
    ],
)
def test_a_valid_token_is_accepted_in_several_forms(gateway: Gateway, make: Callable[[], str]) -> None:
    assert gateway.chat(key=make()).status_code == 200


def test_a_gateway_key_works_in_the_header_of_tokens(gateway: Gateway) -> None:
    assert gateway.exchange_of(gateway.chat())["consumer"] == "demo"
    assert refused(gateway.chat(key="sk-gw-wrong")) == (401, "invalid_key")
    assert refused(gateway.chat(key=None)) == (401, "missing_key")


def test_a_token_and_a_key_together_are_refused_as_two_credentials(gateway: Gateway) -> None:
    for other in (KEY, "sk-gw-wrong", STAFF.token()):
        assert refused(gateway.chat(key=staff(), headers={"x-api-key": other})) == (401, "invalid_key")


def test_a_token_is_accepted_only_in_the_configured_header(gateway: Gateway) -> None:
    token = staff()
    schemes = [f"bearer {token}", token, f"Basic {token}"]
    elsewhere = [{"x-api-key": token}, {"cookie": f"access_token={token}"}]
    for headers in (*elsewhere, *({"authorization": value} for value in schemes)):
        assert gateway.chat(key=None, headers=headers).status_code == 401, headers


def test_a_token_in_the_query_is_not_accepted(gateway: Gateway) -> None:
    answer = gateway.post(f"/v1/chat/completions?access_token={staff()}", chat_body("stub"), key=None)
    assert refused(answer) == (401, "missing_key")


def test_grants_and_issuers_change_without_a_restart(gateway: Gateway) -> None:
    before = gateway.file.read_text()
    try:
        gateway.file.write_text(before.replace("stubs: {models: [stub, assistant]}", "stubs: {models: []}"))
        eventually(lambda: gateway.chat(key=staff()).status_code == 403)
        gateway.file.write_text(before.replace(AUDIENCE, "everybody"))
        eventually(lambda: gateway.chat(key=staff(aud="everybody")).status_code == 200, timeout=30)
        assert gateway.chat(key=staff()).status_code == 401
    finally:
        gateway.file.write_text(before)
    eventually(lambda: gateway.chat(key=staff()).status_code == 200, timeout=30)


# --- certificates, and an issuer that is down when the gateway starts

TLS = """
providers: {{sandbox: {{kind: mock, base_url: "{{mock_sandbox}}"}}}}
models: {{stub: {{provider: sandbox}}}}
auth: {{jwt: {{issuer: {staff}, audiences: [{audience}], jwks_uri: "http://127.0.0.1:{port}/", header: x-identity}}}}
consumers:
  - {{name: demo, keys: [{{env: EXTPROC_DEMO_KEY}}]}}
  - {{name: agent, certificates: ["spiffe://acme/ns/agents/sa/ci"], keys: [{{env: AGENT_KEY}}], labels: {{tier: gold}}}}
  - {{name: host, certificates: [ci.acme.example]}}
  - {{name: person, certificates: ["CN=person,O=Acme"]}}
  - {{name: listed, subjects: [bob]}}
stores: {{counters: "memory:"}}
"""


AGENT = "spiffe://acme/ns/agents/sa/ci"


class Guarded:
    """A gateway that asks for client certificates, and the certificates it knows."""

    def __init__(self, gateway: Gateway, authority: Authority, stranger: Authority, port: int) -> None:
        self.gateway, self.port = gateway, port
        self._authority = authority
        self._files: dict[str, tuple[str, str] | None] = {
            "none": None,
            "agent": authority.give(
                "any", uris=("spiffe://acme/ns/agents/sa/ci", "spiffe://other"), dns=("x.example",)
            ),
            "host": authority.give("any-host", dns=("ci.acme.example",)),
            "person": authority.give("person"),
            "unknown": authority.give("unknown", uris=("spiffe://acme/ns/agents/sa/other",), dns=("spiffe.example",)),
            "late": authority.give("late", uris=("spiffe://other", AGENT)),
            "stranger": stranger.give("stranger", uris=(AGENT,)),
        }

    def ask(self, who: str, **headers: str) -> httpx.Response:
        context = ssl.create_default_context(cafile=str(self._authority.file))
        if (files := self._files[who]) is not None:
            context.load_cert_chain(*files)
        url = f"{self.gateway.url.replace('http', 'https')}/v1/chat/completions"
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(url, json=chat_body("stub"), headers=given, verify=context, trust_env=False, timeout=30)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder), Authority(folder, "stranger-ca")
    certificate, key = authority.give("gateway", ips=("127.0.0.1",))
    tls = f'tls: {{certificate: "file:{certificate}", key: "file:{key}", client_ca: "file:{authority.file}"}}'
    [port] = free_ports(1)
    text = TLS.format(staff=STAFF.url, audience=AUDIENCE, port=port)
    for gateway in run_gateway(folder, text, ("sandbox",), {"AGENT_KEY": "sk-gw-agent"}, listener=tls):
        yield Guarded(gateway, authority, stranger, port)


@pytest.mark.parametrize("who", ["agent", "host", "person"])
def test_a_known_certificate_needs_no_key(guarded: Guarded, who: str) -> None:
    answer = guarded.ask(who)
    assert answer.status_code == 200, answer.text
    assert guarded.gateway.exchange_of(answer)["consumer"] == who


@pytest.mark.parametrize("who", ["none", "unknown", "late"])
def test_without_a_known_certificate_the_key_decides(guarded: Guarded, who: str) -> None:
    assert refused(guarded.ask(who)) == (401, "missing_key")
    answer = guarded.ask(who, authorization=f"Bearer {KEY}")
    assert guarded.gateway.exchange_of(answer)["consumer"] == "demo"


def test_a_certificate_of_another_authority_cannot_connect(guarded: Guarded) -> None:
    with pytest.raises(httpx.TransportError):
        guarded.ask("stranger", authorization=f"Bearer {KEY}")


def test_the_playground_reaches_a_listener_whose_authority_only_clients_know(guarded: Guarded) -> None:
    asked = {"key": KEY, "body": chat_body("stub")}
    played = guarded.gateway.http.post(guarded.gateway.admin + "/playground", json=asked)
    assert played.json()["status"] == 200, played.text


def test_a_certificate_and_a_key_must_belong_to_the_same_consumer(guarded: Guarded) -> None:
    assert guarded.ask("agent", x_api_key="sk-gw-agent").status_code == 200
    assert refused(guarded.ask("agent", x_api_key=KEY)) == (401, "invalid_key")
    assert refused(guarded.ask("agent", x_api_key="sk-gw-wrong")) == (401, "invalid_key")


def test_a_certificate_header_of_a_client_is_ignored(guarded: Guarded) -> None:
    forged = 'By=spiffe://x;Hash=00;Subject="CN=person,O=Acme";URI=spiffe://acme/ns/agents/sa/ci'
    assert refused(guarded.ask("none", x_forwarded_client_cert=forged)) == (401, "missing_key")
    guarded.gateway.reset()
    assert guarded.ask("person", x_forwarded_client_cert=forged).status_code == 200
    assert "x-forwarded-client-cert" not in json.dumps(guarded.gateway.seen("sandbox")).lower()


def test_keys_work_while_the_issuer_is_down_and_tokens_once_it_is_up(guarded: Guarded) -> None:
    token = STAFF.token()
    down = guarded.ask("none", x_identity=token)
    assert refused(down) == (401, "invalid_key")
    assert "Jwks" in down.json()["error"]["message"]
    assert guarded.ask("none", authorization=f"Bearer {KEY}").status_code == 200
    with served(STAFF.jwks(), guarded.port):
        eventually(lambda: guarded.ask("none", x_identity=token).status_code == 200)
        assert refused(guarded.ask("none", x_identity="x")) == (401, "invalid_key")
        assert refused(guarded.ask("none", x_identity=KEY)) == (401, "invalid_key")
        assert refused(guarded.ask("none", x_identity=STAFF.token(exp=1))) == (401, "expired_key")
        # A token states only its own name. It is a consumer of the settings only where that one lists its subject.
        for name in ("demo", "agent", "anonymous"):
            assert refused(guarded.ask("none", x_identity=STAFF.token(sub=name))) == (401, "invalid_key")
        answer = guarded.ask("none", x_identity=STAFF.token(sub="bob"))
        assert guarded.gateway.exchange_of(answer)["consumer"] == "listed"
        assert refused(guarded.ask("agent", x_identity=token)) == (401, "invalid_key")
        assert refused(guarded.ask("none", x_identity=token, authorization=f"Bearer {KEY}")) == (401, "invalid_key")
    assert token.split(".")[2] not in json.dumps(guarded.gateway.seen("sandbox"))
    assert token.split(".")[2] not in guarded.gateway.log.read_text()
