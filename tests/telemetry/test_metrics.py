import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from extproc.cache.caching import CACHING, Caching
from extproc.money.ledger import open_ledger
from extproc.operate.telemetry.conventions import Earlier, Latest
from extproc.operate.telemetry.declared import SPENDER, SharedCounter, declared
from extproc.operate.telemetry.groups import GROUPS
from extproc.operate.telemetry.histogram import Histogram
from extproc.operate.telemetry.metrics import Bounded
from extproc.operate.telemetry.page import written
from extproc.tools.mcp.call import CALL, Call
from extproc.wire.framing import rpc
from extproc.words.dialect import Report
from extproc.words.exchange import Consumer, Kinds, Reservation, Target, Usage, Verdict
from extproc.words.facts import Facts

COMMON = {
    *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"),
    "error_type",
}
MCP = "mcp: {servers: {github: {url: 'http://a.test/mcp'}}, profiles: {dev: {servers: {github: {}}}}}"
DECLARED = [one for group in GROUPS for one in declared(group)]
METRICS = {one.name: {*one.labels} - {SPENDER[-1]} for one in DECLARED}


def ended(exchange, body=None, *, model="m", response_model="m-1", **more):
    """An exchange that a provider served."""
    body = body or {"model": model, "stream": True, "messages": [{"role": "user", "content": "CANARY-PROMPT"}]}
    found = exchange(body, **more)
    found.route.forwarded = True
    found.answer.status, found.answer.attempts = 200, 2
    found.answer.target = found.route.targets[0]
    found.answer.report = Report(model=response_model, usage_refused=True, finish_reasons={0: "stop"})
    found.money.usage, found.money.cost = Usage(7, 3, 2, 1, 1), 12_500
    found.money.reservation = Reservation(found.id, 14, 3)
    found.end(whole=True)
    found.answer.first_token, found.seconds, found.route.sent = 0.2, 1.2, found.started + 0.1
    return found


def touch_all(telemetry, exchange):
    """Make every metric report a value. Counters with a public name are called where the fact is known, so here too."""
    for one in DECLARED:
        counter = vars(telemetry).get(one.attribute)
        if isinstance(counter, SharedCounter) and not one.attribute.startswith("_"):
            counter(*one.labels)
    telemetry.pool_endpoints.read = lambda: {("a", "ready"): 2}
    telemetry.pool_waiting.read = lambda: {("a",): 1}
    telemetry.certificate("/run/tls/tls.crt", (1.0, 2.0))
    telemetry.record(ended(exchange))
    telemetry.stage("Parse")(0.001)
    telemetry.attempt("a", "m", "ok", 0.5)
    telemetry.attempt("a", "m", "401", 0.5)
    telemetry.guardrail(Verdict("g", "input", "block"))
    telemetry.guardrail(Verdict("g", "input", "failed", reason="timeout"))
    telemetry.guardrail_call("g", "webhook", "ok", 0.1)
    telemetry.budget_used("b", lambda: 0.5)
    unpriced = ended(exchange)
    unpriced.money.cost = None
    unpriced.features[CACHING] = Caching(b"key", "alice", 60.0, True, 100, "hit", 5)
    telemetry.record(unpriced)
    of_other = ended(exchange)
    of_other.money.price_version = "genai-prices 1 another-model"
    telemetry.record(of_other)
    ending = ended(exchange)
    ending.answer.target = replace(ending.answer.target, facts=Facts(retires=date(2026, 1, 1)))
    telemetry.record(ending)
    of_vectors = ended(exchange)
    of_vectors.request.operation = "embeddings"
    telemetry.record(of_vectors)
    _watch_a_ledger(telemetry)


def _watch_a_ledger(telemetry):
    ledger = open_ledger("memory:")
    telemetry.watch(ledger.writer)
    ledger.close()  # what it tells stays


