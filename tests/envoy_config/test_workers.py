"""Several workers in Envoy's configuration. tests/e2e/test_workers.py shows what they do."""

from __future__ import annotations

import re

import pytest

from extproc.envoy.envoy_config import attach, bootstrap
from extproc.settings.config import parse

ONE = """
providers: {openai: {kind: openai}}
models: {gpt-4o: {provider: openai}}
"""
THREE = ONE + "processor: {workers: 3, socket: /run/here/p.sock}\n"


@pytest.fixture(scope="module")
def three():
    return bootstrap(parse(THREE), secrets_dir="/secrets")


def clusters(tree):
    return {each["name"]: each for each in tree["static_resources"]["clusters"]}


def pipes(cluster):
    (locality,) = cluster["load_assignment"]["endpoints"]
    return [each["endpoint"]["address"]["pipe"]["path"] for each in locality["lb_endpoints"]]


def test_requests_go_to_the_worker_with_the_fewest_in_flight_that_is_healthy(three):
    found = clusters(three)["extproc"]
    assert pipes(found) == ["/run/here/p-0.sock", "/run/here/p-1.sock", "/run/here/p-2.sock"]
    assert found["lb_policy"] == "LEAST_REQUEST"
    (check,) = found["health_checks"]
    assert "grpc_health_check" in check
    assert (check["interval"], check["no_traffic_interval"], check["unhealthy_threshold"]) == ("1s", "1s", 2)


def test_a_stream_without_an_answer_goes_to_another_worker_when_its_own_ends(three):
    text = str(three)
    retries = re.findall(
        r"'retry_policy': \{'num_retries': 2, 'retry_on': 'connect-failure,refused-stream,reset'", text
    )
    assert len(retries) == text.count("x-extproc-attachment") == 2  # the gateway's, and that of the tries


def test_the_log_of_a_try_goes_to_the_worker_of_its_exchange(three):
    listener = next(each for each in three["static_resources"]["listeners"] if each["name"] == "try-openai")
    logs = listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"]
    assert len(logs) == 3
    for number, log in enumerate(logs):
        where = log["typed_config"]["common_config"]["grpc_service"]["envoy_grpc"]["cluster_name"]
        assert where == f"extproc-{number}"
        assert pipes(clusters(three)[where]) == [f"/run/here/p-{number}.sock"]
        only = log["filter"]["metadata_filter"]
        assert only["matcher"]["filter"] == "ai"
        assert only["matcher"]["path"] == [{"key": "id"}]
        assert only["matcher"]["value"] == {"string_match": {"prefix": f"0{number}"}}
        assert only["match_if_key_not_found"] is (number == 0)


def test_the_log_of_an_end_goes_to_the_worker_of_its_exchange(three):
    listeners = {each["name"]: each for each in three["static_resources"]["listeners"]}
    logs = listeners["public"]["filter_chains"][0]["filters"][0]["typed_config"]["access_log"]
    wheres = [log["typed_config"]["common_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] for log in logs]
    assert wheres == ["extproc-0", "extproc-1", "extproc-2"]
    for number, log in enumerate(logs):
        assert f"{{'prefix': '0{number}'}}" in str(log["filter"]["and_filter"]["filters"][1])
        assert ("'invert_match': True" in str(log["filter"])) is (number == 0)


def test_one_worker_has_one_socket_and_no_checks():
    found = clusters(bootstrap(parse(ONE), secrets_dir="/secrets"))
    assert pipes(found["extproc"]) == ["/run/extproc/extproc.sock"]
    assert not {"health_checks", "lb_policy", "common_lb_config"} & found["extproc"].keys()
    assert "extproc-0" not in found


def test_another_teams_envoy_spreads_over_the_workers_too():
    assert all(f"/run/here/p-{number}.sock" in attach(parse(THREE)) for number in range(3))
