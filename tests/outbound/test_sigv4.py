"""Signatures of AWS, compared with botocore's."""

from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from extproc.wire.outbound.sigv4 import AwsKey, signed

HOST = "bedrock-runtime.eu-west-1.amazonaws.com"


@pytest.mark.parametrize("session", ["", "session/token=="])
@pytest.mark.parametrize(
    "path",
    [
        "/guardrail/abc123/version/DRAFT/apply",
        "/guardrail/arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Aguardrail%2Fabc/version/3/apply",
        "/proxy/a~b/guardrail/x/version/1/apply",
    ],
)
def test_a_signature_is_that_of_botocore(path, session, monkeypatch):
    now, body = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), '{"text": "é"}'.encode()
    for name in ("botocore.auth.get_current_datetime", "botocore.compat.get_current_datetime"):
        monkeypatch.setattr(name, lambda *_args, **_kwargs: now.replace(tzinfo=None), raising=False)
    for service, signer_of, method, given in (
        ("bedrock", SigV4Auth, "POST", {"content-type": "application/json"}),
        ("s3", S3SigV4Auth, "PUT", {"if-none-match": "*"}),
    ):
        found = signed(
            *(AwsKey("AKID", "secret+/=", session), HOST, path, body),
            region="eu-west-1",
            service=service,
            now=now,
            method=method,
            given=given,
        )
        request = AWSRequest(method, f"https://{HOST}{path}", given, body)
        signer_of(Credentials("AKID", "secret+/=", session or None), service, "eu-west-1").add_auth(request)
        assert found == {name.lower(): value for name, value in request.headers.items()}, service


def test_a_key_does_not_show():
    assert "secret" not in repr(AwsKey("AKID", "secret", "secret"))
