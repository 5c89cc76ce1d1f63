"""Forms: read as their parts, patched without a change of anything else, and refused where parsers could differ."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.wire.framing.multipart import MOST_PARTS, InvalidFormError, boundary_of, is_form, parts_of, patched

SOUND = b"ID3\x00\r\n--\r\n\xff"


def form(fields, files=None):
    request = httpx.Request("POST", "http://x", data=fields, files=files or {"file": ("a.mp3", SOUND, "audio/mpeg")})
    return request.read(), boundary_of(request.headers["content-type"])


def content(body, boundary=None):
    return [(part.name, part.filename, body[part.start : part.end]) for part in parts_of(body, boundary)]


def test_the_parts_of_a_form_are_found():
    body, boundary = form({"model": "whisper-1", "include[]": ["a", "b"]})
    assert is_form(body)
    assert content(body, boundary) == [
        ("model", None, b"whisper-1"),
        ("include[]", None, b"a"),
        ("include[]", None, b"b"),
        ("file", "a.mp3", SOUND),
    ]
    assert [part.kind for part in parts_of(body)] == ["", "", "", "audio/mpeg"]


def test_a_patch_leaves_the_other_parts_as_they_are():
    body, _ = form({"model": "m", "prompt": "p", "n": "1"})
    assert patched(body, {}) == body
    changed = patched(body, {"model": "other", "stream": True}, ["n"])
    assert content(changed) == [
        ("model", None, b"other"),
        ("prompt", None, b"p"),
        ("file", "a.mp3", SOUND),
        ("stream", None, b"true"),
    ]
    assert content(patched(body, {"n": 2}, ["n"]))[2] == ("n", None, b"2")


@pytest.mark.parametrize(
    ("content_type", "wanted"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b"', b"a b"),
        ("multipart/form-data", None),
        ("multipart/mixed; boundary=abc", None),
        ("multipart/form-data; boundary=abc; boundary=def", None),
        ("application/json; boundary=abc", None),
    ],
)
def test_the_boundary_is_in_the_content_type(content_type, wanted):
    assert boundary_of(content_type) == wanted


PART = b'Content-Disposition: form-data; name="model"\r\n\r\nm'
WRONG = {
    "another boundary": b"--def\r\n" + PART + b"\r\n--def--\r\n",
    "preamble": b"x\r\n--abc\r\n" + PART + b"\r\n--abc--\r\n",
    "line feeds alone": b"--abc\n" + PART.replace(b"\r\n", b"\n") + b"\n--abc--\n",
    "no end": b"--abc\r\n" + PART + b"\r\n",
    "epilogue": b"--abc\r\n" + PART + b"\r\n--abc--\r\nmore",
    "a delimiter behind a line feed": b"--abc\r\n" + PART + b"\n--abc\n" + PART + b"\r\n--abc--\r\n",
    "a longer delimiter": b"--abc\r\n" + PART + b"\r\n--abcd\r\n" + PART + b"\r\n--abc--\r\n",
    "white space behind a delimiter": b"--abc\r\n" + PART + b"\r\n--abc \r\n" + PART + b"\r\n--abc--\r\n",
    "no headers": b"--abc\r\nm\r\n--abc--\r\n",
    "an unknown header": b"--abc\r\ncontent-transfer-encoding: base64\r\n" + PART + b"\r\n--abc--\r\n",
    "a header twice": b"--abc\r\n" + PART.replace(b"\r\n\r\n", b"\r\n" + PART[:44] + b"\r\n\r\n") + b"\r\n--abc--\r\n",
    "a folded header": b"--abc\r\n" + PART.replace(b"; n", b";\r\n n") + b"\r\n--abc--\r\n",
    "a name twice": b"--abc\r\n" + PART.replace(b'"model"', b'"model"; name="x"') + b"\r\n--abc--\r\n",
    "an extended name": b"--abc\r\n" + PART.replace(b"name=", b"name*=") + b"\r\n--abc--\r\n",
    "an escape in a name": b"--abc\r\n" + PART.replace(b"model", b"mo\\del") + b"\r\n--abc--\r\n",
    "no name": b"--abc\r\n" + PART.replace(b'; name="model"', b"") + b"\r\n--abc--\r\n",
    "long headers": b"--abc\r\n" + PART.replace(b"model", b"m" * 5000) + b"\r\n--abc--\r\n",
    "too many parts": b"".join(b"--abc\r\n" + PART + b"\r\n" for _ in range(MOST_PARTS + 1)) + b"--abc--\r\n",
    "empty": b"",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_form_that_parsers_could_read_differently_is_refused(name):
    with pytest.raises(InvalidFormError):
        parts_of(WRONG[name], b"abc")


@given(st.binary(max_size=200) | st.lists(st.sampled_from([b"--abc", b"\r\n", b"--", PART, b"x", b"\n"])).map(b"".join))
def test_any_body_is_read_or_refused(data):
    try:
        parts = parts_of(data, b"abc")
    except InvalidFormError:
        return
    assert parts
    assert content(patched(data, {})) == content(data)
