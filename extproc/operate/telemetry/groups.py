"""The metrics of the gateway, declared by group: each is a table of docs/telemetry.md. `make docs` writes its rows.

Names and units follow the OpenTelemetry semantic conventions for generative AI, in Prometheus form
(https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-metrics.md). Metrics that the
conventions renamed are in `conventions`.
"""

from __future__ import annotations

from extproc.operate.telemetry.conventions import DURATION, FIRST_TOKEN, OPERATION, Earlier, Latest
from extproc.operate.telemetry.declared import SPENDER, Group, counter, counts, declared, gauge, histogram, scraped

_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
_RATIO = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 25.0)
_TOOLS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)

TIMED = 16
"""One exchange in this many has its stages timed, because 27 clocks and histograms cost 10 µs."""


class Requests(Group):
    heading = "metric of requests"

    _duration = histogram(
        "gen_ai_server_request_duration_seconds",
        "From the request's headers to the end of the answer.",
        *OPERATION,
        bounds=DURATION,
    )
    _first_token = histogram(
        "gen_ai_server_time_to_first_token_seconds",
        "From the request's headers to the first text of a streamed answer.",
        *OPERATION,
        bounds=FIRST_TOKEN,
    )
    _per_token = histogram(
        "gen_ai_server_time_per_output_token_seconds",
        "Between the pieces of a streamed answer, for each token after the first.",
        *OPERATION,
        bounds=_PER_TOKEN,
    )


class Consumers(Group):
    heading = "metric by consumer"

    _consumer_requests = counts(
        "extproc_consumer_requests_total",
        "Exchanges, refused ones too, by class of `status` (`2xx`, `4xx`, …).",
        *SPENDER,
        "status",
    )
    _consumer_tokens = counts(
        "extproc_consumer_tokens_total", "Tokens, by `gen_ai_token_type`.", *SPENDER, "gen_ai_token_type"
    )
    _consumer_cost = counts("extproc_consumer_cost_usd_total", "USD.", *SPENDER)


class ToolMetrics(Group):
    """Names follow the OpenTelemetry semantic conventions for MCP, in development
    (https://opentelemetry.io/docs/specs/semconv/gen-ai/mcp/). In their names `server` is this gateway towards clients,
    and `client` is this gateway towards servers.
    """

    heading = "metric of the MCP gateway"

    _served = histogram(
        "mcp_server_operation_duration_seconds",
        "From a client's message to the end of its answer, by method, tool, `error_type` (a code, `tool_error`, or the "
        "server's code of JSON-RPC), revision, profile and server.",
        *("mcp_method_name", "gen_ai_operation_name", "gen_ai_tool_name", "error_type", "rpc_response_status_code"),
        *("mcp_protocol_version", "network_transport", "profile", "mcp_server"),
        bounds=_TOOLS,
    )
    _asked = histogram(
        "mcp_client_operation_duration_seconds",
        "From a request to a server to the end of its answer, by server and outcome.",
        *("mcp_server", "error_type", "network_transport"),
        bounds=_TOOLS,
    )
    tool_definitions = scraped(
        "extproc_mcp_tools",
        "Definitions of tools by server and state: `listed`, `disabled`, `changed`, `withheld`. See "
        "[tool-policy.md](tool-policy.md).",
        "mcp_server",
        "state",
    )
    _tool_approvals = counter(
        "extproc_mcp_approvals_total",
        "Calls of tools that need a person's approval: `asked`, `pending` (asked before), `approved`, `denied`, "
        "`changed` (approved, and no longer the same).",
        *("mcp_server", "outcome"),
    )
    _tool_changes = counter(
        "extproc_mcp_tool_changes_total", "Definitions that differ from their pins, or have none.", "mcp_server"
    )


