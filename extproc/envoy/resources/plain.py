"""Envoy's types without validators.

Envoy's types are dataclasses of pydantic. Compiling their validators takes most of the time of making a configuration,
which Envoy validates again. `with plain(): …` is for the first import of Envoy's types.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def plain() -> Iterator[None]:
    """Let modules imported in this context use the standard library's dataclasses in place of pydantic's."""
    module: Any = importlib.import_module("pydantic.dataclasses")  # its functions are replaced
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
