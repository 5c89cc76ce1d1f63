"""Names of the metrics that tell a server's load, a table for each server, and the reading of a `/metrics` page.

Sources:
    vllm    docs.vllm.ai/en/latest/usage/metrics.html, names of 0.8 to 0.11; the `gpu_` names are of the V0 engine
    sglang  docs.sglang.io/docs/references/production_metrics.md, names of 0.4 and 0.5, with --enable-metrics
    tgi     huggingface.co/docs/text-generation-inference/reference/metrics, names of 2 and 3
    triton  github.com/triton-inference-server/tensorrtllm_backend, docs/metrics, names of 24.05 on
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from extproc.routing.pools.endpoint import Report

MOST_PAGE = 4 << 20
"""Most bytes of a page of metrics."""
_MOST_ADAPTERS = 1000


@dataclass(slots=True, frozen=True)
class Metric:
    """A metric, by its names in several versions. `label` is a label's name and value, where one metric has several
    meanings.
    """

    names: tuple[str, ...]
    label: tuple[str, str] | None = None


TABLES: Mapping[str, Mapping[str, Metric]] = {
    "vllm": {
        "waiting": Metric(("vllm:num_requests_waiting",)),
        "running": Metric(("vllm:num_requests_running",)),
        "kv_cache": Metric(("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
        "prefix_queries": Metric(("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries")),
        "prefix_hits": Metric(("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits")),
        "adapters": Metric(("vllm:lora_requests_info",)),
    },
    "sglang": {
        "waiting": Metric(("sglang:num_queue_reqs",)),
        "running": Metric(("sglang:num_running_reqs",)),
        "kv_cache": Metric(("sglang:token_usage",)),
        "prefix_queries": Metric(("sglang:prompt_tokens",)),
        "prefix_hits": Metric(("sglang:cached_tokens",)),
    },
    "tgi": {"waiting": Metric(("tgi_queue_size",)), "running": Metric(("tgi_batch_current_size",))},
    "triton": {
        "waiting": Metric(("nv_trt_llm_request_metrics",), ("request_type", "waiting")),
        "running": Metric(("nv_trt_llm_request_metrics",), ("request_type", "scheduled")),
        "kv_cache": Metric(("nv_trt_llm_kv_cache_block_metrics",), ("kv_cache_block_type", "fraction")),
    },
}
"""Metrics by the field of `Report` that they fill. Counters also have the suffix `_total`."""

_ADAPTERS = ("running_lora_adapters", "waiting_lora_adapters")
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*+)"')


def read(page: bytes, server: str) -> Report:
    """The load on a page in Prometheus's text format. Series of several engines in one server are added up; of a share
    the highest counts. Lines that are no samples are passed over.
    """
    samples: dict[str, list[tuple[str, float]]] = {}
    for name, labels, value in _pattern(server).findall(page):
        try:
            number = float(value)
        except ValueError:
            continue
        if math.isfinite(number):
            found = samples.setdefault(name.decode().removesuffix("_total"), [])
            found.append((labels.decode("utf-8", "replace"), number))
    report = Report()
    absent = []
    for field, metric in TABLES[server].items():
        series = next((samples[name] for name in metric.names if name in samples), [])
        if metric.label is not None:
            series = [each for each in series if metric.label in _LABEL.findall(each[0])]
        if not series:
            absent.append(field)
        elif field == "adapters":
            report.adapters = _adapters(series)
        else:
            values = [value for _, value in series]
            setattr(report, field, max(values) if field == "kv_cache" else sum(values))
    report.absent = tuple(absent)
    return report


def _adapters(series: Sequence[tuple[str, float]]) -> frozenset[str]:
    """Adapters in the latest series of vLLM's gauge, whose value is the time of the change."""
    labels = dict(_LABEL.findall(max(series, key=lambda each: each[1])[0]))
    names = ",".join(labels.get(name, "") for name in _ADAPTERS).split(",")
    return frozenset([name.strip() for name in names if name.strip()][:_MOST_ADAPTERS])


@cache
def _pattern(server: str) -> re.Pattern[bytes]:
    """Matches the samples of a server's table: name, labels, value."""
    names = "|".join(re.escape(name) for metric in TABLES[server].values() for name in metric.names)
    labels = r'(\{(?:[^"}]|"(?:[^"\\]|\\.)*+")*+\})?'
    return re.compile(rf"^((?:{names})(?:_total)?){labels}[ \t]+(\S+)".encode(), re.MULTILINE)
