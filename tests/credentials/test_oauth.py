"""Tokens from cloud providers: the requests, the accepted answers, and hostile endpoints."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from urllib.parse import parse_qs

import pytest

from extproc.upstream.credentials import oauth
from extproc.upstream.credentials.oauth import OAuthToken, TokenError, TokenRequest, ask, fetch, problem, read
from extproc.upstream.providers import Credentials
from tests.outbound.endpoint import drip, drip_the_body, endless, endpoint, raw, reply, silence

NOW = 1_800_000_000.0
CANARY = "canary-7f3a"
METADATA = Credentials(google="metadata")
GOOGLE = Credentials(google="file:/run/secrets/google.json")
ENTRA = Credentials(azure={"tenant": "acme.example", "client_id": "app-1", "client_secret": "env:SECRET"})
WORKLOAD = Credentials(azure={"tenant": "t-1", "client_id": "app-1", "federated_token": "file:/token"})


MANAGED = Credentials(azure={"managed_identity": True})


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    names = ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "AZURE_POD_IDENTITY_AUTHORITY_HOST")
    for name in ("GCE_METADATA_HOST", "AZURE_AUTHORITY_HOST", *names):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def key():
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def account(key):
    """The key file of a service account, with changes."""
    return lambda **changes: json.dumps(
        {
            "type": "service_account",
            "project_id": "acme",
            "private_key_id": "key-1",
            "private_key": pem(key),
            "client_email": "gateway@acme.iam.gserviceaccount.com",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
        | changes
    )


def pem(key):
    from cryptography.hazmat.primitives import serialization as form

    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()).decode()


def unpacked(assertion):
    """Header, claims, signed bytes and signature of a JSON web token."""
    parts = assertion.split(".")
    head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in parts)
    return json.loads(head), json.loads(claims), ".".join(parts[:2]).encode(), signature


# --- requests


def test_a_request_to_the_metadata_server_has_its_header(monkeypatch):
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    assert ask(METADATA, "metadata", NOW) == TokenRequest(
        f"http://metadata.google.internal{path}", headers={"metadata-flavor": "Google"}
    )
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:8080")
    assert ask(METADATA, "metadata", NOW).url == f"http://127.0.0.1:8080{path}"


def test_a_managed_identity_asks_the_machine_that_it_runs_on(monkeypatch):
    """Forms of IMDS (2018-02-01) and of App Service (2019-08-01), as Microsoft documents them."""
    query = "resource=https%3A%2F%2Fcognitiveservices.azure.com"
    assert (MANAGED.read(), problem(MANAGED, "metadata")) == ("metadata", None)
    path = "/metadata/identity/oauth2/token?api-version=2018-02-01&"
    assert ask(MANAGED, "metadata", NOW) == TokenRequest(
        f"http://169.254.169.254{path}{query}", headers={"metadata": "true"}
    )
    assigned = Credentials(azure={"managed_identity": True, "client_id": "id-1"})
    assert ask(assigned, "metadata", NOW).url.endswith(f"{query}&client_id=id-1")
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1/")
    assert ask(MANAGED, "metadata", NOW).url == f"http://127.0.0.1:1{path}{query}"
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://localhost:42356/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", CANARY)
    assert ask(MANAGED, "metadata", NOW) == TokenRequest(
        f"http://localhost:42356/msi/token?api-version=2019-08-01&{query}", headers={"x-identity-header": CANARY}
    )


@pytest.mark.parametrize(
    "azure",
    [
        {"managed_identity": True, "tenant": "t"},
        {"managed_identity": True, "client_secret": "env:SECRET"},
        {"client_id": "a", "client_secret": "env:SECRET"},
        {"tenant": "a", "client_secret": "env:SECRET"},
        {"tenant": "a", "client_id": "b"},
    ],
)
def test_an_entra_application_and_a_managed_identity_are_not_mixed(azure):
    with pytest.raises(ValueError, match=r"managed.identity|needs tenant"):
        Credentials(azure=azure)


def test_entra_accepts_the_secret_of_an_application():
    asked = ask(ENTRA, "the-secret", NOW)
    assert asked.url == "https://login.microsoftonline.com/acme.example/oauth2/v2.0/token"
    assert asked.form == {
        "grant_type": "client_credentials",
        "client_id": "app-1",
        "client_secret": "the-secret",
        "scope": "https://cognitiveservices.azure.com/.default",
    }


def test_entra_accepts_the_token_of_a_workload():
    asked = ask(WORKLOAD, "the-token", NOW)
    assert asked.form == {
        "grant_type": "client_credentials",
        "client_id": "app-1",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "the-token",
        "scope": "https://cognitiveservices.azure.com/.default",
    }


@pytest.mark.parametrize(
    ("authority", "url"),
    [
        ("https://login.microsoftonline.us/", "https://login.microsoftonline.us/t-1/oauth2/v2.0/token"),
        ("login.partner.example", "https://login.partner.example/t-1/oauth2/v2.0/token"),
        ("http://127.0.0.1:9/", "http://127.0.0.1:9/t-1/oauth2/v2.0/token"),
        ("http://login.microsoftonline.com", None),
        ("file:///etc/passwd", None),
        ("https://user:pass@login.example", None),
        ("https://login.example:port", None),
        ("https://login.example/\r\nx: y", None),
    ],
)
def test_another_authority_is_used_if_it_is_safe(monkeypatch, authority, url):
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", authority)
    if url is not None:
        assert ask(WORKLOAD, "x", NOW).url == url
        return
    with pytest.raises(TokenError, match="token endpoint") as refused:
        ask(WORKLOAD, "x", NOW)
    assert refused.value.outcome == "unusable"


def test_a_service_account_signs_its_request(key, account):
    asked = ask(GOOGLE, account(), NOW)
    assert asked.url == "https://oauth2.googleapis.com/token"
    assert asked.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    head, claims, text, signature = unpacked(asked.form["assertion"])
    assert head == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
    assert claims == {
        "iss": "gateway@acme.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": NOW,
        "exp": NOW + 3600,
    }
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    key.public_key().verify(signature, text, PKCS1v15(), SHA256())  # raises


def test_requests_equal_those_of_googles_library(account):
    service_account = pytest.importorskip("google.oauth2.service_account")
    sent = {}

    def answer(url, method, body, headers, **_more):
        sent.update(url=url, method=method, form={name: value for name, [value] in parse_qs(body.decode()).items()})
        body = json.dumps({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}).encode()
        return type("Response", (), {"status": 200, "headers": {}, "data": body})

    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    theirs = service_account.Credentials.from_service_account_info(json.loads(account()), scopes=scopes)
    theirs.refresh(answer)
    head, claims, *_ = unpacked(sent["form"].pop("assertion"))
    ours = ask(GOOGLE, account(), claims["iat"])
    assert unpacked(ours.form["assertion"])[:2] == (head, claims)
    assert (sent["url"], sent["form"]) == (ours.url, {"grant_type": ours.form["grant_type"]})


STS, ACCOUNT = "https://sts.googleapis.com/v1/token", "https://iamcredentials.googleapis.com/v1/x:generateAccessToken"


@pytest.fixture
def external(tmp_path):
    """The file of a workload identity whose own token is in another file, with changes."""
    (tmp_path / "token").write_text("subject-1")
    (tmp_path / "token.json").write_text('{"access_token": "subject-2"}')
    fields = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/eks",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": STS,
        "service_account_impersonation_url": ACCOUNT,
        "credential_source": {"file": str(tmp_path / "token")},
    }
    return lambda **changes: json.dumps(fields | changes)


def test_an_external_account_exchanges_the_token_in_its_file(external, tmp_path):
    asked = ask(GOOGLE, external(), NOW)
    assert (asked.url, asked.then, asked.form["subject_token"]) == (STS, ACCOUNT, "subject-1")
    assert ask(GOOGLE, external(service_account_impersonation_url=""), NOW).then == ""
    form = {"type": "json", "subject_token_field_name": "access_token"}
    source = {"file": str(tmp_path / "token.json"), "format": form}
    assert ask(GOOGLE, external(credential_source=source), NOW).form["subject_token"] == "subject-2"
    (tmp_path / "token").write_text("subject-3\n")
    assert ask(GOOGLE, external(), NOW).form["subject_token"] == "subject-3"


def test_the_exchange_equals_that_of_googles_library(external):
    identity_pool = pytest.importorskip("google.auth.identity_pool")
    sent = []

    def answer(url, method, body, headers, **_more):
        sent.append((url, body.decode()))
        later = "2027-01-15T09:00:00Z"
        fields = {"access_token": "t", "expires_in": 3600, "token_type": "Bearer", "issued_token_type": "x"}
        body = json.dumps(fields | {"accessToken": "t", "expireTime": later}).encode()
        return type("Response", (), {"status": 200, "headers": {}, "data": body})

    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    identity_pool.Credentials.from_info(json.loads(external()), scopes=scopes).refresh(answer)
    ours = ask(GOOGLE, external(), NOW)
    form = {name: value for name, [value] in parse_qs(sent[0][1]).items() if name != "options"}
    assert (sent[0][0], form | {"scope": 0}) == (ours.url, {**ours.form, "scope": 0})
    assert [url for url, _ in sent] == [ours.url, ours.then]


@pytest.mark.parametrize(
    "changes",
    [
        {"credential_source": {"file": "/nowhere"}},
        {"credential_source": {"url": "http://169.254.169.254/"}},
        {"credential_source": {"executable": {"command": CANARY}}},
        {"credential_source": {"environment_id": "aws1"}},
        {"token_url": f"http://sts.example/{CANARY}"},
        {"service_account_impersonation_url": f"http://iam.example/{CANARY}"},
    ],
)
def test_an_external_account_that_cannot_be_used_is_reported_without_its_content(external, changes):
    told = problem(GOOGLE, external(**changes))
    assert told is not None
    assert CANARY not in told


async def test_an_external_account_gets_the_token_of_its_service_account(external):
    impersonated = json.dumps({"accessToken": "token-2", "expireTime": "2027-01-15T09:00:00Z"}).encode()
    with endpoint(reply(grant())) as (sts, first), endpoint(reply(impersonated)) as (account, second):
        text = external(token_url=f"http://{sts}/v1/token", service_account_impersonation_url=f"http://{account}/x")
        assert await fetch(GOOGLE, text, NOW) == OAuthToken("token-2", 1_800_003_600.0)
    assert "subject_token=subject-1" in first[0][3]
    head = {name.lower(): value for name, value in second[0][2].items()}
    assert (second[0][0], head["authorization"]) == ("POST", "Bearer token-1")
    with endpoint(reply(grant())) as (sts, _), endpoint(reply(b"{}")) as (account, _):
        text = external(token_url=f"http://{sts}/v1/token", service_account_impersonation_url=f"http://{account}/x")
        with pytest.raises(TokenError, match="bad_answer"):
            await fetch(GOOGLE, text, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "authorized_user"},
        {"client_email": None},
        {"private_key": CANARY},
        {"private_key": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n"},
        {"token_uri": f"http://metadata.example/{CANARY}"},
        {"token_uri": f"https://{CANARY}:x"},
        {"token_uri": "unix:/run/docker.sock"},
    ],
)
def test_an_invalid_key_file_is_reported_without_its_content(account, changes):
    with pytest.raises(TokenError) as refused:
        ask(GOOGLE, account(**changes), NOW)
    assert refused.value.outcome == "unusable"
    assert CANARY not in str(refused.value)
    assert problem(GOOGLE, account(**changes)) == refused.value.detail


@pytest.mark.parametrize("text", ["", "null", "[]", "not JSON", "[" * 20_000, '{"type": "service_account"}', "\udc80"])
def test_a_file_that_is_no_key_file_is_reported(text):
    assert "key file" in problem(GOOGLE, text)


def test_only_rsa_keys_sign(account):
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    assert "RSA" in problem(GOOGLE, account(private_key=pem(ec.generate_private_key(ec.SECP256R1()))))


def test_valid_credentials_have_no_problem(account):
    assert [problem(METADATA, "metadata"), problem(ENTRA, "x"), problem(GOOGLE, account())] == [None, None, None]


def test_no_secret_is_shown(account):
    shown = repr((ask(GOOGLE, account(), NOW), ask(ENTRA, CANARY, NOW), OAuthToken(CANARY, NOW)))
    assert CANARY not in shown
    assert "assertion" not in shown


# --- answers


def grant(**fields):
    return json.dumps({"access_token": "token-1", "expires_in": 3600, "token_type": "Bearer"} | fields).encode()


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 3600),
        ({"expires_in": "3599"}, 3599),
        ({"expires_in": 59.5, "scope": "more", "id_token": None}, 59.5),
        ({"token_type": "bearer"}, 3600),
        ({"expires_in": 1e300}, 86400),
        ({"expires_in": None, "expires_on": str(int(NOW) + 500)}, 500),  # App Service
        ({"expires_in": "300", "expires_on": str(int(NOW) + 500)}, 300),  # IMDS
    ],
)
def test_a_token_is_valid_for_its_stated_time_within_a_bound(fields, seconds):
    assert read(200, grant(**fields), NOW) == OAuthToken("token-1", NOW + seconds)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><html><body>Log in</body></html>",
        b"[" * 60_000,
        b"\xff\xfe",
        b"null",
        b'{"access_token": "x"}',
        grant(access_token=""),
        grant(access_token=None),
        grant(access_token="two words"),
        grant(access_token="a\r\nx-injected: yes"),
        grant(access_token="ü"),
        grant(access_token="x" * 16_385),
        grant(expires_in=0),
        grant(expires_in=-3600),
        grant(expires_in="nan"),
        grant(expires_in=True),
        grant(expires_in=None),
        grant(expires_in="soon"),
        grant(expires_in=None, expires_on=NOW - 1),
        grant(expires_in=None, expires_on="nan"),
        grant(token_type="mac"),
        grant()[:-1],
    ],
)
def test_an_answer_without_a_token_is_refused(body):
    with pytest.raises(TokenError) as refused:
        read(200, body, NOW)
    assert refused.value.outcome == "bad_answer"


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (400, b'{"error": "invalid_grant", "error_description": "canary-7f3a"}', "refused: status 400, invalid_grant"),
        (401, b'{"error": "invalid_client", "error_codes": [7]}', "refused: status 401, invalid_client, AADSTS7"),
        (403, b'{"error": "canary-7f3a", "error_codes": [-1, 123456789012]}', "refused: status 403"),
        (404, b"canary-7f3a", "refused: status 404"),
        (429, b'{"error": {"code": 429}}', "refused: status 429"),
        (503, b"[" * 60_000, "failed: status 503"),
        (302, grant(), "failed: status 302"),
        (204, grant(), "failed: status 204"),
    ],
)
def test_a_refusal_is_reported_only_in_words_of_the_standard(status, body, told):
    with pytest.raises(TokenError) as refused:
        read(status, body, NOW)
    assert str(refused.value) == told


# --- the exchange of messages


async def outcome(monkeypatch, address):
    """The outcome of a request to a metadata server at that address."""
    monkeypatch.setenv("GCE_METADATA_HOST", address)
    with pytest.raises(TokenError) as refused:
        await fetch(METADATA, "metadata", NOW)
    # No thread is left that would delay the end of the process.
    await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 5)
    return refused.value.outcome


async def test_a_token_is_fetched_with_get(monkeypatch):
    with endpoint(reply(grant())) as (address, asked):
        monkeypatch.setenv("GCE_METADATA_HOST", address)
        assert await fetch(METADATA, "metadata", NOW) == OAuthToken("token-1", NOW + 3600)
    [(method, path, headers, _)] = asked
    assert (method, path.rpartition("/")[2], headers["metadata-flavor"]) == ("GET", "token", "Google")


async def test_a_token_is_fetched_with_a_form(account):
    with endpoint(reply(grant())) as (address, asked):
        assert await fetch(GOOGLE, account(token_uri=f"http://{address}/token?alt=1"), NOW) == OAuthToken(
            "token-1", NOW + 3600
        )
    [(method, path, headers, body)] = asked
    assert (method, path, headers["content-type"]) == ("POST", "/token?alt=1", "application/x-www-form-urlencoded")
    assert sorted(parse_qs(body)) == ["assertion", "grant_type"]


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        (reply(b"<html>", content_type="text/html"), "bad_answer"),
        (reply(grant(padding="x" * 100_000)), "bad_answer"),
        (endless, "bad_answer"),
        (raw(b"SSH-2.0-OpenSSH_9.9\r\n"), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\na: " + b"x" * 70_000), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{"), "bad_answer"),
        (raw(b""), "unreachable"),
        (reply(b"", 302, location="http://127.0.0.1:1/"), "failed"),
        (reply(b"no service account", 404), "refused"),
        (silence, "timeout"),
        (drip, "timeout"),
        (drip_the_body, "timeout"),
    ],
)
async def test_hostile_endpoints_give_no_token(monkeypatch, answer, ends):
    monkeypatch.setattr(oauth, "_TIMEOUT", 0.5 if ends == "timeout" else 10.0)
    with endpoint(answer) as (address, asked):
        assert await outcome(monkeypatch, address) == ends
    assert len(asked) == 1


async def test_an_unreachable_endpoint_gives_no_token(monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        assert await outcome(monkeypatch, f"127.0.0.1:{probe.getsockname()[1]}") == "unreachable"


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "127.0.0.1:99999", "[::1", "exa mple"])
async def test_an_unknown_host_gives_no_token(monkeypatch, host):
    assert await outcome(monkeypatch, host) in ("unreachable", "unusable")


async def test_an_endpoint_with_an_unknown_certificate_gives_no_token(monkeypatch, account):
    with endpoint(reply(grant())) as (address, _), pytest.raises(TokenError, match="unreachable: SSLError"):
        await fetch(GOOGLE, account(token_uri=f"https://{address}/token"), NOW)


async def test_the_event_loop_continues_and_a_fetch_can_be_cancelled(monkeypatch):
    begun = threading.Event()

    def answer(handler):
        begun.set()
        silence(handler)

    with endpoint(answer) as (address, _):
        monkeypatch.setenv("GCE_METADATA_HOST", address)
        task = asyncio.create_task(fetch(METADATA, "metadata", NOW))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 5)
