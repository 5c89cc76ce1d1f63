"""Where the CPU of a plain request, and of an event, goes, step by step: `python -m bench.steps`.

From Envoy alone to the whole gateway, each arm adds one thing to the one before. They take turns in one run: the
difference of two lines is the cost of that thing. The processor of the arms in the middle answers with the bytes of the
real one, but looks at nothing (`bench.noop --answers`). Below the table are the stages inside the processor, and what
one more event of a stream costs: the difference of long and short streams, without the request around them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.__main__ import IN_FLIGHT, QUICK, Plan, cpu_of, drive, pin, plain, rounds
from bench.arms import BESIDE, SETTINGS, Arm, Stage, staged
from bench.core import conversation
from bench.harness import KEY, free_port, render
from bench.load import request

BARE = (
    SETTINGS.partition("budgets:")[0]
    + """
stores: {{counters: "{counters}", ledger: "memory:"}}
telemetry: {{access_log: "off"}}
{more}
"""
)
"""No budget, and no ledger on disk."""

Tree = dict[str, Any]


def _managers(tree: Tree) -> list[Tree]:
    """The HTTP connection managers: of the public listener, and of each provider's internal listener."""
    listeners = tree["static_resources"]["listeners"]
    return [listener["filter_chains"][0]["filters"][0]["typed_config"] for listener in listeners]


def _without_logs(tree: Tree) -> None:
    for manager in _managers(tree):
        manager.pop("access_log", None)


def _without_processor(tree: Tree) -> None:
    _without_logs(tree)
    for manager in _managers(tree):
        manager["http_filters"] = [each for each in manager["http_filters"] if "ext_proc" not in each["name"]]
        for host in manager["route_config"]["virtual_hosts"]:
            for entry in (host, *host["routes"]):
                entry.pop("typed_per_filter_config", None)


