"""Addresses of uploads: they lead to the gateway, work for one session, and hold no key that can be read."""

from urllib.parse import parse_qs, urlsplit

import pytest

from extproc.access.kept import Ids, Object
from extproc.access.kept.uploads import HandOver, Resume
from extproc.dialects import client_apis
from extproc.upstream.providers import ProviderSettings
from extproc.words.dialect import Endpoint
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead, ResponseHead, Target
from tests.exchanges import new_exchange, write

FILES = client_apis()["gemini_files"]
THEIRS = "https://generativelanguage.googleapis.com/upload/v1beta/files?upload_id=AHm_1&upload_protocol=resumable"
OURS = {":authority": "gateway.example:8080", "x-forwarded-proto": "https", "x-goog-api-key": "sk-gw-1"}


@pytest.fixture
def ids(monkeypatch):
    monkeypatch.setenv("KEY", "secret")
    settings = {
        "google": ProviderSettings(kind="gcp_gemini", api_key="env:KEY"),
        "keyless": ProviderSettings(kind="gcp_gemini", base_url="http://127.0.0.1/v1beta"),
    }
    return Ids(settings, None)


def answered(ids, headers=OURS, address=THEIRS, provider="google", dialect=FILES):
    """The exchange that began an upload, after its answer's head."""
    made = new_exchange("id", RequestHead("POST", "/upload/v1beta/files", headers))
    given = {} if address is None else {"x-goog-upload-url": address}
    write(made, dialect=dialect, target=Target("flash", provider, "m"))
    made.answer.head, made.consumer = ResponseHead(200, given), Consumer("demo")
    made.answer.told, made.answer.withheld = {}, ()
    HandOver(ids)(made)
    return made


def part(ids, path, id):
    """The path of a part, as Authenticate reads it."""
    made = new_exchange("id", RequestHead("POST", path, {}))
    write(made, dialect=FILES, operation="upload_file", endpoint=Endpoint("", "upload_file", id=id))
    Resume(ids)(made)
    return made.request.head.path


def test_the_address_leads_to_the_gateway_and_back_to_the_session(ids):
    made = answered(ids)
    address = urlsplit(made.answer.told["x-goog-upload-url"])
    assert (address.scheme, address.netloc) == ("https", "gateway.example:8080")
    id = address.path.removeprefix("/v1beta/uploads/kept_")
    assert ids.open("demo", f"uploads/kept_{id}") == Object("google", "flash", "uploads/AHm_1")
    assert ids.open("other", f"uploads/kept_{id}") is None
    assert not any(secret in address.geturl() for secret in ("AHm_1", "sk-gw-1"))
    assert parse_qs(urlsplit(part(ids, f"{address.path}?{address.query}", id)).query) == {"key": ["sk-gw-1"]}
    assert {"x-goog-upload-control-url", "x-guploader-uploadid"} <= {*made.answer.withheld}


def test_a_credential_is_sealed_for_one_session(ids):
    one, two = (
        urlsplit(answered(ids, address=THEIRS.replace("AHm_1", session)).answer.told["x-goog-upload-url"])
        for session in ("AHm_1", "AHm_2")
    )
    id = one.path.removeprefix("/v1beta/uploads/kept_")
    for query in (two.query, "key=kept_", "key=kept_%00", "key=kept_x", one.query[:-2], "key=sk-gw-2", ""):
        found = part(ids, f"{one.path}?{query}", id)
        assert parse_qs(urlsplit(found).query) == parse_qs(query)


def test_a_request_without_a_key_gets_an_address_without_one(ids):
    headers = {name: value for name, value in OURS.items() if name != "x-goog-api-key"}
    assert urlsplit(answered(ids, headers).answer.told["x-goog-upload-url"]).query == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "https://elsewhere/"},
        {"address": "https://elsewhere/?upload_id=../x"},
        {"address": ""},
        {"provider": "keyless"},
        {"headers": {**OURS, ":authority": "a/b"}},
        {"headers": {**OURS, ":authority": ""}},
        {"headers": {**OURS, "x-forwarded-proto": "ftp"}},
    ],
)
def test_an_address_that_cannot_be_replaced_is_refused(ids, wrong):
    with pytest.raises(Refusal) as refused:
        answered(ids, **wrong)
    assert refused.value.kind.status == 502


def test_other_answers_stay(ids):
    assert answered(ids, address=None).answer.told == {}
    made = answered(ids, dialect=client_apis()["openai_files"])
    assert (made.answer.told, made.answer.withheld) == ({}, ())
