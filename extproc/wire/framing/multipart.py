"""Forms: `multipart/form-data` bodies, read and patched without decoding their files.

Source: RFC 7578, and RFC 2046 section 5.1 for the delimiters.

A body that two parsers could read differently is refused: a delimiter inside a part, a preamble, unusual names or
headers. A form begins with two dashes, and a JSON object never does, so the first bytes tell them apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

MOST_PARTS = 256
_MOST_HEAD = 4096  # most bytes of a part's headers
_DASHES = b"--"
_HEADERS = ("content-disposition", "content-type", "content-length", "content-transfer-encoding")
_boundary = re.compile(r'boundary=(?:"([^"\\]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)
_first_line = re.compile(rb"--([0-9A-Za-z'()+_,./:=?-]{1,70})\r\n").match
_disposition = re.compile(
    r'form-data;[ \t]*name=(?:"(?P<name>[\w.\[\]-]{1,128})"|(?P<token>[\w.\[\]-]{1,128}))'
    r'(?P<file>(?:;[ \t]*filename\*?=(?:"[^"\r\n]{0,1024}"|[^\s";]{1,1024})){0,2})',
    re.IGNORECASE | re.ASCII,
).fullmatch
_filename = re.compile(r'filename\*?=(?:"([^"]*)"|([^\s";]+))', re.IGNORECASE)


class InvalidFormError(ValueError):
    """A body that is not a form, or that parsers could read differently. The message is for the client."""


@dataclass(slots=True, frozen=True)
class FormPart:
    """A part of a form: a field, or a file where `filename` is not None. Its content is `body[start:end]`."""

    name: str
    filename: str | None
    kind: str  # the part's content type; empty without one
    begin: int  # offset of the part's headers
    start: int
    end: int


def is_form(body: bytes) -> bool:
    """True for a form, False for JSON. The body was read before."""
    return body.startswith(_DASHES)


def boundary_of(content_type: str) -> bytes | None:
    """The boundary named by a content type; None without one, and for a type other than a form's."""
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return None
    found = _boundary.findall(parameters)
    return ("".join(found[0])).encode() if len(found) == 1 and found[0] else None


def parts_of(body: bytes, boundary: bytes | None = None) -> list[FormPart]:
    """Parts of a form, in order. Raises InvalidFormError."""
    match = _first_line(body)
    if match is None or boundary not in (None, match[1]):
        raise InvalidFormError("The body does not begin with the boundary that its content-type names.")
    delimiter = b"\r\n--" + match[1]
    found: list[FormPart] = []
    at = len(delimiter)  # offset of the line break behind the first delimiter
    while True:
        if len(found) >= MOST_PARTS:
            raise InvalidFormError(f"The form has more than {MOST_PARTS} parts.")
        head_end = body.find(b"\r\n\r\n", at, at + _MOST_HEAD)
        if head_end < 0:
            raise InvalidFormError("A part of the form has no end of its headers.")
        start = head_end + 4
        end = body.find(delimiter, start)
        if end < 0:
            raise InvalidFormError("The form has no end.")
        found.append(_part(body, at, head_end, end))
        at = end + len(delimiter)
        after = body[at : at + 2]
        at += 2
        if after == _DASHES:
            break
        if after != b"\r\n":
            raise InvalidFormError("The form has its boundary inside a part.")
    if body[at:].strip(b"\r\n"):
        raise InvalidFormError("The form goes on behind its end.")
    if body.count(delimiter[2:]) != len(found) + 1:
        raise InvalidFormError("The form has its boundary inside a part.")
    return found


def _part(body: bytes, at: int, head_end: int, end: int) -> FormPart:
    try:
        lines = body[at:head_end].decode().split("\r\n")
    except UnicodeDecodeError:
        raise InvalidFormError("A part of the form has headers that are not UTF-8.") from None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name in headers or name not in _HEADERS:
            raise InvalidFormError("A part of the form has another header than content-disposition and content-type.")
        headers[name] = value.strip()
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise InvalidFormError("A part of the form is encoded: send it as it is.")
    match = _disposition(headers.get("content-disposition", ""))
    if match is None:
        raise InvalidFormError("A part of the form has no plain name.")
    names = ["".join(pair) for pair in _filename.findall(match["file"] or "")]
    filename = "; ".join(names) if names else None
    return FormPart(match["name"] or match["token"], filename, headers.get("content-type", ""), at, head_end + 4, end)


