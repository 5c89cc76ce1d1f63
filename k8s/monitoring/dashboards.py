"""Grafana dashboards, written to `dashboards/` from the tables below: `python k8s/monitoring/dashboards.py`.

The files have Grafana's classic dashboard model (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/
view-dashboard-json-model/), which every version since 8 imports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "dashboards"
_COLUMNS, _HEIGHT = 24, 8  # of Grafana's grid
_WIDTH = 8  # three panels a row
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """A chart with a line for each query: PromQL and the name of its lines, where `{{label}}` is a label's value."""

    title: str
    unit: str  # of Grafana: s, bytes, percentunit, reqps, currencyUSD, short
    queries: Sequence[tuple[str, str]]
    help: str = ""


def _rate(metric: str, by: str, filter_: str = "") -> str:
    """Events per second. The sum is over replicas, workers and the labels that are not in `by`."""
    return f"sum by ({by}) (rate({metric}{filter_}[$__rate_interval]))"


def _hourly(metric: str, by: str) -> str:
    """The sum of an hour at the present rate."""
    return f"{_rate(metric, by)} * 3600"


def _top(query: str) -> str:
    return f"topk(20, {query})"


def _quantiles(metric: str, by: str) -> list[tuple[str, str]]:
    """Median and 95th percentile of a histogram."""
    name = f"{{{{{by}}}}}"
    buckets = _rate(f"{metric}_bucket", f"le, {by}")
    return [(f"histogram_quantile({share}, {buckets})", f"{name} p{int(share * 100)}") for share in (0.5, 0.95)]


_MODEL = "gen_ai_request_model"
_PROVIDER = "gen_ai_provider_name"
_MODALITY = "gen_ai_token_modality"
_SPENT = "gen_ai_client_inference_usage"
_EXCHANGES = "gen_ai_server_request_duration_seconds"
_CALLS = "mcp_server_operation_duration_seconds"
_ONLY_CALLS = '{mcp_method_name="tools/call"}'

