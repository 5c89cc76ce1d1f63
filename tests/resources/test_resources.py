"""Envoy's resources in a file, and the names of tries from one configuration to the next."""

import dataclasses

from extproc.envoy import resources
from extproc.envoy.resources import Made, place
from extproc.envoy.resources.plain import plain

MADE = Made("digest", "text", {"a": "try-a"}, {"a": "1"}, {}, {"try-a": b""}, {}, {})


def test_resources_come_back_from_their_file(tmp_path):
    path = resources.file(tmp_path)
    assert resources.read(path) is None
    resources.write(path, MADE)
    assert resources.read(path) == MADE
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(b'{"digest": 1}')
    assert resources.read(path) is None, "of another release"


def test_an_equal_try_keeps_its_name_and_a_changed_one_gets_another():
    assert place("a", "1", None) == place("a", "1", MADE) == "try-a"
    assert place("a", "2", MADE) == "try-a~2"
    assert place("b", "2", MADE) == "try-b"


def test_types_imported_without_validators_are_dataclasses():
    with plain():
        from pydantic.dataclasses import dataclass

        kind = dataclass(type("Kind", (), {"__annotations__": {"size": int}}))
    assert dataclasses.is_dataclass(kind)
    assert kind("no number").size == "no number"
