"""Webhooks of budgets: each alert is sent once by a whole fleet, however the webhook behaves."""

import asyncio
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from extproc.access.questions import Asked, CalledTool, Question
from extproc.money.accounting import alerts as alerts_module
from extproc.money.accounting.alerts import Alerts, describe
from extproc.money.budgets import Alert, BudgetSettings, compile_budget
from extproc.stores import StoreError, window_at
from extproc.stores.memory import MemoryCounters
from extproc.stores.sqlite import SqliteCounters


@pytest.fixture
def webhook():
    """A webhook server. `answers` are its next replies (a status, `hang`, `close`, `slow`), then 204. `heard` holds the
    posted bodies.
    """
    here = SimpleNamespace(answers=[], heard=[], over=threading.Event())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            here.heard.append((self.path, dict(self.headers), json.loads(body)))
            self.answer()

        def do_GET(self):
            here.heard.append((self.path, dict(self.headers), None))
            self.answer()

        def answer(self):
            what = here.answers.pop(0) if here.answers else 204
            if what == "hang":
                here.over.wait(10)
            elif what == "slow":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not here.over.wait(0.02):
                    self.wfile.write(b"x-more: x\r\n")
            elif what == "nonsense":
                self.wfile.write(b"\0\1\2 no http\r\n\r\n")
            elif what == "huge":
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 200_000)
            elif what != "close":
                self.send_response(what)
                if 300 <= what < 400:
                    self.send_header("location", f"{here.url}/elsewhere")
                self.end_headers()

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_args: None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    here.url = f"http://127.0.0.1:{server.server_port}"
    yield here
    here.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def alert(url, threshold=0.75, scope="b:consumer=a", **fields):
    settings = {"name": "b", "unit": "usd", "limit": "0.5", "window": "month", "alert_at": [0.75, 1]}
    budget = compile_budget(BudgetSettings(**{**settings, "alert_webhook": url, **fields}))
    number, ends = window_at(1_700_000_040.0, budget.window)
    return Alert(budget, scope, threshold, 0.7512345, number, ends)


class Process:
    def __init__(self, counters, again=(0.0, 0.0), seconds=0.3, at_once=1):
        self.outcomes = []
        self.alerts = Alerts(counters, self.outcomes.append, again=again, timeout=seconds, at_once=at_once)

    async def tell(self, *alerts):
        """Queue the alerts, and wait until all are sent."""
        for each in alerts:
            self.alerts.tell(each)
        work = asyncio.create_task(self.alerts.run())
        await asyncio.wait_for(self.alerts._waiting.join(), 20)
        work.cancel()


@pytest.fixture
def counters(clocks):
    return MemoryCounters(clocks())


# --- sent once


async def test_an_alert_has_the_budget_the_threshold_and_the_amounts(webhook, counters):
    process = Process(counters)
    await process.tell(alert(f"{webhook.url}/hook?a=b"))
    [(path, headers, body)] = webhook.heard
    assert path == "/hook?a=b"
    assert {name.lower(): value for name, value in headers.items()}["content-type"] == "application/json"
    assert body.pop("time").endswith("Z")
    assert body == {
        "text": "Budget b: 75% of 0.5 USD is used (consumer=a).",
        "event": "budget_alert",
        "budget": "b",
        "scope": "b:consumer=a",
        "fields": {"consumer": "a"},
        "unit": "usd",
        "window": "month",
        "threshold": 0.75,
        "used": 0.7512,
        "limit": "0.5",
        "mode": "enforce",
        "resets_at": "2023-12-01T00:00:00Z",
    }
    assert process.outcomes == ["told"]


async def test_a_question_is_posted_with_text_that_holds_no_markup(webhook, counters):
    asked = Question(
        *("q1", "b", "b:consumer=a", 2_500_000_000, "usd", "<!channel>", "red", "k", {"run": "1"}, "chat", "m", "f"),
        *(1_700_000_000.0, 1_700_003_600.0),
    )
    budget = alert(f"{webhook.url}/hook", on_exceed="ask").budget
    process = Process(counters)
    called = CalledTool("dev", "bank", "pay", "d", '{"n": 1}', "a" * 64, "7")
    of_call = replace(asked, budget="", unit="", amount=1, call=called)
    await process.tell(Asked(asked, f"{webhook.url}/hook", budget), Asked(asked, None, budget))
    await process.tell(Asked(of_call, f"{webhook.url}/hook"))
    (_, _, of_tool) = webhook.heard.pop()
    assert of_tool["text"].startswith("&lt;!channel&gt; wants to call pay of bank (profile dev). Answer in the console")
    assert (of_tool["event"], of_tool["call"]["arguments"]) == ("tool_call_question", "")
    [(_, _, body)] = webhook.heard
    assert body.pop("time").endswith("Z")
    assert body.pop("text").startswith("&lt;!channel&gt; asks for up to 2.5 USD beyond the budget b (consumer=a), m.")
    assert body == {
        "event": "budget_question",
        "call": None,
        "id": "q1",
        "budget": "b",
        "scope": "b:consumer=a",
        "fields": {"consumer": "a"},
        "unit": "usd",
        "amount": "2.5",
        "consumer": "<!channel>",
        "team": "red",
        "key": "k",
        "labels": {"run": "1"},
        "operation": "chat",
        "model": "m",
        "asked_at": "2023-11-14T22:13:20Z",
        "expires_at": "2023-11-14T23:13:20Z",
    }


