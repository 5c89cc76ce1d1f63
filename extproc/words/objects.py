"""Places of an API where ids of objects stand that a provider keeps: responses, files, containers, caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


def _never(item: Mapping[str, Any], resolved: bool) -> bool:  # noqa: ARG001
    return False


def _none(id: object) -> bool:  # noqa: ARG001
    return False


class Turns(Protocol):
    """Turns of a conversation, in an API whose requests may go on from an earlier answer. It takes any body, and never
    raises.
    """

    def previous(self, body: Mapping[str, Any]) -> str | None:
        """The id of the answer that a request goes on from."""
        ...

    def references(self, body: Mapping[str, Any]) -> Sequence[str]:
        """The ids of items that a request refers to and does not hold."""
        ...

    def keepable(self, body: Mapping[str, Any]) -> bool:
        """True for a request whose client wants its answer kept, and which refers to nothing else at a provider."""
        ...

    def added(self, body: Mapping[str, Any]) -> Sequence[Any]:
        """The items of the request itself."""
        ...

    def resolved(self, items: Sequence[Any], found: Mapping[str, Any]) -> Sequence[Any]:
        """`items`, with those in `found` in place of references to them."""
        ...

    def written_out(self, earlier: Sequence[Any], added: Sequence[Any], *, goes_on: bool) -> Mapping[str, Any]:
        """The fields that make a request whole, None for one to be removed. `goes_on`: it names an earlier answer."""
        ...

    def answered(self, data: bytes) -> tuple[str, Sequence[Any]] | None:
        """The id and items of an answer that an event ends; None for other events."""
        ...

    def ids(self, items: Sequence[Any]) -> Mapping[str, Any]:
        """Items by their ids."""
        ...

    def deleted(self, id: str) -> Mapping[str, Any]:
        """The answer to the deletion of a response."""
        ...


@dataclass(slots=True, frozen=True, kw_only=True)
class Objects:
    """The places of one API. Paths have dots and no indices: `tools.container`. Names of fields that mean an object in
    every API need no path, see `dialects._objects`.
    """

    at: Mapping[str, str] = field(default_factory=dict)  # path in a request -> kind of object, for people
    answers: Mapping[str, str] = field(default_factory=dict)  # path in an event or answer -> kind of object
    marks: tuple[bytes, ...] = ()  # one of them stands in every event with such a path
    clients: frozenset[str] = frozenset()  # paths below which everything is the client's own
    items: str = ""  # the list of a conversation's items, which have ids of their own; empty: there is none
    # True for an item that stands for content which its provider keeps; `resolved`: the request has another item of its
    # id
    refers: Callable[[Mapping[str, Any], bool], bool] = _never
    turns: Turns | None = None  # how conversations go on from answers; None: each request holds the whole
    ours: Callable[[object], bool] = _none  # True for the id of an answer that the gateway translated


@dataclass(slots=True, frozen=True)
class Found:
    """An id in a request or an answer: `holder[key]` is the string."""

    kind: str
    where: str  # the path of its field
    holder: Any
    key: str | int
    refers: bool = True  # False: an echo, beside content that is whole

    @property
    def id(self) -> str:
        return self.holder[self.key]  # type: ignore[no-any-return]