def called(exchange, tool="add", *, known=True, **more):
    """A call of a tool that ended."""
    made = exchange()
    params = {"name": f"gh_{tool}", "arguments": {"text": "CANARY-ARGUMENT"}}
    message = rpc.message({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})
    made.features[CALL] = call = Call(
        "dev", None, message, "2025-06-18", name=params["name"], server="github", tool=tool, **more
    )
    made.route.of_tools, call.entry = True, object() if known else None
    made.request.operation, made.answer.target, made.route.targets = (
        "tools/call",
        None,
        (Target("dev", "github", tool),),
    )
    made.answer.status, made.route.forwarded = 200, True
    made.answer.report = Report(error=str(call.rpc_error) if call.rpc_error else "tool_error" if call.failed else "")
    made.money.usage = Usage(source="none")
    made.end(whole=True)
    return made


def touch_tools(telemetry, exchange):
    telemetry.record(called(exchange))
    telemetry.attempt("mcp-github", "", "ok", 0.5)
    telemetry.tool_changed("github", "add")
    telemetry.tool_approval("github", "asked")
    telemetry.tool_definitions.read = lambda: {("github", "listed"): 2}


def test_calls_of_tools(world, exchange):
    made = world(MCP)
    telemetry = made.telemetry
    for failed, error, code in ((False, "", 0), (True, "tool_error", 0), (False, "-32602", -32602)):
        telemetry.record(called(exchange, failed=failed, rpc_error=code))
        labels = {"gen_ai_tool_name": "add", "error_type": error, "mcp_server": "github", "profile": "dev"}
        more = {"rpc_response_status_code": str(code or ""), "mcp_protocol_version": "2025-06-18"}
        same = {"mcp_method_name": "tools/call", "gen_ai_operation_name": "execute_tool", "network_transport": "tcp"}
        assert made.metric("mcp_server_operation_duration_seconds_count", **labels, **more, **same) == 1
        assert made.log[-1]["error"] == error
    for number in range(5):  # names that are in no catalogue are the clients' words
        telemetry.record(called(exchange, f"made-up-{number}", known=False))
    assert not any("made-up" in str(sample.labels) for sample in samples(telemetry))
    line = made.log[0]
    assert (line["profile"], line["mcp_server"], line["tool"], line["rpc_id"]) == ("dev", "github", "add", 7)
    assert len(line["arguments_sha256"]) == 64
    assert not any("CANARY" in text for text in made.lines)
    assert made.metric("extproc_requests_total", operation="tools/call", status="200") == 8


def samples(telemetry):
    return [sample for family in telemetry.registry.collect() for sample in family.samples]


# --- names


@pytest.mark.parametrize("semconv", ["latest", "v1.41"])
def test_the_metrics_and_their_labels_are_the_documented_ones(world, exchange, semconv):
    telemetry = world(f"{MCP}\ntelemetry: {{semconv: {semconv}}}").telemetry
    touch_all(telemetry, exchange)
    touch_tools(telemetry, exchange)
    found = {}
    for sample in samples(telemetry):
        name = re.sub("_(bucket|count|sum)$", "", sample.name)
        if not name.startswith(("process_", "python_")):
            found.setdefault(name, set()).update(set(sample.labels) - {"le"})
    assert found == {name: METRICS[name] for name in found}
    of_other = {one.name for one in declared(Earlier if semconv == "latest" else Latest)}
    assert set(METRICS) - set(found) == of_other


def test_the_page_lists_the_metrics():
    """`make docs` writes them."""
    page = (Path(__file__).parents[2] / "docs/telemetry.md").read_text()
    assert written(page) == page
    assert [name for name in METRICS if f"`{name}`" not in page] == []


def test_no_page_names_an_unknown_metric():
    docs = Path(__file__).parents[2] / "docs"
    named = re.compile(r"`((?:extproc|gen_ai)_[a-z_]+?)(?:\{[^`]*)?`")
    for page in sorted(docs.glob("*.md")):
        labels = {*COMMON, "gen_ai_token_type", "gen_ai_token_modality"}
        assert set(named.findall(page.read_text())) - labels <= set(METRICS), page.name


