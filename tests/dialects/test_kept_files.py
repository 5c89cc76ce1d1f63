"""Files for batches: the requests in them, their model and their tokens."""

import json

import pytest

from extproc.dialects import Finder, client_apis
from extproc.wire.framing.multipart import fields_of, parts_of
from extproc.words.dialect import Report
from extproc.words.errors import Refusal

FILES, BATCHES = client_apis()["openai_files"], client_apis()["openai_batches"]
CLAUDE = client_apis()["anthropic_files"]


def line(model="m", url="/v1/chat/completions", **body):
    return json.dumps({"custom_id": "1", "method": "POST", "url": url, "body": {"model": model, **body}})


def form(content, purpose="batch", **more):
    pieces = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {"purpose": purpose, **more}.items()
    ]
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    body = b"".join([*pieces, head, content if isinstance(content, bytes) else content.encode(), b"\r\n--x--\r\n"])
    return fields_of(body, parts_of(body))


def test_the_requests_tell_the_model_and_their_tokens():
    content = "\n".join([line(max_tokens=10), "", line(url="/v1/embeddings", input="x"), line(input="y")])
    ask = FILES.read(form(content))
    assert (ask.model, ask.free, ask.needs) == ("m", True, {"state": "file"})
    assert ask.later == (len(content) // 3 + 1, 10 + 0 + 4096)


def test_requests_are_searched_and_renamed_one_by_one():
    body = form(line(messages=[{"role": "user", "content": "caf\\u00e9"}]) + "\n")
    FILES.read(body)
    assert "caf\\u00e9" in [text.value for text in FILES.texts(body)]
    assert FILES.offers.stored.renamed(body, "m") == {}
    assert json.loads(FILES.offers.stored.renamed(body, "other")["file"])["body"]["model"] == "other"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (form(line() + "\n" + line("n")), "file"),
        (form("nonsense"), "file"),
        (form("[]"), "file"),
        (form('{"body": {"model": 1}}'), "file"),
        (form('{"body": {"model": "m", "model": "n"}}'), "file"),
        (form("\n"), "file"),
        (form("[" * 100), "file"),
        (form(b"\xff\xfe"), "file"),
        (form("\n" * 50_000 + line()), "file"),
        (form(line(), model="n"), "model"),
        (form("x", purpose="user_data"), "model"),
        ({"file": "x", "purpose": "batch"}, "file"),
        (form("x") | {"purpose": ["batch", "batch"]}, "purpose"),
    ],
)
def test_a_file_that_does_not_tell_its_model_is_refused(fields, param):
    with pytest.raises(Refusal) as refused:
        FILES.read(fields)
    assert (refused.value.kind.status, refused.value.param) == (400, param)


def test_the_ids_of_kept_objects_are_found():
    report = Report()
    BATCHES.observe(b'{"id":"batch_1","object":"batch","input_file_id":"file-1","output_file_id":null}', report)
    assert report.kept == ["batch_1", "file-1"]
    for odd in (b"", b"null", b"[]", b'{"object":"list"}', b'{"object":"file","id":1}', b"\xff"):
        BATCHES.observe(odd, report := Report())
        assert list(report.kept) == []


def test_a_file_of_anthropic_names_its_model_and_is_searched():
    ask = CLAUDE.read(body := form("caf\u00e9", model="m"))
    assert (ask.model, ask.free, ask.needs, ask.file_bytes) == ("m", True, {"state": "file"}, 5)
    assert "caf\u00e9" in [text.value for text in CLAUDE.texts(body)]
    for wrong, param in ((form("x"), "model"), ({"file": "x", "model": "m"}, "file")):
        with pytest.raises(Refusal) as refused:
            CLAUDE.read(wrong)
        assert refused.value.param == param
    CLAUDE.observe(b'{"type":"file","id":"file_1"}', report := Report())
    assert report.kept == ["file_1"]


@pytest.mark.parametrize(("headers", "name"), [({}, "openai_files"), ({"anthropic-version": "x"}, "anthropic_files")])
def test_files_of_two_apis_have_the_same_paths(headers, name):
    finder = Finder(client_apis().values())
    assert finder.find("/v1/files", headers)[0].name == name
    assert {found.name for found, _ in finder.calls("/v1/files/file_kept_x", headers).values()} == {name}
