"""Alerts, recorded series and dashboards: they use series that exist, and mean what they say."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from extproc.operate.telemetry.groups import NO_PANEL
from tests.telemetry.test_metrics import METRICS

MONITORING = Path(__file__).parents[2] / "k8s" / "monitoring"
RULES = MONITORING / "alerts.yaml"
ALL = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
SCRAPED = {"instance", "job"}
KNOWN = METRICS | {name: set() for name in ("up", "process_cpu_seconds_total", "process_resident_memory_bytes")}
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")


def grouped(query):
    return {label for part in re.findall(r"(?:by|on) \(([^)]*)\)", query) for label in part.split(", ")}


RECORDED = {rule["record"]: grouped(rule["expr"]) - {"le"} for rule in ALL if "record" in rule}
PANELS = {
    f"{file.stem}: {panel['title']}": [(target["expr"], target["legendFormat"]) for target in panel["targets"]]
    for file in sorted(MONITORING.glob("dashboards/*.json"))
    for panel in json.loads(file.read_text())["panels"]
}


def check(query, told):
    """That each series of a query exists, with the labels by which it is filtered, grouped and named."""
    bare = re.sub(r"\b(?:by|on) \([^)]*\)", "", query)
    series = re.findall(r"\b((?:extproc|gen_ai|mcp|process)[\w:]+|up\b)(?:\{([^}]*)\})?", bare)
    assert series, query
    for name, filters in series:
        bucket = name.endswith("_bucket")
        labels = (KNOWN | RECORDED)[name if name in KNOWN else re.sub("_(bucket|count|sum)$", "", name)] | SCRAPED
        assert set(re.findall(r"(\w+)[!=]", filters)) <= labels, query
        assert grouped(query) <= labels | ({"le"} if bucket else set()), query
    [single, *_] = [RECORDED.get(name, set()) for name, _ in series]
    assert told <= (grouped(query) | single or {"instance"}), query


def test_rules_and_panels_use_existing_metrics_and_labels():
    for rule in ALL:
        check(rule["expr"], set(re.findall(r"\$labels\.(\w+)", str(rule.get("annotations", "")))))
    for queries in PANELS.values():
        for query, legend in queries:
            check(query, set(re.findall(r"{{(\w+)}}", legend)))


def test_the_dashboards_are_up_to_date():
    files = runpy.run_path(str(MONITORING / "dashboards.py"))["files"]()
    assert {path: path.read_text() for path in MONITORING.glob("dashboards/*")} == files, "make examples"


def test_each_metric_has_a_panel_or_is_named_as_one_without():
    shown = " ".join(query for queries in PANELS.values() for query, _ in queries)
    shown += " ".join(rule["expr"] for rule in ALL)
    assert {name for name in METRICS if name not in shown} == NO_PANEL


REFUSED = 'extproc_requests_total{status="503"}'
SERVED = 'extproc_requests_total{status="200"}'
QUEUED = "extproc_ledger_queued"
LAST = 'extproc_exchanges_in_flight{instance="x",job="g"}'


def certificate(begins, ends):
    """The series of a certificate; days before and after the beginning of a case, which is the epoch."""
    labels = '{instance="x",file="/f"}'
    name = "extproc_listener_certificate_not_"
    return {f"{name}{word}_seconds{labels}": f"{day * 86400}x60" for word, day in (("before", begins), ("after", ends))}


CASES = {
    # series and their values by the minute, the minute of evaluation, and the alerts that then fire
    "a budget": ({'extproc_budget_used_ratio{budget="b"}': "0.5 0.91"}, 1, ["BudgetNearlySpent"]),
    "half of it": ({'extproc_budget_used_ratio{budget="b"}': "0.5 0.5"}, 1, []),
    "a ledger away": ({"extproc_ledger_failures_total": "0+5x20"}, 12, ["LedgerCannotBeWritten"]),
    "one failure": ({"extproc_ledger_failures_total": "0 1x20"}, 12, []),
    "a slow ledger": ({QUEUED: "2000x20"}, 12, ["LedgerLags"]),
    "a burst of rows": ({QUEUED: "2000x5 0 2000x9"}, 12, []),
    "a full ledger": ({QUEUED: "0 60000"}, 1, ["LedgerFallsBehind"]),
    "workers with full ledgers": (
        {f'{QUEUED}{{instance="x",worker="{worker}"}}': "0 60000" for worker in range(3)},
        1,
        ["LedgerFallsBehind"],
    ),
    "settings that all workers refuse": (
        {f'extproc_reloads_total{{instance="x",outcome="refused",worker="{worker}"}}': "0 1 1" for worker in range(3)},
        2,
        ["SettingsRefused"],
    ),
    "rows lost": ({'extproc_ledger_rows_total{outcome="dropped"}': "0 3 3"}, 2, ["LedgerRowsLost"]),
    "rows written": ({'extproc_ledger_rows_total{outcome="written"}': "0+100x3"}, 2, []),
    "counters lost": ({"extproc_store_losses_total": "0 1 1"}, 2, ["CountersLost"]),
    "one kill": ({'extproc_leases_expired_total{forwarded="true"}': "0 8x40"}, 30, []),
    "kills": ({'extproc_leases_expired_total{forwarded="true"}': "0+3x40"}, 35, ["LeasesExpired"]),
    "webhook": ({'extproc_budget_alerts_total{outcome="failed"}': "0 1 1"}, 2, ["BudgetAlertNotTold"]),
    "told": ({'extproc_budget_alerts_total{outcome="told"}': "0 1 1"}, 2, []),
    "one replica down": ({'up{instance="x",job="g"}': "1x5 0x20", LAST: "0x5"}, 15, ["GatewayDown"]),
    "one replica down for hours": ({'up{instance="x",job="g"}': "1x5 0x400", LAST: "0x5"}, 400, ["GatewayDown"]),
    "another program down": ({'up{instance="y",job="h"}': "0x20", LAST: "0x5"}, 15, []),
    "errors": ({SERVED: "0+90x20", REFUSED: "0+10x20"}, 15, ["ErrorsFrequent"]),
    "few errors": ({SERVED: "0+990x20", REFUSED: "0+10x20"}, 15, []),
    "one error in the night": ({SERVED: "0x20", REFUSED: "0 1x20"}, 8, []),
    "a provider fails": (
        {
            'extproc_tries_total{provider="a",outcome="5xx"}': "0+5x20",
            'extproc_tries_total{provider="a",outcome="ok"}': "0+9x20",
        },
        15,
        ["ProviderFails"],
    ),
    "clients' mistakes": ({'extproc_tries_total{provider="a",outcome="4xx"}': "0+5x20"}, 15, []),
    "an exhausted quota": ({'extproc_tries_total{provider="a",outcome="429"}': "0+5x20"}, 15, ["ProviderFails"]),
    "a server of tools": (
        {'mcp_client_operation_duration_seconds_count{mcp_server="s",error_type="connect"}': "0+1x20"},
        15,
        ["ToolServerFails"],
    ),
    "a server that answers": (
        {
            'mcp_client_operation_duration_seconds_count{mcp_server="s",error_type=""}': "0+1x20",
            'mcp_client_operation_duration_seconds_count{mcp_server="s",error_type="4xx"}': "0+5x20",
        },
        15,
        [],
    ),
    "late tokens": (
        {
            'gen_ai_server_time_to_first_token_seconds_bucket{gen_ai_provider_name="a",le="5.0"}': "0+9x30",
            'gen_ai_server_time_to_first_token_seconds_bucket{gen_ai_provider_name="a",le="7.5"}': "0+10x30",
            'gen_ai_server_time_to_first_token_seconds_bucket{gen_ai_provider_name="a",le="+Inf"}': "0+10x30",
        },
        25,
        ["FirstTokenLate"],
    ),
    "a full gateway": ({'extproc_refusals_total{code="overloaded"}': "0+5x20"}, 15, ["GatewayFull"]),
    "other refusals": ({'extproc_refusals_total{code="invalid_key"}': "0+5x20"}, 15, []),
    "stale settings": ({'extproc_settings_stale{instance="x"}': "0 1x20"}, 15, ["SettingsStale"]),
    "settings of a minute ago": ({'extproc_settings_stale{instance="x"}': "0 1 1 0x20"}, 15, []),
    "a certificate of 90 days that ends in 6": (certificate(-84, 6), 30, ["CertificateEnds"]),
    "one that ends in 10": (certificate(-80, 10), 30, []),
    "one of 6 days that ends in 3": (certificate(-3, 3), 30, []),
    "one of 6 days that ends in 1": (certificate(-5, 1), 30, ["CertificateEnds"]),
    "one that has ended": (certificate(-91, -1), 30, ["CertificateEnds"]),
    "a guardrail's service": (
        {'extproc_guardrail_failures_total{guardrail="g",reason="timeout"}': "0+5x20"},
        15,
        ["GuardrailFails"],
    ),
    "unreadable text": ({'extproc_guardrail_failures_total{guardrail="g",reason="unreadable"}': "0+5x20"}, 15, []),
    "a full disk": ({"extproc_log_lines_lost_total": "0 4 4"}, 2, ["LogLinesLost"]),
    "a late loop": ({'extproc_event_loop_lag_seconds{instance="x"}': "0.3x20"}, 10, ["EventLoopLate"]),
}
ABSENT = "no gateway", {}, 5, ["GatewayAbsent"]


def promtool(tmp_path, verb, text):
    file = tmp_path / "file.yaml"
    file.write_text(yaml.safe_dump(text))
    done = subprocess.run(["promtool", *verb.split(), str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_listed_and_has_a_first_step():
    for page in ("operations", "telemetry"):
        text = (MONITORING.parents[1] / f"docs/{page}.md").read_text()
        assert [name for name in ALERTS if f"`{name}`" not in text] == []


def test_the_runbook_of_every_alert_is_its_row_of_the_operations_page():
    text = (MONITORING.parents[1] / "docs/operations.md").read_text()
    assert sorted(re.findall(r'<a id="(\w+)"></a>`\1`', text)) == sorted(ALERTS)
    page = "https://github.com/OWNER/llm-extproc/blob/main/docs/operations.md"
    assert {name: rule["annotations"]["runbook_url"] for name, rule in ALERTS.items()} == {
        name: f"{page}#{name}" for name in ALERTS
    }


@needs_promtool
def test_alerts_fire_at_their_conditions(tmp_path):
    def case(name, series, minute, firing):
        if name != "no gateway":
            series = {'extproc_exchanges_in_flight{instance="running"}': "0x400", **series}
        silent = [
            {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []} for alert in ALERTS if alert not in firing
        ]
        loud = [
            {
                "expr": f'count(ALERTS{{alertstate="firing",alertname="{alert}"}})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
            for alert in firing
        ]
        return {
            "name": name,
            "interval": "1m",
            "input_series": [{"series": each, "values": values} for each, values in series.items()],
            "alert_rule_test": silent,
            "promql_expr_test": loud,
        }

    tests = [case(name, *rest) for name, *rest in (*((name, *each) for name, each in CASES.items()), ABSENT)]
    promtool(tmp_path, "test rules", {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests})


@needs_promtool
def test_an_outage_rings_within_a_minute_and_ends_within_a_minute(tmp_path):
    """Scrapes each 15 s. From 5:15 to 8:15 every request fails."""
    series = {SERVED: "0+150x20 3000x12 3000+150x20", REFUSED: "0x20 0+150x12 1800x20"}
    at = {"5m": 0, "5m45s": 1, "8m": 1, "9m15s": 0}
    tests = {
        "interval": "15s",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count(ALERTS{alertstate="firing",alertname="Outage"}) or vector(0)',
                "eval_time": moment,
                "exp_samples": [{"labels": "{}", "value": firing}],
            }
            for moment, firing in at.items()
        ],
    }
    promtool(tmp_path, "test rules", {"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [tests]})


@needs_promtool
def test_prometheus_accepts_rules_and_queries(tmp_path):
    promtool(tmp_path, "check rules", yaml.safe_load(RULES.read_text()))
    queries = sorted({query for panel in PANELS.values() for query, _ in panel})
    rules = [
        {"record": f"panel_{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    promtool(tmp_path, "check rules", {"groups": [{"name": "panels", "rules": rules}]})
