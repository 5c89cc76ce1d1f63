"""Structs from several threads, the first time."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import msgspec
import pytest

from extproc.wire.framing import shapes


class Inner(msgspec.Struct):
    number: int


class Outer(msgspec.Struct):
    inner: Inner
    name: str = ""


def test_json_becomes_a_struct():
    assert shapes.convert({"inner": {"number": 1}}, Outer) == Outer(Inner(1))
    assert shapes.convert({"number": "1"}, Inner, strict=False) == Inner(1)
    assert shapes.convert({"number": 1}, Inner | None) == Inner(1)
    assert shapes.decode(b'{"inner": {"number": 1}, "name": "a"}', Outer) == Outer(Inner(1), "a")
    with pytest.raises(msgspec.ValidationError, match=r"\$\.inner\.number"):
        shapes.convert({"inner": {"number": "1"}}, Outer)


THREADS = """
import sys, threading
import msgspec
from extproc.wire.framing import shapes

sys.setswitchinterval(1e-6)
fields = "".join(f"    f{number}: list[Inner] | None = None\\n" for number in range(40))
numbers = "".join(f"    n{number}: int | None = None\\n" for number in range(40))
for _ in range(100):
    made = {}
    exec(f"from msgspec import Struct\\nclass Inner(Struct):\\n{numbers}class Outer(Struct):\\n{fields}", made)
    begin, found = threading.Barrier(4), []

    def work():
        begin.wait()
        found.append(CONVERT({f"f{number}": [{"n1": 1}] for number in range(40)}, made["Outer"]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
"""


def test_threads_may_use_a_class_first_at_the_same_time():
    """With `msgspec.convert` this program is ended by a segmentation fault."""
    program = textwrap.dedent(THREADS).replace("CONVERT", "shapes.convert")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
