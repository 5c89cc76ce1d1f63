"""Objects at providers whose usage is known later than the answer that told of them: batches, and responses in the
background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.words.dialect import Report


@dataclass(slots=True, frozen=True)
class Progress:
    """The state of such an object."""

    ended: bool
    answered: int | None = None  # requests that were answered, and are billed; None: the object does not say
    report: Report | None = None  # of all of them together, where the object tells their usage
    results: Sequence[str] = ()  # paths of files that have a line for each request


@dataclass(slots=True, frozen=True)
class Late:
    """The way to learn the usage of such objects of one API. The functions never raise."""

    path: str  # path of the object, as `Endpoints.calls` has it
    progress: Callable[[bytes], Progress | None]  # reads the object; None: it cannot be read
    # reads a line of a file of results; None: its request was not answered, and costs nothing
    line: Callable[[bytes], Report | None] | None = None