async def test_two_processes_send_one_alert_for_each_count_window_and_threshold(webhook, clocks, tmp_path):
    clock = clocks()
    stores = [SqliteCounters(tmp_path / "c.db", clock) for _ in range(2)]
    processes = [Process(store) for store in stores]
    each = [
        alert(webhook.url),
        alert(webhook.url, threshold=1.0),
        alert(webhook.url, scope="b:consumer=b"),
        alert(webhook.url, window="total", name="c", scope="c"),
    ]
    await asyncio.gather(*(process.tell(*each, *each) for process in processes))
    told = sorted((body["scope"], body["threshold"]) for _, _, body in webhook.heard)
    assert told == [("b:consumer=a", 0.75), ("b:consumer=a", 1.0), ("b:consumer=b", 0.75), ("c", 0.75)]
    assert [*processes[0].outcomes, *processes[1].outcomes] == ["told"] * 4
    clock.now += 32 * 86400
    await processes[1].tell(each[0], each[3])
    assert [body["scope"] for _, _, body in webhook.heard[4:]] == ["b:consumer=a"], "a new month, but no new total"
    for store in stores:
        await store.close()


async def test_notes_of_sent_alerts_do_not_appear_as_counts_of_a_budget(webhook, counters):
    await Process(counters).tell(alert(webhook.url, name="alert", scope="alert"))
    assert await counters.fullest("alert", -1) == []


async def test_when_the_store_fails_the_alert_is_sent(webhook):
    class Down(MemoryCounters):
        async def reserve(self, *_args, **_more):
            raise StoreError("down")

    process = Process(Down())
    await process.tell(alert(webhook.url))
    assert (process.outcomes, len(webhook.heard)) == (["told"], 1)


# --- webhooks that fail


@pytest.mark.parametrize("trouble", ["hang", "close", "slow", "nonsense", 301, 307, 400, 404, 500, 503])
async def test_a_webhook_that_fails_once_is_called_again(webhook, counters, trouble):
    webhook.answers = [trouble]
    process = Process(counters)
    await process.tell(alert(webhook.url))
    assert process.outcomes == ["told"]
    assert [path for path, *_ in webhook.heard] == ["/", "/"], "and no redirect is followed"


async def test_a_webhook_that_always_fails_is_given_up_and_the_next_alert_is_sent(webhook, counters):
    webhook.answers = [500, 302, "close"]
    process = Process(counters)
    await process.tell(alert(webhook.url), alert(webhook.url, threshold=1.0))
    assert process.outcomes == ["failed", "told"]
    assert len(webhook.heard) == 4


async def test_a_hanging_webhook_is_cut_off_by_its_timeout(webhook, counters):
    webhook.answers = ["hang", "slow"]
    process = Process(counters, again=(0.0,), seconds=0.1)
    await process.tell(alert(webhook.url), alert(webhook.url, threshold=1.0))
    assert process.outcomes == ["failed", "told"]


async def test_a_hanging_webhook_does_not_delay_the_others(webhook, counters):
    webhook.answers = ["hang"]
    process = Process(counters, again=(), seconds=2.0, at_once=2)
    await process.tell(*(alert(webhook.url, scope=f"b:consumer={who}") for who in "abcd"))
    assert process.outcomes == ["told", "told", "told", "failed"]


async def test_an_endless_answer_counts_as_an_answer(webhook, counters):
    webhook.answers = ["huge"]
    process = Process(counters)
    await process.tell(alert(webhook.url))
    assert process.outcomes == ["told"]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/hook", "http://nobody.invalid/hook", "https://127.0.0.1:9", "http://a..b/", "http://[::1"],
)
async def test_an_unreachable_webhook_is_given_up(counters, url):
    process = Process(counters, again=(0.0,), seconds=2)
    hook = alert("http://a.example")
    object.__setattr__(hook.budget, "settings", hook.budget.settings.model_copy(update={"alert_webhook": url}))
    await process.tell(hook)
    assert process.outcomes == ["failed"]


async def test_the_queue_is_bounded(counters, monkeypatch):
    monkeypatch.setattr(alerts_module, "MOST_WAITING", 3)
    process = Process(counters)
    for _ in range(5):
        process.alerts.tell(alert("http://127.0.0.1:9"))
    assert process.outcomes == ["dropped", "dropped"]


async def test_secrets_in_a_webhooks_address_are_never_logged(webhook, counters, caplog):
    caplog.set_level(logging.DEBUG)
    webhook.answers = [500, "close", "hang"]
    process = Process(counters)
    await process.tell(alert(f"{webhook.url}/services/T0/s3cr3t?token=s3cr3t"))
    assert process.outcomes == ["failed"]
    assert "s3cr3t" not in caplog.text
    assert "s3cr3t" not in json.dumps(describe(alert("https://a.example/s3cr3t"), 0.0))
