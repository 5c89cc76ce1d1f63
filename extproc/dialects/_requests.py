"""Batches whose requests stand in the body. Each is read by the dialect of a single request; together they are one ask,
whose bounds are the sums of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar

import msgspec

from extproc.dialects import NOT_FORWARDED
from extproc.dialects._named import EACH
from extproc.dialects._passed import passed_fields
from extproc.dialects._refusals import wrong
from extproc.dialects.openai_files import USUAL, KeptObjects
from extproc.words.api import ClientAPI, Objects
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint, Fields, with_name
from extproc.words.errors import Refusal

Node = dict[str, Any]
_encode = msgspec.json.encode


class Requests(KeptObjects):
    """Base of such an API. `single` is the dialect of each request, `at` the path of a request: `EACH` is every item of
    the list.
    """

    single: ClassVar[ClientAPI]
    at: ClassVar[Sequence[str]]

    def listed(self, body: Mapping[str, Any]) -> Any:
        """The list of requests, unchecked; None for a body with other input."""
        raise NotImplementedError

    def requests(self, body: Mapping[str, Any]) -> Iterator[tuple[str, Node]]:
        """The requests of a body, each with its path. Raises Refusal (400) for another shape."""
        listed, where, name = self.listed(body), ".".join(self.at[:-2]), self.at[-1]
        if not isinstance(listed, list) or not listed:
            raise wrong(f"'{where}' must be a list with at least one request, and the only input.", where)
        for index, each in enumerate(listed):
            place = f"{where}[{index}].{name}"
            if not isinstance(each, dict) or not isinstance(each.get(name), dict):
                raise wrong(f"'{place}' must be an object.", place)
            yield place, each[name]

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        """See `ClientAPI.read`. All requests have one model, since a batch is held, priced and sent to one target."""
        ask = Ask(model="", lasting=True, batch=True, requests=0, longest_bytes=0)
        for where, request in self.requests(body):
            self._add(ask, where, request, endpoint)
        ask.needs = dict.fromkeys((*ask.needs, "state"), self.text)  # "state": the batch is sent to one provider
        return ask

    def _add(self, ask: Ask, where: str, request: Node, endpoint: Endpoint) -> None:
        if foreign := NOT_FORWARDED & request.keys():
            raise wrong(f"'{where}.{min(foreign)}' is no field of this API.", where)
        try:
            one = self.single.read(request, endpoint)
        except Refusal as refusal:
            at = where if refusal.param is None else f"{where}.{refusal.param}"
            raise Refusal(refusal.kind, f"{where}: {refusal.message}", param=at) from None
        if one.stream:
            raise wrong(f"'{where}.stream': a request in a batch is not streamed.", f"{where}.stream")
        if ask.model not in ("", one.model):
            raise wrong(f"'{where}' names another model: the requests of a batch must have one.", where)
        ask.model = one.model
        add(ask, one)
        size = len(_encode(request)) - one.image_bytes - one.packed_bytes
        ask.longest_bytes = max(ask.longest_bytes or 0, size)


_SUMS = ("images", "image_bytes", "image_tokens", "packed_bytes", "added_tokens", "file_tokens")
_LISTS = ("unseen", "unbounded", "hosted")


def add(ask: Ask, one: Ask) -> None:
    """Add the bounds and needs of one request."""
    ask.requests += 1
    for name in _SUMS:
        setattr(ask, name, getattr(ask, name) + getattr(one, name))
    for name in _LISTS:
        setattr(ask, name, reduce(with_name, getattr(one, name), getattr(ask, name)))
    ask.image_data += one.image_data
    ask.needs |= one.needs
    ask.speaks |= one.speaks
    ask.unreadable = ask.unreadable or one.unreadable
    for kind, count in one.units.items():
        ask.units[kind] = ask.units.get(kind, 0) + count
    for kind, most in one.calls.items():
        before = ask.calls.get(kind, 0)
        ask.calls[kind] = None if most is None or before is None else before + most
    limit = one.max_output_tokens or one.usual_output or USUAL + one.thinking
    ask.answer_tokens += limit * one.choices + one.answer_tokens


def fields_of(single: Fields, *path: str, name: str) -> Fields:
    """`Fields` of a batch whose requests stand at `path`, where `EACH` is every item of a list. `name` is their
    top-level field.
    """
    return passed_fields(
        name,
        needs=dict.fromkeys((*single.needs, "state"), (name,)),
        files=single.files,
        opaque=single.opaque,
        signed=single.signed,
        inside=single.inside | single.relied_on | {step for step in path if step != EACH},
        data=single.data,
        models=tuple([(*path, *place) for place in single.models]),
    )


def objects_of(single: Objects, *path: str) -> Objects:
    """`Objects` of the requests at `path`."""
    before = ".".join(step for step in path if step != EACH)

    def below(paths: Iterable[str]) -> Iterable[str]:
        return [f"{before}.{each}" for each in paths]

    return Objects(
        at=dict(zip(below(single.at), single.at.values(), strict=True)),
        clients=frozenset(below(single.clients)),
        address=single.address,
    )
