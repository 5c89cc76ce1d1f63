"""A judge of pairs: a real HTTP server answers as a model with habits of its own."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from extproc.cli._judge import Judge, words_of

FORMS = {
    "/v1/chat/completions": {"choices": [{"message": {"role": "assistant", "content": "It rains."}}]},
    "/v1/responses": {
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]}]
    },
    "/v1/messages": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "It rains."}]},
    "/v1beta/models/m:generateContent": {"candidates": [{"content": {"parts": [{"text": "It rains."}]}}]},
}


@pytest.fixture
def judge():
    """`judge(verdict)`: a judge that says `verdict(answer 1, answer 2)`, or sends a number as a status."""
    servers = []

    def start(verdict):
        class Model(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                mark = re.search(r"DATA-[0-9a-f]{16}", body["messages"][0]["content"])[0]
                data = json.loads(body["messages"][1]["content"].split(mark)[1])
                said = verdict(data["1"], data["2"])
                content = {"error": {"message": "no"}} if isinstance(said, int) else None
                content = content or {"choices": [{"message": {"content": said}}]}
                answer = json.dumps({"id": "x", "object": "chat.completion", **content}).encode()
                self.send_response(said if isinstance(said, int) else 200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        servers.append(server := ThreadingHTTPServer(("127.0.0.1", 0), Model))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return Judge(f"http://127.0.0.1:{server.server_port}", "sk-gw-judge", "judge")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def better(number):
    return json.dumps({"better": number})


def test_the_better_answer_wins_in_both_orders(judge):
    fair = judge(lambda one, two: better("1" if "good" in one else "2" if "good" in two else "equal"))
    assert fair.better("q", "good", "bad") == "a"
    assert fair.better("q", "bad", "good") == "b"
    assert fair.better("q", "bad", "bad") == "equal"


@pytest.mark.parametrize("place", ["1", "2"])
def test_a_judge_that_prefers_a_place_prefers_no_answer(judge, place):
    assert judge(lambda _one, _two: better(place)).better("q", "good", "bad") == "equal"


@pytest.mark.parametrize("said", ["", "1", "{}", better("3"), better(None), "[1]", 500])
def test_anything_else_is_no_verdict(judge, said):
    with pytest.raises(ValueError, match="judge"):
        judge(lambda _one, _two: said).better("q", "a", "b")


@pytest.mark.parametrize("path", FORMS)
def test_recorded_answers_of_every_api_have_words(path):
    assert words_of({"path": path, "answer": json.dumps(FORMS[path])}) == "It rains."


def test_a_streamed_answer_has_words_and_calls():
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "t", "arguments": "{}"}}
    deltas = [{"content": "It "}, {"content": "rains."}, {"tool_calls": [call]}]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    assert words_of({"path": "/v1/chat/completions", "answer": events}) == "It rains.\ncalls t with {}"


@pytest.mark.parametrize("answer", ["", "{", '{"choices": [', "data: {}"])
def test_an_answer_that_is_cut_has_none(answer):
    with pytest.raises(ValueError, match="cut"):
        words_of({"path": "/v1/chat/completions", "answer": answer})