def test_attributed_labels_are_labels_of_metrics(world, exchange):
    telemetry = world("attribution: {metrics: [agent, cost-center]}").telemetry
    telemetry.record(ended(exchange, labels={"agent": "planner", "cost-center": "42", "other": "x"}))
    [sample] = [found for found in samples(telemetry) if found.name == "extproc_consumer_requests_total"]
    assert sample.labels["label_agent"] == "planner"
    assert sample.labels["label_cost_center"] == "42"
    assert set(sample.labels) == {"consumer", "team", "status", "label_agent", "label_cost_center"}


def test_an_exchange_is_counted(world, exchange):
    gateway = world()
    gateway.telemetry.record(ended(exchange))
    labels = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "mock",
        "gen_ai_request_model": "m",
        "gen_ai_response_model": "m-1",
        "error_type": "",
    }
    spender = {"consumer": "alice", "team": "red"}
    assert gateway.metric("gen_ai_client_inference_operation_input_tokens_sum", **labels) == 7
    assert gateway.metric("gen_ai_client_inference_operation_output_tokens_sum", **labels) == 3
    assert gateway.metric("gen_ai_server_request_duration_seconds_sum", **labels) == pytest.approx(1.2)
    assert gateway.metric("gen_ai_client_inference_duration_seconds_sum", **labels) == pytest.approx(1.1)
    of_model = {name: value for name, value in labels.items() if name != "error_type"}
    assert gateway.metric("gen_ai_client_inference_time_to_first_chunk_seconds_sum", **of_model) == pytest.approx(0.1)
    assert gateway.metric("extproc_consumer_requests_total", **spender, status="2xx") == 1
    assert gateway.metric("extproc_consumer_tokens_total", **spender, gen_ai_token_type="input") == 7
    assert gateway.metric("extproc_consumer_tokens_total", **spender, gen_ai_token_type="output") == 3
    assert gateway.metric("gen_ai_server_time_to_first_token_seconds_sum", **labels) == pytest.approx(0.2)
    assert gateway.metric("gen_ai_server_time_per_output_token_seconds_sum", **labels) == pytest.approx(0.5)
    assert gateway.metric("extproc_requests_total", operation="chat", status="200") == 1
    assert gateway.metric("extproc_provider_usage_refused_total", provider="a") == 1
    assert gateway.metric("extproc_failovers_total", provider="a") == 1


def test_tokens_are_counted_by_their_parts_and_modalities(world, exchange):
    gateway = world()
    found = ended(exchange)
    found.money.usage = Usage(100, 50, cached_tokens=40, reasoning_tokens=30, cache_write_tokens=5)
    gateway.telemetry.record(found)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    found = ended(exchange, {"model": "m", "messages": [{"role": "user", "content": [picture]}]})
    found.money.usage = Usage(20, 1)  # which of them are the picture's is not told
    gateway.telemetry.record(found)
    found.money.usage = Usage(300, 2, kinds=Kinds(image_input=200, audio_input=60))
    gateway.telemetry.record(found)
    spent = {}
    for sample in samples(gateway.telemetry):
        if sample.name.startswith("gen_ai_client_inference_usage_"):
            name = sample.name.removeprefix("gen_ai_client_inference_usage_").removesuffix("_tokens_total")
            spent[name, sample.labels["gen_ai_token_modality"]] = sample.value
    assert spent == {
        ("input", "text"): 140,
        ("input", "unknown"): 20,
        ("input", "image"): 200,
        ("input", "audio"): 60,
        ("output", "text"): 52,
        ("output", "unknown"): 1,
        ("cache_read_input", "text"): 40,
        ("cache_write_input", "text"): 5,
        ("reasoning_output", "text"): 30,
    }


