import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import client_apis
from extproc.words.errors import (
    BODY_TOO_LARGE,
    BUDGET_EXCEEDED,
    INVALID_KEY,
    INVALID_REQUEST,
    MODEL_NOT_ALLOWED,
    MODEL_NOT_FOUND,
    OVERLOADED,
    PROVIDER_TIMEOUT,
    RATE_LIMITED,
    STORE_UNAVAILABLE,
)
from extproc.words.messages import Problem

MESSAGES = client_apis()["anthropic_messages"]


@pytest.mark.parametrize(
    ("kind", "type"),
    [
        (INVALID_REQUEST, "invalid_request_error"),
        (INVALID_KEY, "authentication_error"),
        (BUDGET_EXCEEDED, "billing_error"),
        (MODEL_NOT_ALLOWED, "permission_error"),
        (MODEL_NOT_FOUND, "not_found_error"),
        (BODY_TOO_LARGE, "request_too_large"),
        (RATE_LIMITED, "rate_limit_error"),
        (STORE_UNAVAILABLE, "api_error"),
        (OVERLOADED, "overloaded_error"),
        (PROVIDER_TIMEOUT, "timeout_error"),
    ],
)
def test_the_gateways_refusals_are_written(kind, type):
    assert MESSAGES.replies.error(kind, "No.", None) == {
        "type": "error",
        "error": {"type": type, "message": "No.", "details": {"error_code": kind.code}},
    }


def test_the_field_at_fault_is_named():
    assert MESSAGES.replies.error(INVALID_REQUEST, "No.", "model")["error"]["details"]["param"] == "model"


# Status and type of Anthropic's error, and the neutral type.
TYPES = {
    "invalid_request_error": (400, "invalid_request_error"),
    "authentication_error": (401, "authentication_error"),
    "billing_error": (402, "insufficient_quota"),
    "permission_error": (403, "permission_error"),
    "not_found_error": (404, "not_found_error"),
    "request_too_large": (413, "invalid_request_error"),
    "rate_limit_error": (429, "rate_limit_error"),
    "api_error": (500, "api_error"),
    "timeout_error": (504, "api_error"),
    "overloaded_error": (529, "overloaded_error"),
}


@pytest.mark.parametrize(("type", "status", "neutral"), [(name, *value) for name, value in TYPES.items()])
def test_a_providers_errors_are_read(type, status, neutral):
    said = {"type": "error", "error": {"type": type, "message": "No."}}
    problem = MESSAGES.decode_problem(status, json.dumps(said | {"request_id": "req_1"}).encode())
    assert problem == Problem("No.", neutral)
    assert MESSAGES.translation.encode_problem(status, problem) == said


def test_the_code_of_an_error_is_found():
    error = {"type": "invalid_request_error", "message": "No.", "details": {"error_code": "why"}}
    problem = MESSAGES.decode_problem(400, json.dumps({"type": "error", "error": error}).encode())
    assert problem.code == "why"
    assert MESSAGES.translation.encode_problem(400, problem)["error"] == error


ODD = {
    "nothing": (529, b"", Problem("The provider answered with status 529.", "overloaded_error")),
    "a page": (502, b"<html>Bad gateway", Problem("The provider answered with status 502.", "api_error")),
    "null": (404, b"null", Problem("The provider answered with status 404.", "not_found_error")),
    "a number": (400, b'{"error":7}', Problem("The provider answered with status 400.", "invalid_request_error")),
    "words": (418, b'{"error":"tea"}', Problem("tea", "invalid_request_error")),
    "Bedrock": (403, b'{"message":"denied"}', Problem("denied", "permission_error")),
    "Vertex": (429, b'[{"error":{"code":429,"message":"slow"}}]', Problem("slow", "rate_limit_error")),
    "no text": (500, b"\xff\xfe", Problem("The provider answered with status 500.", "api_error")),
    "depth": (500, b"[" * 100_000, Problem("The provider answered with status 500.", "api_error")),
}


@pytest.mark.parametrize(("status", "body", "problem"), ODD.values(), ids=ODD)
def test_errors_of_other_shapes_are_read(status, body, problem):
    assert MESSAGES.decode_problem(status, body) == problem


@given(
    status=st.integers(300, 599),
    body=st.binary(max_size=99)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["error", "type", "message", "details"]), inner)
        ),
        max_leaves=9,
    ).map(lambda value: json.dumps(value).encode()),
)
def test_every_error_has_a_message(status, body):
    problem = MESSAGES.decode_problem(status, body)
    assert problem.message
    assert problem.type
    json.dumps(MESSAGES.translation.encode_problem(status, problem))
