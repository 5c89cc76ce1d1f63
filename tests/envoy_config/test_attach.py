from __future__ import annotations

import pytest
import yaml

from extproc.envoy.envoy_config import attach, attach_problems
from extproc.settings.config import parse
from extproc.words import contract
from tests.e2e.idp import Issuer

SETTINGS = parse("""
providers:
  openai: {kind: openai, api_key: env:TEST_KEY}
  azure: {kind: openai, base_url: https://acme.example.com/v1, api_key: env:TEST_KEY}
models:
  gpt-4o: {provider: openai}
  gpt-4o-azure: {provider: azure, model: gpt-4o}
  small: {provider: openai, model: gpt-4o-mini}
virtual_models:
  same: {targets: [{model: gpt-4o}, {model: gpt-4o-azure}]}
  other: {targets: [{model: gpt-4o}, {model: small}, {model: gpt-4o-azure}]}
""")
THEIRS = """
static_resources:
  listeners:
  - name: theirs
    address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: theirs
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [
            {match: {prefix: /}, route: {cluster: theirs}}]}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - {name: theirs, type: STATIC}
"""


def test_there_are_three_pieces_to_paste():
    text = attach(SETTINGS)
    ext_proc, cluster, log = yaml.safe_load(text)
    assert ext_proc["name"] == "envoy.filters.http.ext_proc"
    config = ext_proc["typed_config"]
    assert config["grpc_service"]["initial_metadata"] == [{"key": contract.ATTACHMENT, "value": contract.ATTACH}]
    assert config["processing_mode"]["request_body_mode"] == "BUFFERED"
    assert not config.get("failure_mode_allow")
    assert config["allow_mode_override"] is True
    assert cluster["name"] == "extproc"
    assert log["typed_config"]["common_config"]["log_name"] == contract.GATEWAY_LOG
    assert contract.PROVIDER in text


def test_it_uses_no_field_that_an_old_envoy_lacks():
    text = attach(SETTINGS)
    assert "TypedStruct" not in text
    assert "internal" not in text
    used = {line.split("type.googleapis.com/")[1] for line in text.splitlines() if "type.googleapis.com/" in line}
    assert used == {
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    }
    config = yaml.safe_load(text)[0]["typed_config"]
    assert set(config) <= {  # all exist in the API of 1.33
        "@type",
        "grpc_service",
        "processing_mode",
        "response_attributes",
        "message_timeout",
        "max_message_timeout",
        "forward_rules",
        "allow_mode_override",
    }


def test_it_contains_no_secret(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-very-secret")
    assert "sk-very-secret" not in attach(SETTINGS)


def test_settings_that_attach_mode_cannot_serve_are_named():
    ((path, message),) = attach_problems(SETTINGS)
    assert path == ("virtual_models", "other", "targets")
    assert "gpt-4o, gpt-4o-mini" in message


@pytest.mark.e2e
def test_envoy_accepts_the_pasted_pieces(validate):
    ext_proc, cluster, log = yaml.safe_load(attach(SETTINGS))
    theirs = yaml.safe_load(THEIRS)
    manager = theirs["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"].insert(0, ext_proc)
    manager["access_log"] = [log]
    theirs["static_resources"]["clusters"].append(cluster)
    assert validate(yaml.safe_dump({"node": {"id": "theirs", "cluster": "theirs"}} | theirs)) == ""


IDENTITY = """
providers: {openai: {kind: mock}}
models: {m: {provider: openai}}
auth:
  jwt:
    - {issuer: https://a.example, audiences: [ai], jwks_uri: "https://a.example/jwks", prefix: "a:"}
    - {issuer: https://b.example, audiences: [ai], jwks: "file:FILE", prefix: "b:", header: x-identity}
consumers: [{name: agent, certificates: ["spiffe://acme/ci"]}]
"""


@pytest.mark.e2e
def test_the_other_teams_envoy_verifies_tokens_and_certificates(validate, tmp_path):
    (tmp_path / "keys.json").write_bytes(Issuer("https://b.example").jwks())
    text = attach(parse(IDENTITY.replace("FILE", str(tmp_path / "keys.json"))))
    tokens, ext_proc, cluster, jwks, log = yaml.safe_load(text)
    assert tokens["name"] == "envoy.filters.http.jwt_authn"
    assert ext_proc["typed_config"]["request_attributes"] == list(contract.PEER_ATTRIBUTES)
    sent = ext_proc["typed_config"]["metadata_options"]["forwarding_namespaces"]["untyped"]
    assert sent == [contract.JWT_NAMESPACE]
    assert "ACCEPT_UNTRUSTED" in text
    assert "x-identity" in text.partition("\n# 1.")[0]  # among the headers they have to remove
    theirs = yaml.safe_load(THEIRS)
    manager = theirs["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"][:0] = [tokens, ext_proc]
    manager["access_log"] = [log]
    theirs["static_resources"]["clusters"] += [cluster, jwks]
    assert validate(yaml.safe_dump({"node": {"id": "theirs", "cluster": "theirs"}} | theirs)) == ""


def test_attach_mode_has_no_envoy_that_signs_the_questions_of_a_guardrail():
    text = """
providers: {bedrock: {kind: aws_bedrock, region: eu-west-1}}
models: {m: {provider: bedrock}}
guardrails: [{name: g, kind: bedrock, provider: bedrock, guardrail: abc KEYS}]
"""
    ((path, message),) = attach_problems(parse(text.replace(" KEYS", "")))
    assert path == ("guardrails", 0, "provider")
    assert "give access_key_id" in message
    keys = ", access_key_id: env:A, secret_access_key: env:B"
    assert attach_problems(parse(text.replace(" KEYS", keys))) == []