DASHBOARDS: Mapping[str, tuple[str, Sequence[Panel]]] = {
    "traffic": (
        "AI gateway: traffic",
        (
            Panel("Requests by status", "reqps", [(_rate("extproc_requests_total", "status"), "{{status}}")]),
            Panel("Share of requests with a 5xx", "percentunit", [("extproc:errors:ratio_rate5m", "5xx")]),
            Panel("Refusals by code", "reqps", [(_rate("extproc_refusals_total", "code"), "{{code}}")]),
            Panel(
                "Requests by provider",
                "reqps",
                [(_rate(f"{_EXCHANGES}_count", _PROVIDER), f"{{{{{_PROVIDER}}}}}")],
                "Requests that were sent to a provider.",
            ),
            Panel("Requests by model", "reqps", [(_top(_rate(f"{_EXCHANGES}_count", _MODEL)), f"{{{{{_MODEL}}}}}")]),
            Panel(
                "Errors by model and type",
                "reqps",
                [
                    (
                        _top(_rate(f"{_EXCHANGES}_count", f"{_MODEL}, error_type", '{error_type!=""}')),
                        f"{{{{{_MODEL}}}}} {{{{error_type}}}}",
                    )
                ],
            ),
            Panel("Duration by provider", "s", _quantiles(_EXCHANGES, _PROVIDER)),
            Panel(
                "Time to the first token by provider",
                "s",
                _quantiles("gen_ai_server_time_to_first_token_seconds", _PROVIDER),
                "Streamed answers.",
            ),
            Panel(
                "Time to the first token by model",
                "s",
                _quantiles("gen_ai_server_time_to_first_token_seconds", _MODEL),
                "Streamed answers.",
            ),
            Panel(
                "Time per output token by model",
                "s",
                _quantiles("gen_ai_server_time_per_output_token_seconds", _MODEL),
                "Streamed answers.",
            ),
            Panel(
                "Tokens by modality",
                "short",
                [
                    (_rate(f"{_SPENT}_{which}_tokens_total", _MODALITY), f"{{{{{_MODALITY}}}}} {which} per second")
                    for which in ("input", "output")
                ],
                "Their names are those of `telemetry.semconv: latest`.",
            ),
            Panel(
                "Cached and reasoning tokens",
                "short",
                [
                    (_rate(f"{_SPENT}_{which}_tokens_total", _MODEL), f"{{{{{_MODEL}}}}} {which} per second")
                    for which in ("cache_read_input", "cache_write_input", "reasoning_output")
                ],
                "Parts of the input and of the output.",
            ),
            Panel(
                "Operations",
                "reqps",
                [(_rate("extproc_requests_total", "operation"), "{{operation}}")],
                "Chat, embeddings, images and the others.",
            ),
            Panel("Tries by provider", "reqps", [(_rate("extproc_tries_total", "provider"), "{{provider}}")]),
            Panel(
                "Failed tries by provider and outcome",
                "reqps",
                [(_rate("extproc_tries_total", "provider, outcome", '{outcome!="ok"}'), "{{provider}} {{outcome}}")],
            ),
            Panel("Duration of tries by provider", "s", _quantiles("extproc_try_seconds", "provider")),
            Panel(
                "Failovers by provider",
                "reqps",
                [(_rate("extproc_failovers_total", "provider"), "to {{provider}}")],
                "Exchanges that needed more than one try, by the provider that served in the end.",
            ),
            Panel(
                "Share of failed tries by provider",
                "percentunit",
                [("extproc:provider_failures:ratio_rate5m", "{{provider}}")],
            ),
            Panel("Skipped targets", "reqps", [(_rate("extproc_targets_skipped_total", "reason"), "{{reason}}")]),
            Panel(
                "Endpoints of pools, and requests that wait",
                "short",
                [
                    ("max by (provider, state) (extproc_pool_endpoints)", "{{provider}} {{state}}"),
                    ("sum by (provider) (extproc_pool_waiting)", "{{provider}} waiting requests"),
                ],
            ),
        ),
    ),
    "money": (
        "AI gateway: money",
        (
            Panel("USD per hour by provider", "currencyUSD", [("extproc:cost_usd:rate1h * 3600", "{{provider}}")]),
            Panel(
                "USD per hour by model",
                "currencyUSD",
                [(_top(_hourly("extproc_cost_usd_total", "model")), "{{model}}")],
            ),
            Panel(
                "USD per hour by team",
                "currencyUSD",
                [(_top(_hourly("extproc_consumer_cost_usd_total", "team")), "{{team}}")],
            ),
            Panel(
                "USD per hour by consumer",
                "currencyUSD",
                [(_top(_hourly("extproc_consumer_cost_usd_total", "consumer")), "{{consumer}}")],
            ),
            Panel(
                "Requests by consumer",
                "reqps",
                [(_top(_rate("extproc_consumer_requests_total", "consumer")), "{{consumer}}")],
            ),
            Panel(
                "Tokens per second by consumer",
                "short",
                [(_top(_rate("extproc_consumer_tokens_total", "consumer")), "{{consumer}}")],
            ),
            Panel(
                "Spent share of budgets",
                "percentunit",
                [("max by (budget) (extproc_budget_used_ratio)", "{{budget}}")],
                "The fullest count of each budget.",
            ),
            Panel(
                "Decisions of budgets",
                "reqps",
                [(_rate("extproc_budget_decisions_total", "budget, verdict"), "{{budget}} {{verdict}}")],
            ),
            Panel(
                "Requests that budgets and limits refused",
                "reqps",
                [
                    (
                        _rate(
                            "extproc_refusals_total", "code", '{code=~"budget_exceeded|approval_required|rate_limited"}'
                        ),
                        "{{code}}",
                    )
                ],
            ),
            Panel(
                "USD per hour saved by the cache, by team",
                "currencyUSD",
                [(_top(_hourly("extproc_cache_saved_usd_total", "team, mode")), "{{team}} {{mode}}")],
            ),
            Panel(
                "USD per hour saved by the prompt caches of providers (read), and spent on them (write), by team",
                "currencyUSD",
                [(_top(_hourly("extproc_prompt_cache_usd_total", "team, kind")), "{{team}} {{kind}}")],
            ),
            Panel(
                "Tokens per hour read from and written to the prompt caches of providers, by team",
                "short",
                [(_top(_hourly("extproc_prompt_cache_tokens_total", "team, kind")), "{{team}} {{kind}}")],
            ),
            Panel(
                "Answers per hour without a price",
                "short",
                [(_hourly("extproc_cost_unknown_total", "provider, model"), "{{provider}} {{model}}")],
            ),
            Panel("Source of usage", "reqps", [(_rate("extproc_usage_total", "source"), "{{source}}")]),
        ),
    ),
    "gateway": (
        "AI gateway: health",
        (
            Panel(
                "Lag of the event loop",
                "s",
                [("max by (instance) (extproc_event_loop_lag_seconds)", "{{instance}}")],
            ),
            Panel(
                "Exchanges in flight", "short", [("sum by (instance) (extproc_exchanges_in_flight)", "{{instance}}")]
            ),
            Panel(
                "Bytes of request bodies in flight",
                "bytes",
                [("sum by (instance) (extproc_body_bytes_in_flight)", "{{instance}}")],
            ),
            Panel(
                "Refused at the admin API, and broken calls at the processor's socket",
                "reqps",
                [
                    (_rate("extproc_admin_refused_total", "reason"), "admin: {{reason}}"),
                    (_rate("extproc_peer_faults_total", "kind"), "socket: {{kind}}"),
                ],
            ),
            Panel("CPU cores", "short", [(_rate("process_cpu_seconds_total", "instance"), "{{instance}}")]),
            Panel("Memory", "bytes", [("sum by (instance) (process_resident_memory_bytes)", "{{instance}}")]),
            Panel(
                "gRPC streams of Envoy, and tasks",
                "short",
                [
                    ("sum by (instance) (extproc_grpc_streams)", "{{instance}}"),
                    ("sum by (instance) (extproc_tasks)", "tasks {{instance}}"),
                ],
            ),
            Panel("Time in stages, p95", "s", _quantiles("extproc_stage_seconds", "stage")[1:]),
            Panel("Ledger: rows that wait", "short", [("sum by (instance) (extproc_ledger_queued)", "{{instance}}")]),
            Panel(
                "Ledger: rows and failed commits per second",
                "short",
                [
                    (_rate("extproc_ledger_rows_total", "outcome"), "{{outcome}}"),
                    ("sum(rate(extproc_ledger_failures_total[$__rate_interval]))", "failed commits"),
                ],
            ),
            Panel(
                "Lost counters and expired leases per hour",
                "short",
                [
                    ("sum(rate(extproc_store_losses_total[$__rate_interval])) * 3600", "counters lost"),
                    (_hourly("extproc_leases_expired_total", "forwarded"), "lease expired, forwarded: {{forwarded}}"),
                ],
            ),
            Panel(
                "Settings: stale, and changes per hour",
                "short",
                [
                    ("max by (instance) (extproc_settings_stale)", "stale: {{instance}}"),
                    (_hourly("extproc_reloads_total", "outcome"), "{{outcome}}"),
                ],
            ),
            Panel(
                "Time until the listener's certificate ends",
                "s",
                [("min by (instance) (extproc_listener_certificate_not_after_seconds) - time()", "{{instance}}")],
            ),
            Panel(
                "Internal errors and lost log lines per hour",
                "short",
                [
                    (_hourly("extproc_internal_errors_total", "where"), "bug in {{where}}"),
                    ("sum(rate(extproc_log_lines_lost_total[$__rate_interval])) * 3600", "log lines lost"),
                ],
            ),
            Panel(
                "Findings of guardrails",
                "reqps",
                [(_rate("extproc_guardrail_findings_total", "guardrail, action"), "{{guardrail}} {{action}}")],
            ),
            Panel(
                "Failures of guardrails",
                "reqps",
                [(_rate("extproc_guardrail_failures_total", "guardrail, reason"), "{{guardrail}} {{reason}}")],
            ),
            Panel("Duration of guardrail services", "s", _quantiles("extproc_guardrail_call_seconds", "guardrail")),
            Panel("Cache of answers", "reqps", [(_rate("extproc_cache_total", "outcome"), "{{outcome}}")]),
            Panel(
                "Requests that Envoy ended",
                "reqps",
                [(_rate("extproc_downstream_ends_total", "reason"), "{{reason}}")],
                "Neither the processor nor a provider answered them to the end.",
            ),
        ),
    ),
    "tools": (
        "AI gateway: tools",
        (
            Panel(
                "Calls by server",
                "reqps",
                [(_rate(f"{_CALLS}_count", "mcp_server", _ONLY_CALLS), "{{mcp_server}}")],
                "Calls of tools through the MCP gateway.",
            ),
            Panel(
                "Calls by tool",
                "reqps",
                [(_top(_rate(f"{_CALLS}_count", "gen_ai_tool_name", _ONLY_CALLS)), "{{gen_ai_tool_name}}")],
            ),
            Panel(
                "Errors and refusals",
                "reqps",
                [(_rate(f"{_CALLS}_count", "error_type", '{error_type!=""}'), "{{error_type}}")],
            ),
            Panel("Duration by server", "s", _quantiles(_CALLS, "mcp_server")),
            Panel("Duration at servers", "s", _quantiles("mcp_client_operation_duration_seconds", "mcp_server")),
            Panel(
                "Share of failed requests by server",
                "percentunit",
                [("extproc:tool_server_failures:ratio_rate5m", "{{mcp_server}}")],
                "Calls, and the gateway's own looks at the definitions.",
            ),
            Panel(
                "Definitions by state",
                "short",
                [("max by (mcp_server, state) (extproc_mcp_tools)", "{{mcp_server}} {{state}}")],
                "Tools that are `changed` wait for `extproc mcp pin`.",
            ),
            Panel(
                "Changed definitions per hour",
                "short",
                [(_hourly("extproc_mcp_tool_changes_total", "mcp_server"), "{{mcp_server}}")],
            ),
            Panel(
                "Calls that need a person's approval, per hour",
                "short",
                [(_hourly("extproc_mcp_approvals_total", "mcp_server, outcome"), "{{mcp_server}} {{outcome}}")],
            ),
        ),
    ),
}
"""By name of the file: title and panels."""


def files() -> dict[Path, str]:
    """The text of each file."""
    return {
        FOLDER / f"{name}.json": json.dumps(_dashboard(name, title, panels), indent=1) + "\n"
        for name, (title, panels) in DASHBOARDS.items()
    }


def _dashboard(name: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return {
        "uid": f"extproc-{name}",
        "title": title,
        "tags": ["extproc"],
        "schemaVersion": 36,
        "editable": True,
        "graphTooltip": 1,  # a shared crosshair
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source]},
        "links": [{"type": "dashboards", "title": "AI gateway", "tags": ["extproc"], "keepTime": True}],
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    a_row = _COLUMNS // _WIDTH
    place = {"x": number % a_row * _WIDTH, "y": number // a_row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "gridPos": place,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for index, (expr, legend) in enumerate(panel.queries)
        ],
    }


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
