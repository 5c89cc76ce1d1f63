"""The ending of an exchange: decided once, from its state."""

import pytest

from extproc.wire.framing.rewording import Rewording
from extproc.words.dialect import Report
from extproc.words.exchange import OUTCOMES, Ending
from tests.exchanges import write

FORWARDED = {"forwarded": True}
UNREACHED = FORWARDED | {"status": 503, "unreached": "connect", "attempts": 1}
ANSWERED = FORWARDED | {"status": 200, "attempts": 1}
FAILED = FORWARDED | {"status": 429, "attempts": 1}


@pytest.mark.parametrize(
    ("came", "how", "ending", "error"),
    [
        ({"status": 200}, {"whole": True}, Ending.ANSWERED, ""),  # by the gateway itself: a list of models
        (ANSWERED, {"whole": True}, Ending.ANSWERED, ""),
        (ANSWERED | {"report": Report(error="provider_error")}, {"whole": True}, Ending.ANSWERED, "provider_error"),
        (FAILED, {"whole": True}, Ending.PROVIDER_ERROR, ""),
        ({}, {"refused": "invalid_key"}, Ending.REFUSED, "invalid_key"),
        (ANSWERED, {"refused": "provider_bad_answer"}, Ending.BAD_ANSWER, "provider_bad_answer"),
        (ANSWERED | {"reader": ...}, {"refused": "rate_limited"}, Ending.CUT, "rate_limited"),
        (FAILED | {"reader": ...}, {"refused": "guardrail_blocked"}, Ending.WITHHELD, "guardrail_blocked"),
        (UNREACHED, {"whole": True}, Ending.UNREACHED, "connect"),
        (UNREACHED, {}, Ending.UNREACHED, "connect"),  # the client disconnected before it had read the reason
        ({"status": 413, "unreached": "gateway"}, {"whole": True}, Ending.REFUSED, "gateway"),
        ({}, {}, Ending.ABANDONED, "abandoned"),
        (FORWARDED, {}, Ending.CLIENT_LEFT, "client_left"),
        (ANSWERED, {}, Ending.INCOMPLETE, "incomplete"),
        (ANSWERED | {"report": Report(error="provider_error")}, {}, Ending.INCOMPLETE, "incomplete"),
        ({}, {"bug": True}, Ending.INTERNAL_ERROR, "internal_error"),
        (ANSWERED, {"bug": True}, Ending.INTERNAL_ERROR, "internal_error"),
    ],
)
def test_an_exchange_has_the_ending_of_its_state(exchange, came, how, ending, error):
    sent = exchange()
    for name, value in came.items():
        write(sent, **{name: Rewording(sent) if name == "reader" else value})
    if came.get("attempts") and "unreached" not in came:
        sent.answer.target = sent.route.targets[0]
    sent.end(**how)
    assert (sent.ending, sent.error) == (ending, error)
    assert sent.seconds > 0


def test_only_the_first_end_counts(exchange):
    sent = exchange()
    sent.end(refused="invalid_json")
    sent.end(whole=True)
    sent.end()
    assert (sent.ending, sent.error) == (Ending.REFUSED, "invalid_json")


def test_each_outcome_belongs_to_an_ending():
    assert {ending.outcome for ending in Ending} == set(OUTCOMES)
    assert {ending for ending in Ending if ending.complete} == {Ending.ANSWERED, Ending.PROVIDER_ERROR}
