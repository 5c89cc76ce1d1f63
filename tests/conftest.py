"""Builders that most tests use, and which tests a run takes.

Builders are fixtures of the whole session so that hypothesis can use them too.
"""

import gc
import json
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx
import pytest
from hypothesis import settings as hypothesis_settings

import extproc.dialects
from extproc.access.questions import Questions
from extproc.cache.answers import open_answers
from extproc.dialects import by_path
from extproc.exchange.gateway import GatewayStream
from extproc.exchange.pipeline import Pipeline, build
from extproc.exchange.response import Count
from extproc.exchange.services import Services
from extproc.money.accounting.books import Books
from extproc.money.budgets import Expected, ReserveTools, counter
from extproc.operate.telemetry.metrics import Telemetry
from extproc.settings.config import parse
from extproc.stores.memory import MemoryCounters
from extproc.wire.framing.content_types import framing_for
from extproc.words import contract
from extproc.words.chain import Chain, RetrySettings
from extproc.words.dialect import Endpoint, Report
from extproc.words.exchange import Consumer, RequestHead, ResponseHead, Target
from tests.exchanges import new_exchange

# Sections that a test's filter YAML gets when it lacks them.
SECTIONS = {
    "providers": "{a: {kind: mock}, b: {kind: mock, base_url: 'http://127.0.0.1:8090/v1'}}",
    "models": "{m: {provider: a}, n: {provider: b}}",
    "auth": "{required: false}",
}

# The duration of a test is never asserted. `tests/samples.py` says which run is thorough.
hypothesis_settings.register_profile("thorough", deadline=None)
hypothesis_settings.register_profile("usual", deadline=None, max_examples=25)

# A client of httpx reads the certificates of the system, 75 ms of CPU each time; the tests make hundreds of clients.
httpx._transports.default.create_ssl_context = cache(httpx._transports.default.create_ssl_context)

HERE = Path(__file__).parent
# Processes that tests start run the code beside these tests, wherever the package is installed from.
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
THROUGH_ENVOY = (
    HERE / "e2e",
    HERE / "envoy_config",
    HERE / "test_compose.py",
    HERE / "test_k8s.py",
)
"""Files and folders of the tests with the marker `e2e`."""
ONLY_WITH_ENVOY = {"alone", "e2e", "e2e and not alone"}
ONLY_WITHOUT = {"not e2e", "exhaustive or hypothesis"}


def pytest_configure(config):
    thorough = "exhaustive" in config.option.markexpr
    hypothesis_settings.load_profile("thorough" if thorough else "usual")
    gc.disable()  # while tests are collected: nearly everything that is made lasts


def pytest_ignore_collect(collection_path, config):
    """Leave out files without a test that the run wants: importing them takes longer than many of the tests."""
    if config.option.markexpr in ONLY_WITHOUT:
        return collection_path == HERE / "e2e" or None
    if config.option.markexpr in ONLY_WITH_ENVOY and HERE in collection_path.parents:
        wanted = (*THROUGH_ENVOY, *collection_path.parents)
        if not (collection_path in wanted or set(THROUGH_ENVOY) & set(collection_path.parents)):
            return True
        if config.option.markexpr == "alone" and collection_path.match("test_*.py"):
            return "mark.alone" not in collection_path.read_text(encoding="utf-8") or None
    return None


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("e2e") and not {item.path, *item.path.parents} & set(THROUGH_ENVOY):
            raise pytest.UsageError(f"{item.nodeid}: `make e2e` does not look for tests there, see tests/conftest.py")
    for marker in ("exhaustive", "agents", "mcp_clients", "cluster", "release", "focus", "otlp"):
        if marker not in config.option.markexpr:
            left_out = [item for item in items if item.get_closest_marker(marker)]
            items[:] = [item for item in items if not item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish():
    gc.collect()
    gc.enable()
    gc.freeze()  # a hundred thousand objects that last: no collection looks at them again


ADDED = Path(__file__).parent / "dialects" / "added"
"""Dialects that tests add."""

TARGETS = (Target("m", "a", "m"),)


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self, now=1_700_000_040.0):  # the beginning of a minute
        self.now = now

    def __call__(self):
        return self.now


def make_settings(text=""):
    given = {line.partition(":")[0] for line in text.splitlines()}
    rest = [f"{name}: {value}" for name, value in SECTIONS.items() if name not in given]
    return parse("\n".join([text, *rest]))


