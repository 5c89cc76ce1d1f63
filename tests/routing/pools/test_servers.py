"""Pages of metrics as servers write them."""

import pytest

from extproc.routing.pools.endpoint import Report
from extproc.routing.pools.servers import TABLES, read

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {b} \\"c\\""} 8.0
vllm:num_requests_running{engine="1",model_name="a"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a"} 0.75
vllm:prefix_cache_queries_total{engine="0"} 5.0e+03
vllm:prefix_cache_queries_created{engine="0"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0"} 4000
vllm:lora_requests_info{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""} 1.70e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="sql, fr",waiting_lora_adapters="de"} 1.71e+09
"""
SGLANG = b"""sglang:num_queue_reqs{model_name="m"} 2.0
sglang:num_running_reqs{model_name="m"} 5.0
sglang:token_usage{model_name="m"} 0.28
sglang:prompt_tokens_total{model_name="m"} 8.1e+06
sglang:cached_tokens_total{model_name="m",cache_source="device"} 1000
sglang:cached_tokens_total{model_name="m",cache_source="host"} 24
"""
TRITON = b"""nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 4
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 6
nv_trt_llm_request_metrics{model="m",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.5
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m",version="1"} 6239
"""


@pytest.mark.parametrize(
    ("server", "page", "report"),
    [
        ("vllm", VLLM, Report(3.0, 10.0, 0.75, 5000.0, 4000.0, frozenset(["sql", "fr", "de"]))),
        ("sglang", SGLANG, Report(2.0, 5.0, 0.28, 8.1e6, 1024.0)),
        ("tgi", b"tgi_queue_size 7\ntgi_batch_current_size 3\n", Report(7.0, 3.0)),
        ("triton", TRITON, Report(4.0, 6.0, 0.5)),
        ("vllm", b"vllm:gpu_cache_usage_perc 0.5\n", Report(kv_cache=0.5)),
    ],
)
def test_a_server_s_page_is_read(server, page, report):
    found = read(page, server)
    report.absent = found.absent
    assert found == report
    assert all(getattr(found, field) is None for field in found.absent)


@pytest.mark.parametrize("server", TABLES)
@pytest.mark.parametrize(
    "page", [b"", b"\xff\xfe{{{", b"<html>", b"vllm:num_requests_waiting NaN\ntgi_queue_size +Inf\n"]
)
def test_a_page_without_samples_tells_nothing_and_names_what_it_lacks(server, page):
    assert read(page, server) == Report(absent=tuple(TABLES[server]))
