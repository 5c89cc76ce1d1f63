import json
import logging
import re
import sys

from prometheus_client import generate_latest

from extproc.operate.telemetry.logs import JSONFormatter, describe
from extproc.words.chain import Skip
from extproc.words.exchange import Consumer, Target
from tests.telemetry.test_metrics import ended

# --- the log of exchanges (T18, T19)


HOSTILE = 'x\r\n{"event":"forged"}\x1b[31m\0"\\ \u2028 ' + "y" * 100_000


def test_a_record_names_the_budget_that_refused_or_downgraded(exchange):
    found = ended(exchange)
    assert not {"denied_by", "downgraded"} & describe(found).keys()
    found.money.denied_by, found.money.downgraded = "month", "week"
    assert (describe(found)["denied_by"], describe(found)["downgraded"]) == ("month", "week")


def test_any_exchange_is_one_line_of_json(world, exchange):
    gateway = world()
    found = ended(exchange, labels={"run": HOSTILE[:256]}, response_model=HOSTILE, consumer=Consumer("alice"))
    found.request.id, found.request.ask.model = HOSTILE, HOSTILE
    found.answer.report.finish_reasons = dict.fromkeys(range(100), HOSTILE)
    gateway.telemetry.record(found)
    [line] = gateway.lines
    assert line.endswith("\n")
    assert "\n" not in line[:-1]
    assert not re.search(r"[\x00-\x1f]", line[:-1])
    entry = json.loads(line)
    assert entry["event"] == "exchange"
    assert len(line) < 6000


def test_the_line_has_no_body_and_no_credential(world, exchange):
    gateway = world()
    headers = {"authorization": "Bearer CANARY-KEY", "x-api-key": "CANARY-KEY", "cookie": "CANARY-COOKIE"}
    gateway.telemetry.record(ended(exchange, headers=headers))
    assert "CANARY" not in gateway.lines[0]
    assert "CANARY" not in json.dumps(list(gateway.telemetry.recent))
    assert "CANARY" not in generate_latest(gateway.telemetry.registry).decode()


def test_the_line_has_the_facts_of_the_exchange(world, exchange):
    gateway = world()
    gateway.telemetry.record(ended(exchange, labels={"run": "7"}))
    [entry] = gateway.log
    del entry["time"], entry["id"]
    assert entry == {
        "event": "exchange",
        "request_id": "",
        "operation": "chat",
        "status": 200,
        "error": "",
        "outcome": "ok",
        "duration_ms": 1200.0,
        "consumer": "alice",
        "team": "red",
        "labels": {"run": "7"},
        "run": "7",
        "model": "m",
        "stream": True,
        "attempts": 2,
        "provider": "a",
        "provider_model": "m",
        "input_tokens": 7,
        "output_tokens": 3,
        "cached_tokens": 2,
        "reasoning_tokens": 1,
        "cache_write_tokens": 1,
        "usage_source": "provider",
        "cost_usd": 0.0000125,
        "complete": True,
        "first_token_ms": 200.0,
        "response_model": "m-1",
        "finish_reasons": ["stop"],
    }


def test_the_line_names_skipped_targets_with_their_reasons(exchange):
    found = ended(exchange)
    found.route.skipped = [Skip(Target(f"t{index}", "a", "x"), "disabled", "it is disabled") for index in range(64)]
    skipped = describe(found)["skipped"]
    assert skipped["t0"] == "disabled"
    assert len(skipped) == 16


def test_the_line_names_guardrails_with_findings(exchange):
    found = ended(exchange)
    assert "guardrails" not in describe(found)
    found.findings.guardrails = ["no-keys:block"]
    assert describe(found)["guardrails"] == ["no-keys:block"]


def test_an_exchange_that_ended_early_can_be_described(exchange):
    found = exchange()
    del found.consumer, found.money.labels, found.request.ask
    found.end()
    assert "consumer" not in describe(found)
    assert "model" not in describe(found)


def test_the_log_can_be_turned_off(world, exchange):
    gateway = world("telemetry: {access_log: 'off'}")
    gateway.telemetry.record(ended(exchange))
    assert gateway.lines == []
    assert len(gateway.telemetry.recent) == 1


# --- the log of the program (T19)


def formatted(message, *arguments, exc_info=None):
    record = logging.LogRecord("extproc.x", logging.ERROR, "x.py", 1, message, arguments, exc_info)
    return JSONFormatter().format(record)


def test_a_record_is_one_line_of_json():
    entry = json.loads(formatted("hello %s", "wor\nld\x1b"))
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "extproc.x", "hello wor\nld\x1b")
    assert "\n" not in formatted("a\nb")


def test_the_text_of_an_exception_is_never_logged():
    def fail():
        raise ValueError("CANARY")

    def wrap():
        try:
            fail()
        except ValueError as error:
            raise RuntimeError("CANARY too") from error

    try:
        wrap()
    except RuntimeError:
        line = formatted("failed", exc_info=sys.exc_info())
    assert "CANARY" not in line
    entry = json.loads(line)
    assert entry["exception"] == "RuntimeError"
    assert any("wrap" in frame for frame in entry["traceback"])
    assert len(entry["traceback"]) <= 20
