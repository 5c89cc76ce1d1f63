"""The fields of custom resources, for tests of manifests."""

from __future__ import annotations

from typing import Any


def unknown(value: Any, shape: Any, path: str = "") -> list[str]:
    """Places of `value` that are no part of a custom resource."""
    if shape is ...:
        return []
    if isinstance(shape, dict):
        assert isinstance(value, dict), path
        extra = [f"{path}.{key}" for key in value if key not in shape]
        known = [key for key in value if key in shape]
        return extra + [place for key in known for place in unknown(value[key], shape[key], f"{path}.{key}")]
    if isinstance(shape, list):
        assert isinstance(value, list), path
        return [place for entry in value for place in unknown(entry, shape[0], f"{path}[]")]
    return [] if isinstance(value, shape) else [path]
