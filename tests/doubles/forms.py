"""Forms, read by the standard library's parser of mail: another one than the gateway's."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from tests.doubles.answers import Headers, Json, Refused, header


class File(bytes):
    """The content of a file, with its name."""

    name: str


def decoded(headers: Headers, body: bytes) -> Json | None:
    """The fields of a form; None for another body. A field that ends in [] has a list."""
    kind = header(headers, "content-type") or ""
    if not kind.lower().startswith("multipart/form-data"):
        return None
    message = BytesParser(policy=HTTP).parsebytes(b"content-type: %b\r\n\r\n%b" % (kind.encode(), body))
    if not message.is_multipart() or message.defects:
        raise Refused(400, "Could not parse multipart form", code="invalid_form")
    found: Json = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if not isinstance(name, str) or (name in found and not name.endswith("[]")):
            raise Refused(400, f"Duplicate or missing name {name!r} in the form", code="invalid_form")
        data: Any = part.get_payload(decode=True)
        value: Any = data.decode() if part.get_filename() is None else File(data)
        if isinstance(value, File):
            value.name = part.get_filename() or ""
        if name.endswith("[]"):
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    claude = header(headers, "anthropic-version") is not None  # its files have no purpose
    if not found.get("model") and "purpose" not in found and not claude:
        raise Refused(400, "you must provide a model parameter", param="model")
    return found
