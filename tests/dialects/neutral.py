"""Conversations in the neutral form, written for a provider, and a provider's streams read into it."""

import json

from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Destination
from extproc.words.messages import Message, TextPart


def user(*parts):
    return Message("user", [TextPart(part) if isinstance(part, str) else part for part in parts])


def assistant(*parts):
    return Message("assistant", [TextPart(part) if isinstance(part, str) else part for part in parts])


def written(api, prompt, model, most=None):
    """The body of a provider's request as JSON, and the names of fields that it cannot express."""
    body, ignored = api.encode_request(prompt, Destination(model, most))
    return json.loads(json.dumps(body)), list(ignored)


def read(api, data, framing=None):
    """The neutral events of a provider's stream."""
    framing, decoder, events = framing or SSE(), api.decoder(), []
    for event in [*framing.feed(data), *framing.end()]:
        if event.data is not None:
            events += decoder.feed(event.data, event.name)
    return [*events, *decoder.end()]
