"""Conversations with the gateway attachment: Envoy's messages, and requests and answers to put into them."""

import json

from extproc.words.actions import Chunk

TOKENS = "budgets: [{name: t, unit: tokens, limit: 100000, window: minute}]"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
STREAMED = QUESTION | {"stream": True}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CHOICE = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}
ANSWER = {"model": "m-1", "choices": [CHOICE], "usage": USAGE}


def event(value):
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


TEXT = event({"model": "m-1", "choices": [{"index": 0, "delta": {"content": "Hi"}}], "usage": None})
STOP = event({"model": "m-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
USED = event({"model": "m-1", "choices": [], "usage": USAGE})
DONE = event(b"[DONE]")


def asks(path="/v1/chat/completions", *, method="POST", end=False, **headers):
    given = {":method": method, ":path": path, "x-request-id": "r-1"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda stream: stream.on_request_headers(given, end)


def sends(body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda stream: stream.on_request_body(data)


def answers(status=200, kind="application/json", *, attempts=1.0, details="via_upstream", end=False, **headers):
    given = {":status": str(status), "content-type": kind}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    attributes = {"upstream.request_attempt_count": attempts, "response.code_details": details}
    return lambda stream: stream.on_response_headers(given, attributes, end)


def streams(chunk, end=False):
    data = chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()
    return lambda stream: feed(stream, data, end)


async def feed(stream, data, end=False):
    """Our answer to a piece of the provider's answer: that of all steps, as the transport asks for them."""
    said = await stream.on_response_body(data, end)
    while stream.more:
        then = await stream.on_response_body(b"", False)
        assert said.head is None or then.head is None
        said = Chunk(said.body + then.body, then.end, said.head or then.head)
    return said


async def talk(stream, *says):
    """Our answer to each message. The stream is ended after the last, as the server does."""
    replies = []
    for say in says:
        assert not stream.done, "Envoy would not say this: the stream is over"
        replies.append(await say(stream))
    await stream.on_end()
    assert stream.done
    return replies


def error(answer):
    return answer.status, json.loads(answer.body)["error"]["code"], answer.headers["x-ai-error-origin"]