class GatewayMetrics(Group):
    heading = "metric of the gateway"

    _requests = counts("extproc_requests_total", "Exchanges, by operation and status.", "operation", "status")
    refusal = counter(
        "extproc_refusals_total", "Requests that the gateway refused, by [code](troubleshooting.md).", "code"
    )
    reloads = counter(
        "extproc_reloads_total",
        "Changes of the settings file: `taken`, `partial` (the rest waits for Envoy or a restart) or `refused`.",
        "outcome",
        begins=("taken", "refused"),
    )
    settings_stale = gauge(
        "extproc_settings_stale",
        "1 while the settings file differs from the settings in use. `/readyz` and the log have the reason.",
    )
    _certificate_begins = gauge(
        "extproc_listener_certificate_not_before_seconds",
        "Begin of the listener's certificate, by file, in seconds since the epoch.",
        "file",
    )
    _certificate_ends = gauge(
        "extproc_listener_certificate_not_after_seconds",
        "End of the listener's certificate, by file, in seconds since the epoch.",
        "file",
    )
    prompt_events = counter(
        "extproc_prompt_events_total", "[Prompts](#prompts) for the collector, by outcome.", "outcome"
    )
    spans = counter("extproc_spans_total", "[Spans](#traces) for the collector, by outcome.", "outcome")
    downstream_end = counter(
        "extproc_downstream_ends_total",
        "Requests whose end neither the processor nor a provider's answer explains: `client_left`, `cut` by the "
        "provider in mid-answer, `request_timeout`, `idle_timeout`, `body_too_large`, `overloaded`, or a class of "
        "status.",
        "reason",
    )
    admin_refused = counter(
        "extproc_admin_refused_total",
        "Wrong tokens at the admin API (`invalid_token`), and requests of an address that sent "
        "[too many](console.md#limits) of them (`too_many`).",
        "reason",
        begins=("invalid_token", "too_many"),
    )
    peer_fault = counter(
        "extproc_peer_faults_total",
        "Bytes to the processor that Envoy would not send: `http2` ends the connection, `message` the call. `name`: a "
        "call with a certificate that is not of `processor.tls.gateways`. No alert: look for another process that "
        "connects there.",
        "kind",
        begins=("http2", "message", "name"),
    )
    internal_error = counter(
        "extproc_internal_errors_total",
        "Bugs. The request was answered with 500.",
        "where",
        begins=("GatewayStream", "AttemptStream", "reload"),
    )
    _exchanges = gauge("extproc_exchanges_in_flight", "Exchanges that have not ended.")
    body_bytes = gauge("extproc_body_bytes_in_flight", "Bytes of the bodies of requests in flight.")
    _streams = gauge("extproc_grpc_streams", "gRPC streams of Envoy's.")
    tasks = gauge("extproc_tasks", "Tasks of the event loop.")
    _stage = histogram(
        "extproc_stage_seconds",
        f"Time in each stage of the processor, measured for one exchange in {TIMED}.",
        "stage",
        bounds=_STAGE,
    )
    loop_lag = gauge("extproc_event_loop_lag_seconds", "How late the processor's event loop was.")
    line_lost = counter(
        "extproc_log_lines_lost_total",
        "Log lines that could not be written: the disk is full, or no process reads them.",
    )


class ProviderMetrics(Group):
    heading = "metric of providers"

    _tries = counts("extproc_tries_total", "Tries, by provider, model and outcome.", *("provider", "model", "outcome"))
    _try_seconds = histogram("extproc_try_seconds", "Duration of a try.", "provider", bounds=DURATION)
    _failovers = counter("extproc_failovers_total", "Exchanges that needed more than one try.", "provider")
    _lost_seconds = counter("extproc_failed_tries_seconds_total", "Time that failed tries took.", "provider", "outcome")
    skip = counter(
        "extproc_targets_skipped_total",
        "Targets that were skipped, by [reason](failover.md#when-a-target-is-skipped).",
        "reason",
    )
    shadows = counter(
        "extproc_shadows_total",
        "[Shadow requests](shadow.md), by outcome: `answered`, `failed`, `dropped` because too many were in flight, "
        "`not_allowed` by a requirement, or without a key.",
        "outcome",
        begins=("answered", "failed", "dropped", "not_allowed"),
    )
    canaries_stopped = counter(
        "extproc_canaries_stopped_total",
        "Targets on trial that stopped because they were [worse](canary.md#stop-by-itself).",
        *("model", "target"),
    )
    pool_endpoints = scraped(
        "extproc_pool_endpoints",
        "Endpoints of a [pool](own-models.md): `ready`, `full`, or `resting` after failures.",
        *("provider", "state"),
    )
    pool_waiting = scraped("extproc_pool_waiting", "Requests that wait for room at an endpoint of a pool.", "provider")
    _credentials = counter(
        "extproc_provider_credentials_rejected_total",
        "Tries that a provider refused because of the gateway's own key.",
        "provider",
    )
    _ending = counter(
        "extproc_ending_model_requests_total",
        "Exchanges with a model that retires within `days` (60, 30 or 7), by consumer. See [policies](policies.md).",
        *("consumer", "model", "successor", "days"),
    )
    _bad_usage = counter(
        "extproc_provider_usage_refused_total",
        "Answers whose token counts cannot be believed, see [charges](charges.md#disputed-counts).",
        "provider",
    )
    credential_refreshes = counter(
        "extproc_credential_refreshes_total",
        "Providers' keys and tokens that were read or fetched, by "
        "[outcome](providers/credentials.md#how-tokens-are-kept).",
        "provider",
        "outcome",
    )


