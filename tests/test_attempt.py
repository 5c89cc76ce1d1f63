import json

import pytest

from extproc import contract
from extproc.actions import CONTINUE, Continue
from extproc.attempt import AttemptStream
from extproc.exchange import Target

TARGETS = [Target("one", "a", "model-one"), Target("two", "b", "vendor/model=2,x")]


def headers(attempt, targets=TARGETS):
    return {contract.TARGETS: contract.encode_targets(targets), contract.ATTEMPT_COUNT: str(attempt)}


@pytest.mark.parametrize(
    ("attempt", "model"), [(1, "model-one"), (2, "vendor/model=2,x"), (3, "vendor/model=2,x"), (16, "vendor/model=2,x")]
)
async def test_each_try_names_the_model_of_its_target(attempt, model):
    stream = AttemptStream()
    assert await stream.on_request_headers(headers(attempt), end=False) == CONTINUE
    assert not stream.done
    reply = await stream.on_request_body(b'{"model":"v","x":1.50}')
    assert isinstance(reply, Continue)
    assert json.loads(reply.body)["model"] == model
    assert b"1.50" in reply.body
    assert stream.done
    await stream.on_end()


@pytest.mark.parametrize("missing", [contract.TARGETS, contract.ATTEMPT_COUNT])
async def test_without_what_the_gateway_attachment_wrote_it_fails_closed(missing):
    given = headers(1)
    del given[missing]
    with pytest.raises(KeyError):
        await AttemptStream().on_request_headers(given, end=False)


async def test_the_answer_is_not_asked_for():
    stream = AttemptStream()
    with pytest.raises(NotImplementedError):
        await stream.on_response_headers({}, {}, end=False)
    with pytest.raises(NotImplementedError):
        await stream.on_response_body(b"", end=True)
