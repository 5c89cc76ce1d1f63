"""The servers of `bench.vllm`, and the gateway's choice beside others over them."""

from __future__ import annotations

import random

from bench.pools import Simulation, capacity
from bench.vllm import BLOCK, CHARACTERS, Engine, Work, hashes
from extproc.routing.pools import servers


def work(text: str, output: int = 3) -> Work:
    blocks = hashes(text)
    return Work(len(text) // CHARACTERS, output, blocks, blocks)


def run(engine: Engine) -> list[Work]:
    done: list[Work] = []
    while (step := engine.step()) is not None:
        assert step.seconds > 0
        done += step.done
    return done


def test_a_prompt_is_computed_once_and_found_again_until_it_is_evicted():
    engine, size = Engine(blocks=40), BLOCK * CHARACTERS
    one, other = work("a" * 20 * size), work("b" * 30 * size)
    engine.add(one)
    run(engine)
    assert (engine.queries, engine.hits) == (20 * BLOCK, 0)
    engine.add(again := work("a" * 20 * size))
    run(engine)
    assert again.cached == 19 * BLOCK, "the last token is always computed"
    engine.add(other)  # needs most of the cache
    run(engine)
    engine.add(last := work("a" * 20 * size))
    run(engine)
    assert last.cached < 19 * BLOCK
    report = servers.read(engine.metrics().encode(), "vllm")
    assert (report.waiting, report.running, report.kv_cache) == (0, 0, 0)
    assert report.prefix_queries == engine.queries


def test_blocks_are_never_lost_and_every_request_ends():
    draw = random.Random(5)
    for blocks in (20, 64, 400):
        engine = Engine(blocks=blocks, batch=256)
        texts = [str(draw.randrange(4)) * draw.randrange(64, 64 * 12) for _ in range(80)]
        expected = [work(text, draw.randrange(1, 60)) for text in texts]
        for each in expected:
            engine.add(each)
            if draw.random() < 0.5:
                engine.step()
        run(engine)
        assert not engine.running
        assert not engine.waiting
        assert engine.usage == 0
    assert Engine(blocks=20).step() is None


def test_the_gateway_finds_prefixes_and_has_a_third_of_round_robins_late_first_tokens():
    rate = 0.8 * capacity("gateway", "agents", 4, {}, seconds=40) / 15
    found = {policy: Simulation(policy, "agents", 4, {}).run(rate, 80) for policy in ("round robin", "gateway")}
    assert found["gateway"].hits >= 0.9 * found["gateway"].could
    assert found["gateway"].late <= found["round robin"].late / 3


def test_without_shared_prefixes_the_gateway_is_about_as_good_as_least_request():
    least, own = (Simulation(policy, "unique", 8, {}).run(27.0, 100) for policy in ("least request", "gateway"))
    assert own.late <= 1.25 * least.late, "a short run; `python -m bench.pools` measures long ones"