def test_earlier_names_and_embeddings(world, exchange):
    for semconv, names in (
        ("latest", {"gen_ai_client_embeddings_duration_seconds", "gen_ai_client_embeddings_operation_input_tokens"}),
        ("v1.41", {"gen_ai_client_operation_duration_seconds", "gen_ai_client_token_usage"}),
    ):
        gateway = world(f"telemetry: {{semconv: {semconv}}}")
        found = ended(exchange)
        found.request.operation, found.request.ask.stream = "embeddings", False
        gateway.telemetry.record(found)
        of_client = [one for one in samples(gateway.telemetry) if one.name.startswith("gen_ai_client")]
        assert {one.name.removesuffix("_sum") for one in of_client if one.name.endswith("_sum")} == names
        assert [one.value for one in of_client if one.name.endswith("_sum") and "token" in one.name] == [7]
        assert not any("_usage_" in one.name and one.name.endswith("_total") for one in of_client)


@pytest.mark.parametrize("status", [0, 99, 600, 999])
def test_an_invalid_status_is_not_counted(world, exchange, status):
    gateway = world()
    found = ended(exchange)
    found.answer.status = status
    gateway.telemetry.record(found)
    assert gateway.metric("extproc_requests_total", operation="chat", status="none") == 1


@pytest.mark.parametrize(
    ("outcome", "lost"),
    [("ok", None), ("client_left", None), ("cut", None), ("429", 0.5), ("timeout", 0.5), ("4xx", 0.5)],
)
def test_the_time_of_failed_tries_is_counted(world, outcome, lost):
    gateway = world()
    gateway.telemetry.attempt("a", "m", outcome, 0.5)
    assert gateway.metric("extproc_failed_tries_seconds_total", provider="a", outcome=outcome) == lost


@pytest.mark.parametrize("outcome", ["401", "403", "credential"])
def test_a_rejected_credential_is_counted_each_time_and_logged_now_and_then(world, caplog, outcome):
    gateway = world()
    for provider in "aaba":
        gateway.telemetry.attempt(provider, "m", outcome, 0.5)
    assert gateway.metric("extproc_provider_credentials_rejected_total", provider="a") == 3
    assert [record.getMessage().split()[1] for record in caplog.records] == ["a", "b"]


# --- both formats


@pytest.mark.parametrize(("write", "read"), [(generate_latest, plain_text), (generate_open_metrics, open_metrics)])
def test_both_formats_can_be_parsed(world, exchange, write, read):
    gateway = world(MCP)
    touch_all(gateway.telemetry, exchange)
    touch_tools(gateway.telemetry, exchange)
    gateway.telemetry.record(ended(exchange, response_model='a"b\\c\nd é'))
    found = {sample.name for family in read(write(gateway.telemetry.registry).decode()) for sample in family.samples}
    for name in set(METRICS) - {one.name for one in declared(Earlier)}:
        assert {name, f"{name}_bucket"} & found


def test_histograms_count_cumulatively(world):
    registry = world().telemetry.registry
    histogram = Histogram("h", "text", ["a"], (1, 2, 4), registry)
    for value in (0.5, 1, 1.5, 2, 3, 5, 100):
        histogram.series(("x",)).observe(value)
    buckets = [registry.get_sample_value("h_bucket", {"a": "x", "le": le}) for le in ("1.0", "2.0", "4.0", "+Inf")]
    assert buckets == [2, 4, 5, 7]
    assert registry.get_sample_value("h_count", {"a": "x"}) == 7
    assert registry.get_sample_value("h_sum", {"a": "x"}) == 113


# --- number of series (T20)


def test_a_bounded_label_learns_a_limited_number_of_values():
    bounded = Bounded(known=["known"], learn=2)
    assert [bounded(value) for value in ("known", "", "a", "b", "c", "a", "d")] == [
        *("known", "", "a", "b", "other", "a", "other")
    ]


