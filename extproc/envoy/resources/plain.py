"""Envoy's types without validators.

They are dataclasses of pydantic. To compile their validators takes more time than all the rest of making a
configuration, and Envoy validates it again. `with plain(): …` is for the first import of Envoy's types.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def plain() -> Iterator[None]:
    """Dataclasses of pydantic that are imported meanwhile are those of the standard library."""
    module: Any = importlib.import_module("pydantic.dataclasses")  # its attributes are replaced
    before = module.dataclass, module.rebuild_dataclass
    module.dataclass, module.rebuild_dataclass = _dataclass, lambda *_, **__: None
    try:
        yield
    finally:
        module.dataclass, module.rebuild_dataclass = before


def _dataclass(kind: Any = None, *, config: Any = None, **options: Any) -> Any:  # noqa: ARG001
    if kind is None:
        return lambda each: dataclasses.dataclass(each, **options)
    return dataclasses.dataclass(kind, **options)
