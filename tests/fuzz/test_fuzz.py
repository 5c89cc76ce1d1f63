"""Arbitrary inputs for everything that reads bytes of clients, providers and Envoy, see `targets`.

The usual run takes 400 inputs of each target and the corpus: inputs that once found something. `make fuzz` takes
200,000 of each and prints how many of them were distinct.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.fuzz.edits import PROGRAMS, STEPS
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
PARTS = 8
INPUTS = 200_000
each = pytest.mark.parametrize("name", TARGETS)


def run(name: str, examples: int, found: set[int]) -> int:
    """Run a target. Returns the number of inputs; the hashes of the inputs go into `found`."""
    target, count = TARGETS[name], 0

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=(Phase.generate, Phase.shrink),
    )
    @given(st.integers(0, 1 << 16), PROGRAMS)
    def of(number: int, program: bytes) -> None:
        nonlocal count
        for data in target.inputs(number, program):
            count += 1
            found.add(hash(data))
            try:
                target.run(data)
            except Exception:
                note(f"for tests/fuzz/corpus/{name}: {data!r}")
                raise

    of()
    return count


@each
def test_a_sample_of_inputs_breaks_nothing(name: str) -> None:
    assert run(name, 20, set()) >= 20 * STEPS


@pytest.mark.exhaustive
@each
@pytest.mark.parametrize("part", range(PARTS))
def test_200_000_inputs_break_nothing(name: str, part: int) -> None:
    found: set[int] = set()
    count = run(name, INPUTS // PARTS // STEPS, found)
    sys.stdout.write(f"{name}, part {part + 1} of {PARTS}: {count} inputs, {len(found)} of them distinct\n")
    assert count >= INPUTS // PARTS


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*/*")), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_inputs_that_found_something_break_nothing(file: Path) -> None:
    TARGETS[file.parent.name].run(file.read_bytes())


@each
def test_the_seeds_break_nothing(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


def test_each_corpus_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