class CostMetrics(Group):
    heading = "metric of cost"

    _saved = counts(
        "extproc_cache_saved_usd_total",
        'USD that [kept answers](cache.md) had cost, by mode, consumer and team. `mode="shadow"`: that they would have '
        "saved.",
        "mode",
        *SPENDER,
    )
    _prompt_tokens = counts(
        "extproc_prompt_cache_tokens_total",
        'Input tokens that providers read from their [prompt caches](prompt-caches.md) (`kind="read"`) and wrote to '
        "them (`write`), by consumer and team.",
        *SPENDER,
        "kind",
    )
    _prompt_cost = counts(
        "extproc_prompt_cache_usd_total",
        "USD that those reads saved, and that those writes cost beyond plain input.",
        *SPENDER,
        "kind",
    )
    _cache = counts(
        "extproc_cache_total",
        "Looks into the cache of answers: `hit`, `partial`, `similar`, `shadow`, `similar_shadow`, `miss` or "
        "`refresh`.",
        "outcome",
    )
    _cost = counts("extproc_cost_usd_total", "USD, by provider and model.", "provider", "model")
    _no_price = counts("extproc_cost_unknown_total", "Exchanges whose price is unknown.", "provider", "model")
    _served_other = counts(
        "extproc_served_other_total",
        "Answers of [another model](charges.md#the-model-that-answered) than the target's, charged at its price.",
        "provider",
        "model",
    )
    _usage_source = counts(
        "extproc_usage_total",
        "Exchanges, by the source of their usage: `provider`, `estimated`, `disputed` (cut down to what is possible), "
        "`pending` (counted once more when it is known), `none`.",
        "source",
    )
    _guessed = histogram(
        "extproc_input_tokens_guessed_ratio",
        "Ratio of the estimated, and of the held, input tokens to the provider's count.",
        "provider",
        "guess",
        bounds=_RATIO,
    )


class LimitMetrics(Group):
    heading = "metric of budgets and guardrails"

    budget = counter("extproc_budget_decisions_total", "Decisions of budgets, by verdict.", "budget", "verdict")
    _budget_used = gauge(
        "extproc_budget_used_ratio",
        "The share of a budget's limit, with what is granted beyond it, that is charged in its fullest count.",
        "budget",
    )
    alert = counter(
        "extproc_budget_alerts_total",
        "Alert webhooks: `told`, `failed`, `dropped`.",
        "outcome",
        begins=("told", "failed", "dropped"),
    )
    _guardrail = counter(
        "extproc_guardrail_findings_total", "Findings of guardrails, by action.", "guardrail", "action"
    )
    _guardrail_failures = counter(
        "extproc_guardrail_failures_total",
        "Requests and answers that a guardrail could not check, by reason: `timeout`, `error`, `overload`, "
        "`unreadable`, and those of [services](guardrails/services.md#when-a-service-fails).",
        "guardrail",
        "reason",
    )
    _guardrail_calls = histogram(
        "extproc_guardrail_call_seconds",
        "Duration of calls of guardrails to services, by outcome.",
        *("guardrail", "kind", "outcome"),
        bounds=_CALLS,
    )
    lease_expired = counter(
        "extproc_leases_expired_total",
        "Reservations that were not settled, because a process died.",
        "forwarded",
        begins=("true", "false"),
    )
    texts_recorded = counter(
        "extproc_texts_recorded_total",
        "Requests drawn for [recording](record.md), by outcome: `written`, `withheld` because a guardrail found "
        "something, `dropped` because too much waited.",
        "outcome",
        begins=("written", "withheld", "dropped"),
    )
    store_losses = counter(
        "extproc_store_losses_total",
        "Times the counters were lost, for example with a Redis that was emptied or replaced.",
    )


class LedgerMetrics(Group):
    heading = "metric of the ledger"

    _ledger_rows = scraped(
        "extproc_ledger_rows_total",
        "Rows, by outcome: `written`, `dropped` because too many waited, `refused` by the database.",
        "outcome",
    )
    _ledger_failures = scraped("extproc_ledger_failures_total", "Commits that failed. Their rows wait.")
    _ledger_queued = scraped("extproc_ledger_queued", "Rows that wait.")


GROUPS = (
    Requests,
    Latest,
    Earlier,
    Consumers,
    ToolMetrics,
    GatewayMetrics,
    ProviderMetrics,
    CostMetrics,
    LimitMetrics,
    LedgerMetrics,
)

NO_PANEL = frozenset(
    (
        # Nearly equal to the duration of the request, or sums of shown metrics.
        *(f"gen_ai_client_inference_{name}" for name in ("duration_seconds", "time_to_first_chunk_seconds")),
        *(f"gen_ai_client_inference_operation_{name}_tokens" for name in ("input", "output")),
        *("gen_ai_client_embeddings_duration_seconds", "gen_ai_client_embeddings_operation_input_tokens"),
        *(one.name for one in declared(Earlier)),
        "extproc_failed_tries_seconds_total",
        "extproc_credential_refreshes_total",
        "extproc_texts_recorded_total",
        "extproc_shadows_total",
        *("extproc_prompt_events_total", "extproc_spans_total"),  # few gateways export prompts or traces
        "extproc_provider_usage_refused_total",
        "extproc_input_tokens_guessed_ratio",
    )
)
"""Metrics without a panel or an alert. Every other metric has a panel."""