def _routed_to(cluster: str) -> Callable[[Tree], None]:
    """No processor: every route leads to one cluster."""

    def change(tree: Tree) -> None:
        _without_processor(tree)
        for host in _managers(tree)[0]["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                if "route" in route:
                    route["route"].pop("inline_cluster_specifier_plugin", None)
                    route["route"].pop("retry_policy", None)
                    route["route"]["cluster"] = cluster

    return change


def _answers(settings: Path) -> dict[str, list[str]]:
    """What the real processor answers to each message of a plain request, by phase, in base64."""
    from extproc.envoy.server.wire import converse
    from extproc.exchange import pipeline
    from extproc.exchange.gateway import GatewayStream
    from extproc.exchange.services import Services
    from extproc.operate.telemetry.metrics import Telemetry
    from extproc.settings import config
    from extproc.stores import open_counters
    from extproc.wire.pb import extproc_pb2 as pb

    loaded = config.load(settings)

    async def talk() -> dict[str, list[str]]:
        services = Services(open_counters("memory:"), Telemetry(loaded))
        stream = GatewayStream(pipeline.build(loaded, services))
        found = {}
        for data in conversation():
            phase = pb.ProcessingRequest.FromString(data).WhichOneof("request")
            found[phase] = [base64.b64encode(answer).decode() for answer in await converse(stream, data)]
        await stream.on_end()
        del found["response_body"]  # the processor gives back what it gets
        return found

    return asyncio.run(talk())


def without(stage: Stage, name: str, change: Callable[[Tree], None], canned: bool) -> Arm:
    """An arm with the Envoy configuration of the whole gateway, changed, and a processor that only answers, or none."""
    folder = stage.folder / str(free_port())
    folder.mkdir()
    listener, socket = free_port(), folder / "extproc.sock"
    file, rendered = folder / "gateway.yaml", folder / "envoy.yaml"
    ports = {name: free_port() for name in ("status", "admin")}
    filled = {"listener": listener, "stub": stage.stub, "dir": folder, "processor": "", "more": "", **ports}
    file.write_text(SETTINGS.format(counters="memory:", **filled))
    render(file, str(rendered), str(folder / "secrets"), str(socket))
    tree = yaml.safe_load(rendered.read_text())
    change(tree)
    rendered.write_text(yaml.safe_dump(tree))
    roots = {}
    if canned:
        recorded = folder / "answers.json"
        recorded.write_text(json.dumps(_answers(file)))
        command = [sys.executable, "-m", "bench.noop", "--transport", "native", "--socket", str(socket)]
        roots["processor"] = stage.spawn([*command, "--answers", str(recorded)])
    roots["Envoy"] = stage.envoy(rendered)
    return stage.ready(Arm(name, listener, roots))


def arms_of(stage: Stage) -> Sequence[Arm]:
    return (
        stage.envoy_alone(),
        without(stage, "this listener, to the provider", _routed_to("provider-stub"), canned=False),
        without(stage, "+ the internal hop", _routed_to("try-stub"), canned=False),
        without(stage, "+ ext_proc, constant answers", _without_logs, canned=True),
        without(stage, "+ the log of each try", lambda _tree: None, canned=True),
        stage.gateway("+ the processor, without budgets and ledger", settings=BARE),
        stage.gateway("+ a budget, the ledger"),
    )


def stages(arm: Arm) -> dict[str, float]:
    """Microseconds of each stage for one request, by the processor's own clocks, the dearest first."""
    with urllib.request.urlopen(arm.status, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, dict[str, float]] = {"sum": {}, "count": {}}
    for kind, stage, value in re.findall(
        r'^extproc_stage_seconds_(sum|count)\{stage="(\w+)"\} (\S+)$', text, re.MULTILINE
    ):
        found[kind][stage] = float(value)
    micros = {stage: found["sum"][stage] / count * 1e6 for stage, count in found["count"].items() if count}
    return dict(sorted(micros.items(), key=lambda each: -each[1]))


def event_arms_of(stage: Stage) -> Sequence[Arm]:
    return (
        stage.envoy_alone(),
        without(stage, "+ this listener and the internal hop", _routed_to("try-stub"), canned=False),
        stage.gateway("the gateway, answers are read"),
    )


SHORT, LONG = 20, 140
"""Events with text in a stream."""


def one_more(arm: Arm, plan: Plan) -> dict[str, float]:
    """CPU of one more event, by process, in µs: streams with an event every 20 ms, long ones less short ones."""
    found, counts = [], []
    for words in (SHORT, LONG):
        message = request(f"stub+pace=20ms+words={words}", stream=True, words=words, usage=True)
        used, result = cpu_of(arm, message, total=plan.streams, concurrency=plan.streams)
        found.append(used)
        counts.append(result.events)
    more = max(1, counts[1] - counts[0])
    return {f"event {name}": (found[1][name] - found[0][name]) / more for name in arm.roots}


def tell_events(arms: Sequence[Arm]) -> None:
    print("\n| CPU of one more event, 20 ms apart, µs | Envoy | processor | sum |\n|---|---|---|---|")
    for arm in arms:
        envoy, processor = (arm.figures.get(f"event {name}", 0.0) for name in ("Envoy", "processor"))
        print(f"| {arm.name} | {envoy:.1f} | {processor:.1f} | {envoy + processor:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    plan = QUICK if parser.parse_args().quick else Plan()
    os.environ["BENCH_KEY"] = KEY
    pin(BESIDE)
    with tempfile.TemporaryDirectory(prefix="bench-steps-") as folder, staged(Path(folder)) as stage:
        arms = arms_of(stage)
        for arm in arms:
            drive(arm, request("stub"), total=max(plan.requests // 4, 200), concurrency=IN_FLIGHT)  # warm up
        rounds(arms, plan, plain, plan.rounds)
        print("| CPU of a plain request, 64 in flight, µs | Envoy | processor | sum | more |\n|---|---|---|---|---|")
        before = 0.0
        for arm in arms:
            envoy, processor = (arm.figures.get(f"plain {name}", 0.0) for name in ("Envoy", "processor"))
            more = envoy + processor - before
            print(f"| {arm.name} | {envoy:.0f} | {processor:.0f} | {envoy + processor:.0f} | {more:+.0f} |")
            before = envoy + processor
        told = stages(arms[-1])
        dear = [f"{stage} {micros:.0f}" for stage, micros in told.items() if micros >= 1]
        print(f"\nIts stages, wall clock, µs: {sum(told.values()):.0f} in all: {', '.join(dear)}")
        _check(arms)
    with tempfile.TemporaryDirectory(prefix="bench-steps-") as folder, staged(Path(folder)) as stage:
        arms = event_arms_of(stage)
        rounds(arms, plan, one_more, plan.rounds)
        tell_events(arms)
        _check(arms)


def _check(arms: Sequence[Arm]) -> None:
    if failed := {arm.name: arm.errors for arm in arms if arm.errors}:
        raise SystemExit(f"requests failed: {failed}")


if __name__ == "__main__":
    main()
