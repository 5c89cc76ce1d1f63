from __future__ import annotations

import pytest

from extproc.wire.transport import workers


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


def test_the_number_of_cores_keeps_to_the_limit_of_the_control_group(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(6)))
    for files, wanted in (
        ({}, 6),
        ({"cpu.max": "max 100000\n"}, 6),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "odd"}, 6),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
    ):
        group = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            (group / name).parent.mkdir(parents=True, exist_ok=True)
            (group / name).write_text(text)
        assert workers.cores(group) == wanted, files


def test_the_usual_number_is_that_of_the_environment(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 5)
    monkeypatch.delenv(workers.VARIABLE, raising=False)
    assert [workers.usual(), workers.read("auto"), workers.read(2)] == [1, 5, 2]
    for value, usual in (("auto", 5), ("3", 3), ("", 1)):
        monkeypatch.setenv(workers.VARIABLE, value)
        assert workers.usual() == usual
    monkeypatch.setenv(workers.VARIABLE, "3")
    assert workers.read("auto") == 3, "as another container of the pod says"
    for value in ("0", "65", "two", "-1"):
        monkeypatch.setenv(workers.VARIABLE, value)
        with pytest.raises(ValueError, match="EXTPROC_WORKERS must be a number"):
            workers.usual()
