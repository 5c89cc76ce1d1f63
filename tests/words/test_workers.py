from __future__ import annotations

import pytest

from extproc.words import workers


@pytest.mark.parametrize(
    ("path", "outer", "inner"),
    [
        ("/run/extproc/extproc.sock", "/run/extproc/extproc-3.sock", "/run/extproc/extproc-3.w"),
        ("relative", "relative-3", "relative-3.w"),
        ("/a.b/c.d.sock", "/a.b/c.d-3.sock", "/a.b/c.d-3.w"),
    ],
)
def test_sockets_of_workers(path, outer, inner):
    assert (workers.socket(path, 3), workers.inner_socket(path, 3)) == (outer, inner)


def test_marks_are_of_one_length_and_all_different():
    marks = {workers.mark(number) for number in range(workers.MOST)}
    assert len(marks) == workers.MOST
    assert {len(mark) for mark in marks} == {2}
    assert workers.mark(63) == "3f"


def test_the_longest_path_still_fits_a_unix_socket():
    path = "/" + "x" * 94 + ".sock"  # 100 bytes, the most that `processor.socket` may have
    last = workers.MOST - 1
    assert max(len(workers.socket(path, last)), len(workers.inner_socket(path, last))) <= 107
