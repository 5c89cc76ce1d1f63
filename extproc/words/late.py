"""Objects at providers whose usage is known later than their first answer: batches, and background responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.words.dialect import Report


@dataclass(slots=True, frozen=True)
class Progress:
    """State of an object whose usage is known later."""

    ended: bool
    answered: int | None = None  # count of answered requests, which are billed; None: the object does not say
    report: Report | None = None  # usage over all requests, if the object has it
    reports: Sequence[Report] = ()  # usage of each answered request, if the object has its results in it
    results: Sequence[str] = ()  # paths of result files with a line for each request


@dataclass(slots=True, frozen=True)
class Late:
    """Reads objects whose usage is known later, in one API. The functions never raise."""

    path: str  # path of the object, as `Endpoints.calls` has it
    progress: Callable[[bytes], Progress | None]  # reads the object; None: unreadable
    # Reads a line of a result file. None: its request got no answer, and costs nothing.
    line: Callable[[bytes], Report | None] | None = None
    inside: bool = False  # True: the object has its results in it, and can be large