def test_values_of_clients_and_providers_add_few_series(world, exchange):
    gateway = world("attribution: {metrics: [agent]}\nmodels: {m: {provider: a}, '*': {provider: a}}")
    telemetry = gateway.telemetry
    for number in range(10_000):
        found = ended(exchange, labels={"agent": f"agent-{number}"}, response_model=f"r-{number}")
        found.request.ask.model = f"model-{number}"
        telemetry.record(found)
        telemetry.attempt(f"provider-{number}", f"model-{number}", "ok", 0.1)
    for name in ("gen_ai_server_request_duration_seconds_count", "extproc_tries_total", "extproc_try_seconds_count"):
        assert len([sample for sample in samples(telemetry) if sample.name == name]) <= 201
    assert len(telemetry.recent) == 1000


def test_wrong_keys_do_not_push_exchanges_out_of_the_record(world, exchange):
    telemetry = world().telemetry
    telemetry.record(ended(exchange))
    for _ in range(5000):
        stranger = ended(exchange)
        stranger.route.forwarded = False
        del stranger.consumer, stranger.money.labels
        telemetry.record(stranger)
    telemetry.record(ended(exchange))
    entries = list(telemetry.recent)
    assert len(entries) == len(telemetry.recent) == 102
    assert ["consumer" in entry for entry in entries] == [True, *[False] * 100, True], "in the order of their ends"


def test_combinations_of_models_and_of_labels_add_few_series(world, exchange):
    settings = "attribution: {metrics: [agent, task], max_series: 300}"
    telemetry = world(settings + "\nmodels: {m: {provider: a}, '*': {provider: a}}").telemetry
    for number in range(5000):
        labels = {"agent": f"agent-{number % 97}", "task": f"task-{number % 89}"}
        found = ended(exchange, labels=labels, response_model=f"r-{number % 101}")
        found.request.ask.model = f"model-{number % 103}"
        telemetry.record(found)
    for name, most in (
        ("gen_ai_server_request_duration_seconds_count", 1001),
        ("extproc_consumer_requests_total", 301),
        ("extproc_consumer_tokens_total", 2 * 301),
    ):
        found = [sample for sample in samples(telemetry) if sample.name == name]
        assert most - 1 <= len(found) <= most
        assert sum(sample.value for sample in found if sample.labels.get("gen_ai_token_type", "input") == "input") == (
            7 * 5000 if "tokens" in name else 5000
        )


def test_five_hundred_consumers_of_ten_models_fit_into_2_mb(world, exchange):
    telemetry = world().telemetry
    found = ended(exchange)
    for number in range(5000):
        found.consumer = Consumer(f"consumer-of-a-department-{number % 500}", team=f"team-{number % 20}")
        found.request.ask.model = f"provider/a-model-2026-{number // 500}"
        found.answer.target = Target(found.request.ask.model, "a", "m")
        telemetry.record(found)
    text = generate_latest(telemetry.registry)
    assert text.count(b"extproc_consumer_requests_total{") == 500
    assert text.count(b"extproc_consumer_cost_usd_total{") == 500
    assert len(text) < 2_000_000


def test_error_names_of_a_provider_add_few_series(world, exchange):
    telemetry = world().telemetry
    for number in range(1000):
        found = ended(exchange)
        found.error = f"error-{number}"  # in attach mode a provider can send this header
        telemetry.record(found)
    series = [sample for sample in samples(telemetry) if sample.name == "gen_ai_server_request_duration_seconds_count"]
    assert len(series) <= 300


def test_new_settings_add_their_names(world, settings, exchange):
    gateway = world()
    gateway.telemetry.configure(settings("models: {fresh: {provider: a}}\ntelemetry: {access_log: 'off'}"))
    for number in range(300):
        gateway.telemetry.attempt("a", f"learned-{number}", "ok", 0.1)
    gateway.telemetry.attempt("a", "fresh", "ok", 0.1)
    assert gateway.metric("extproc_tries_total", provider="a", model="fresh", outcome="ok") == 1
    gateway.telemetry.record(ended(exchange))
    assert gateway.lines == []


