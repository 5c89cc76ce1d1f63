"""Gemini's files: the model of an upload, the parts of a file, and the names in answers."""

import json

import pytest

from extproc.access.kept.stages import _replace
from extproc.dialects import Finder, client_apis
from extproc.wire.framing import Frame
from extproc.wire.framing.multipart import lone_file
from extproc.words.dialect import Report
from extproc.words.errors import Refusal

FILES = client_apis()["gemini_files"]
STORED = FILES.offers.stored


def test_an_upload_names_its_model_beside_the_file():
    ask = FILES.read({"model": "flash", "file": {"displayName": "a.txt"}})
    assert (ask.model, ask.free, ask.needs) == ("flash", True, {"state": "file"})
    assert FILES.read({"model": "flash"}).model == "flash"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"file": {}}, "model"),
        ({"file": {}, "model": 1}, "model"),
        ({"file": "x", "model": "flash"}, "file"),
        ({"file": {"name": "files/mine"}, "model": "flash"}, "file.name"),
    ],
)
def test_an_upload_without_a_model_or_with_a_name_is_refused(body, param):
    with pytest.raises(Refusal) as refused:
        FILES.read(body)
    assert (refused.value.kind.status, refused.value.param) == (400, param)


def test_a_whole_text_file_is_searched_and_a_part_cannot_be():
    whole, part, odd = (
        {"file": lone_file(content, whole=whole)}
        for content, whole in (("caf\u00e9".encode(), True), (b"cafe", False), (b"\xff\xfe\x01", True))
    )
    assert "caf\u00e9" in [text.value for text in FILES.texts(whole)]
    assert "cafe" not in [text.value for text in FILES.texts(part)]
    assert [FILES.read(body).unreadable for body in (whole, part, odd)] == ["", "file", "file"]
    assert (FILES.read(part).model, FILES.read(part).file_bytes) == ("", 4)


@pytest.mark.parametrize(
    ("command", "offset", "whole"),
    [
        ("upload, finalize", "0", True),
        ("upload,finalize", "0", True),
        ("upload", "0", False),
        ("upload, finalize", "8", False),
        ("finalize", "0", False),
        ("", "", False),
    ],
)
def test_a_part_that_begins_and_ends_the_file_is_whole(command, offset, whole):
    assert STORED.upload.whole({"x-goog-upload-command": command, "x-goog-upload-offset": offset}) is whole


def test_names_and_addresses_in_answers_are_replaced():
    address = "https://generativelanguage.googleapis.com/v1beta/"
    for file in ({"file": {"name": "files/a1", "uri": f"{address}files/a1"}}, {"name": "files/a1", "file": None}):
        body = json.dumps(file).encode()
        FILES.observe(body, report := Report())
        assert report.kept == ["files/a1"]
    body = json.dumps({"name": "files/a1", "uri": f"{address}files/a1", "other": f"{address}files/a12"}).encode()
    _replace(frame := Frame(body, body), "files/a1", "files/kept_x", STORED.link)
    assert list(json.loads(frame.raw).values()) == ["files/kept_x", f"{address}files/kept_x", f"{address}files/a12"]
    for odd in (b"", b"[]", b"{}", b'{"name":1}', b'{"file":{"name":"batches/1"}}'):
        FILES.observe(odd, report := Report())
        assert list(report.kept) == []


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/v1beta/uploads/kept_x", "gemini_files"),
        ("GET", "/v1/files/kept_x", "gemini_files"),
        ("DELETE", "/v1beta/files/kept_x", "gemini_files"),
        ("GET", "/v1/files/file-kept_x", "openai_files"),
        ("GET", "/v1beta/files/abc", None),
        ("GET", "/v1beta/uploads/kept_x", None),
    ],
)
def test_a_call_belongs_to_the_api_whose_ids_look_so(method, path, name):
    found = Finder(client_apis().values()).calls(path).get(method)
    assert (found and found[0].name) == name