class FormFile(dict[str, Any]):
    """A file of a form, as a value among its fields. Its items are the texts that a guardrail can read: `filename`, and
    `content` of a text file. `head` are its first bytes, `size` is its length in bytes. `known` is True for an image,
    audio, a document and text.
    """

    def __init__(self, part: FormPart, body: bytes) -> None:
        super().__init__(filename=part.filename)
        self.size = part.end - part.start
        self.head = body[part.start : min(part.end, part.start + _HEAD)]
        self.kind = media(self.head)
        self.known = bool(self.kind)
        if not self.known:
            try:
                self["content"] = body[part.start : part.end].decode()
                self.known = True
            except UnicodeDecodeError:
                pass


def lone_file(body: bytes, *, whole: bool) -> FormFile:
    """A body that is a file, or with `whole` False a part of one, in which nothing can be searched."""
    file = FormFile(FormPart("file", "", "", 0, 0, len(body)), body)
    if not whole:
        file.pop("content", None)
        file.known = False
    return file


def media(head: bytes) -> str:
    """Kind of a file by its first bytes: `image`, `audio` (with video), `document` (PDF) or empty."""
    for kind, marks in _MEDIA.items():
        for at, mark in marks:
            if head.startswith(mark, at):
                return kind
    return ""


_HEAD = 96 << 10
_MEDIA = {
    "image": ((0, b"\x89PNG\r\n"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (8, b"WEBP")),
    "document": ((0, b"%PDF-"),),
    "audio": (
        *((0, b"ID3"), (0, b"\xff\xfb"), (0, b"\xff\xf3"), (0, b"\xff\xf2"), (0, b"\xff\xfa"), (8, b"WAVE")),
        *((0, b"fLaC"), (0, b"OggS"), (4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"), (0, b"\xff\xf1"), (0, b"\xff\xf9")),
    ),
}
"""Signatures of file types, each with its offset: https://en.wikipedia.org/wiki/List_of_file_signatures"""


def fields_of(body: bytes, parts: Iterable[FormPart]) -> dict[str, Any]:
    """Fields of a form: texts, and a `FormFile` for each file. A repeated name, or one that ends in `[]`, has a list.
    Raises InvalidFormError.
    """
    found: dict[str, Any] = {}
    for part in parts:
        value: Any
        if part.filename is None:
            try:
                value = body[part.start : part.end].decode()
            except UnicodeDecodeError:
                raise InvalidFormError(f"The field {part.name!r} of the form is not UTF-8.") from None
        else:
            value = FormFile(part, body)
        if part.name not in found:
            found[part.name] = [value] if part.name.endswith("[]") else value
        elif isinstance(held := found[part.name], list):
            held.append(value)
        else:
            found[part.name] = [held, value]
    return found


def files_in(fields: Mapping[str, Any]) -> Iterator[tuple[str, FormFile]]:
    """Files of a form, each with the name of its field."""
    for name, value in fields.items():
        for each in value if isinstance(value, list) else (value,):
            if isinstance(each, FormFile):
                yield name, each


def patched(body: bytes, fields: Mapping[str, Any], removed: Collection[str] = ()) -> bytes:
    """A form with some of its fields set or removed; its other parts keep their bytes. `parts_of` has read the form
    before.
    """
    match = _first_line(body)
    assert match is not None, "it was read"
    line = b"--" + match[1]
    pieces: list[bytes] = []
    left = dict(fields)
    for part in parts_of(body):
        if part.name in removed and part.name not in fields:
            continue
        if part.name in fields:
            if part.name in left:
                pieces += [line, b"\r\n", body[part.begin : part.start], written(left.pop(part.name)), b"\r\n"]
            continue
        pieces += [line, b"\r\n", body[part.begin : part.end], b"\r\n"]
    for name, value in left.items():
        head = b'Content-Disposition: form-data; name="%b"\r\n\r\n' % name.encode()
        pieces += [line, b"\r\n", head, written(value), b"\r\n"]
    return b"".join([*pieces, line, b"--\r\n"])


def written(value: Any) -> bytes:
    """A value in the spelling of forms: text stays text, everything else is JSON."""
    return value.encode(errors="replace") if isinstance(value, str) else msgspec.json.encode(value)