def test_spending_is_counted_by_consumer_and_provider(world, exchange):
    gateway = world()
    for model in ("m", "elsewhere"):
        target = Target(model, "a" if model == "m" else "gone", model)
        gateway.telemetry.record(ended(exchange, targets=(target,)))
    spent = [
        gateway.metric("extproc_cost_usd_total", provider=provider, model=model)
        for provider, model in (("a", "m"), ("other", "elsewhere"))
    ]
    assert spent == [0.0000125] * 2
    assert gateway.metric("extproc_consumer_cost_usd_total", consumer="alice", team="red") == pytest.approx(0.000025)


def test_an_unknown_price_is_counted(world, exchange):
    gateway, found = world(), ended(exchange)
    found.money.cost = None
    gateway.telemetry.record(found)
    assert gateway.log[0]["cost_usd"] is None
    assert gateway.metric("extproc_cost_unknown_total", provider="a", model="m") == 1


def test_a_budget_that_leaves_the_settings_has_no_used_share(world):
    stays = "{name: c, unit: requests, limit: 1, window: day}"
    gateway = world(f"budgets: [{{name: b, unit: requests, limit: 1, window: total}}, {stays}]")
    other = world(f"budgets: [{stays}]")
    for name in "bc":
        gateway.telemetry.budget_used(name, lambda: 0.95)
    gateway.telemetry.configure(other.pipeline.settings)
    shares = [sample.labels["budget"] for sample in samples(gateway.telemetry) if "used_ratio" in sample.name]
    assert shares == ["c"]


def test_the_used_share_of_a_budget_is_asked_at_each_scrape(world):
    gateway, shares = world(), iter((0.5, 0.25))
    gateway.telemetry.budget_used("b", lambda: next(shares))
    assert [gateway.metric("extproc_budget_used_ratio", budget="b") for _ in range(2)] == [0.5, 0.25]


# --- alerts


def test_counters_of_alerts_begin_at_zero(world):
    """Prometheus does not see a counter that begins at 1 as increased."""
    telemetry = world("budgets: [{name: b, unit: requests, limit: 1, window: day}]").telemetry
    _watch_a_ledger(telemetry)
    found = {(sample.name, *sample.labels.values()): sample.value for sample in samples(telemetry)}
    for name, *labels in (
        *(("extproc_budget_alerts_total", outcome) for outcome in ("told", "failed", "dropped")),
        *(("extproc_leases_expired_total", forwarded) for forwarded in ("true", "false")),
        *(("extproc_ledger_rows_total", outcome) for outcome in ("written", "dropped", "refused")),
        *(("extproc_reloads_total", outcome) for outcome in ("taken", "refused")),
        ("extproc_internal_errors_total", "GatewayStream"),
        ("extproc_provider_credentials_rejected_total", "a"),
        ("extproc_budget_decisions_total", "b", "store_failure"),
        ("extproc_ledger_failures_total",),
        ("extproc_store_losses_total",),
    ):
        assert found[(name, *labels)] == 0


def test_the_dates_of_the_listeners_certificate_are_shown_while_they_are_known(world):
    telemetry = world().telemetry
    ask = lambda word, file: telemetry.registry.get_sample_value(  # noqa: E731
        f"extproc_listener_certificate_not_{word}_seconds", {"file": file}
    )
    telemetry.certificate("/a", None)
    assert ask("after", "/a") is None, "an alert would fire for a 0"
    telemetry.certificate("/a", (1.0, 2.0))
    assert (ask("before", "/a"), ask("after", "/a")) == (1.0, 2.0)
    telemetry.certificate("/b", (3.0, 4.0))
    assert (ask("after", "/a"), ask("after", "/b")) == (None, 4.0)
    telemetry.certificate("", None)
    assert ask("after", "/b") is None