def make_exchange(
    body=None,
    *,
    path="/v1/chat/completions",
    headers=None,
    consumer=None,
    labels=None,
    targets=TARGETS,
    retry=None,
):
    """An exchange as it is when Reserve begins."""
    exchange = new_exchange("id-1", RequestHead("POST", path, headers or {}))
    exchange.request.dialect = by_path()[path]
    exchange.request.operation = exchange.request.dialect.endpoints.paths[path]
    exchange.request.endpoint = Endpoint(path, exchange.request.operation)
    exchange.consumer = consumer or Consumer("alice", "red")
    exchange.money.labels = labels or {}
    if body is None:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    exchange.request.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    exchange.request.json = json.loads(exchange.request.body)
    exchange.request.ask = exchange.request.dialect.read(exchange.request.json)
    exchange.route.targets = targets
    exchange.route.chain = Chain(targets, retry or RetrySettings(), exchange.request.ask.model)
    return exchange


@dataclass
class World:
    """One configuration at work, and everything it writes to."""

    pipeline: Pipeline
    services: Services
    clock: Clock
    lines: list
    trail: list = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.services, name)

    def stream(self, *, attached=False):
        return GatewayStream(self.pipeline, attached=attached)

    def metric(self, name, **labels):
        return self.telemetry.registry.get_sample_value(name, labels)

    @property
    def log(self):
        return [json.loads(line) for line in self.lines]

    @property
    def verdicts(self):
        """The verdicts of guardrails in the audit trail, each with the id of its exchange."""
        self.trail += [event.fields for event in self.audit_events.take()]
        return [{"guardrail": one["rule"]["name"], **one["extproc"]} for one in self.trail if "rule" in one]

    async def level(self, scope, window=60):
        [level] = await self.counters.levels([(scope, window)])
        return level.settled, level.reserved


def make_world(text="", counters=None, clock=None, *, ledger=None):
    settings, clock = make_settings(text), clock or Clock()
    counters = counters or MemoryCounters(clock)
    telemetry = Telemetry(settings, (lines := []).append)
    answers = open_answers(settings.stores.cache, settings.cache, settings.around_guardrails)
    if answers is not None:
        answers.now = clock
    questions = Questions(counters, now=clock)
    tools = ReserveTools(telemetry.budget_used, expected=Expected(), questions=questions)
    services = Services(counters, telemetry, clock, tools, answers=answers)
    if ledger is not None:
        services.books = Books(counters, ledger, now=clock)
    return World(build(settings, services), services, clock, lines)


@pytest.fixture(scope="session", autouse=True)
def _counter():
    """The process that counts tokens, and its socket, end with the tests."""
    yield
    counter.helper.end()


@pytest.fixture(scope="session")
def settings():
    """Call it with YAML: the settings, with sections of SECTIONS where the text has none."""
    return make_settings


@pytest.fixture(scope="session")
def exchange():
    """Call it with a body and more: an exchange as it is when Reserve begins."""
    return make_exchange


@pytest.fixture(scope="session")
def world():
    """Call it with YAML: a pipeline with its counters, telemetry and clock."""
    return make_world


@pytest.fixture(scope="module")
def example_dialect():
    """An API more, as if `tests/dialects/added/example.py` lay in `extproc/dialects`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extproc.dialects, "__path__", [*extproc.dialects.__path__, str(ADDED)])
        _look_again()
        yield extproc.dialects.client_apis()["example"]
        del extproc.dialects.example, sys.modules["extproc.dialects.example"]
    _look_again()


def _look_again():
    for found in vars(extproc.dialects).values():
        if hasattr(found, "cache_clear"):
            found.cache_clear()


def count_answer(dialect, kind, body, *, translated=True, told_usage=None):
    """The part of an answer's body that passes the gateway attachment, and the report on the answer."""
    exchange = new_exchange("id-1", RequestHead("POST", "", {}))
    exchange.request.dialect, exchange.answer.report = dialect, Report(told_usage=told_usage)
    exchange.answer.head = ResponseHead(200, {}, hop={contract.TRANSLATED: "1"} if translated else {})
    framing = framing_for(kind, event_limit=1 << 20, body_limit=1 << 20)
    events = Count()(exchange, [*framing.feed(body), *framing.end()], True)
    return b"".join(event.raw for event in events), exchange.answer.report


@pytest.fixture(scope="session")
def counted():
    """Call it with a dialect, a content type and the body of an answer: what may leave of it, and its report."""
    return count_answer


@pytest.fixture(scope="session")
def clocks():
    """Call it: a clock that a test moves."""
    return Clock
