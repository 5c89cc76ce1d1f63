"""Answers of every client API that say given words, and the words that a client reads from them."""

import json

from extproc.wire.framing.sse import SSE
from extproc.words.actions import LocalReply
from tests.talk import feed

PROVIDER = "providers: {a: {kind: vllm, base_url: 'http://127.0.0.1:8090/v1'}}\nmodels: {m: {provider: a}}\n"
"""Speaks OpenAI's chat and completions. The other APIs of PATHS are translated; here that changes nothing."""

PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_completions": "/v1/completions",
    "openai_responses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
    "gemini_generate_content": "/v1beta/models/m:streamGenerateContent?alt=sse",
}


def request(dialect):
    if dialect == "gemini_generate_content":
        return {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    body = {"model": "m", "stream": True}
    if dialect in ("openai_chat", "openai_completions"):
        body["stream_options"] = {"include_usage": True}
    if dialect == "openai_completions":
        return body | {"prompt": "Hello"}
    if dialect == "openai_responses":
        return body | {"input": "Hello"}
    return body | {"max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}


def _chat(pieces, thoughts, arguments):
    def chunk(delta, finish=None, **more):
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return None, {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": choices, **more}

    yield chunk({"role": "assistant", "content": ""})
    for piece in thoughts:
        yield chunk({"reasoning_content": piece})
    for piece in pieces:
        yield chunk({"content": piece})
    for index, piece in enumerate(arguments):
        first = {"id": "call_1", "type": "function"} if index == 0 else {}
        name = {"name": "f"} if index == 0 else {}
        yield chunk({"tool_calls": [{"index": 0, **first, "function": {**name, "arguments": piece}}]})
    yield chunk({}, "tool_calls" if arguments else "stop")
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    yield None, {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": usage}
    yield None, "[DONE]"


def _completions(pieces, thoughts, arguments):
    for piece in [*thoughts, *pieces, *arguments]:
        yield None, {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": piece}]}
    choice = {"index": 0, "text": "", "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    yield None, {"id": "c", "object": "text_completion", "choices": [choice], "usage": usage}
    yield None, "[DONE]"


def _messages(pieces, thoughts, arguments):
    def event(type, **fields):
        return type, {"type": type, **fields}

    usage = {"input_tokens": 5, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    yield event("message_start", message=message)
    index = 0
    for kind, empty, said in (
        ("thinking", {"thinking": ""}, [{"type": "thinking_delta", "thinking": piece} for piece in thoughts]),
        ("text", {"text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]),
        (
            "tool_use",
            {"id": "t", "name": "f", "input": {}},
            [{"type": "input_json_delta", "partial_json": piece} for piece in arguments],
        ),
    ):
        if said:
            yield event("content_block_start", index=index, content_block={"type": kind, **empty})
            for delta in said:
                yield event("content_block_delta", index=index, delta=delta)
            yield event("content_block_stop", index=index)
            index += 1
    stop = "tool_use" if arguments else "end_turn"
    yield event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": 7})
    yield event("message_stop")


def _responses(pieces, thoughts, arguments):
    output, number = [], -1

    def event(type, **fields):
        nonlocal number
        number += 1
        return type, {"type": type, "sequence_number": number, **fields}

    response = {"id": "r", "object": "response", "model": "m", "status": "in_progress", "output": []}
    yield event("response.created", response=response)
    if thoughts:
        item = {"id": "rs", "type": "reasoning", "summary": []}
        yield event("response.output_item.added", output_index=len(output), item=item)
        where = {"item_id": "rs", "output_index": len(output), "summary_index": 0}
        for piece in thoughts:
            yield event("response.reasoning_summary_text.delta", **where, delta=piece)
        yield event("response.reasoning_summary_text.done", **where, text="".join(thoughts))
        output.append({**item, "summary": [{"type": "summary_text", "text": "".join(thoughts)}]})
        yield event("response.output_item.done", output_index=len(output) - 1, item=output[-1])
    if pieces:
        item = {"id": "msg", "type": "message", "role": "assistant", "content": []}
        yield event("response.output_item.added", output_index=len(output), item=item)
        where = {"item_id": "msg", "output_index": len(output), "content_index": 0}
        part = {"type": "output_text", "text": "".join(pieces), "annotations": []}
        yield event("response.content_part.added", **where, part={**part, "text": ""})
        for piece in pieces:
            yield event("response.output_text.delta", **where, delta=piece, logprobs=[{"token": piece}])
        yield event("response.output_text.done", **where, text="".join(pieces))
        yield event("response.content_part.done", **where, part=part)
        output.append({**item, "content": [part]})
        yield event("response.output_item.done", output_index=len(output) - 1, item=output[-1])
    if arguments:
        item = {"id": "fc", "type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
        yield event("response.output_item.added", output_index=len(output), item=item)
        where = {"item_id": "fc", "output_index": len(output)}
        for piece in arguments:
            yield event("response.function_call_arguments.delta", **where, delta=piece)
        yield event("response.function_call_arguments.done", **where, arguments="".join(arguments))
        output.append({**item, "arguments": "".join(arguments)})
        yield event("response.output_item.done", output_index=len(output) - 1, item=output[-1])
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    done = {**response, "status": "completed", "output": output, "usage": usage}
    yield event("response.completed", response=done)


def _gemini(pieces, thoughts, arguments):
    def event(part, **more):
        candidate = {"content": {"parts": [part], "role": "model"}, "index": 0, **more.pop("candidate", {})}
        return None, {"candidates": [candidate], "modelVersion": "m", "responseId": "r", **more}

    for piece in thoughts:
        yield event({"text": piece, "thought": True})
    for piece in pieces:
        yield event({"text": piece})
    if arguments:  # a call is whole in one event, whose JSON has the arguments as they stand
        _, call = event({"functionCall": {"id": "c", "name": "f", "args": "ARGUMENTS"}})
        yield None, json.dumps(call).replace('"ARGUMENTS"', "".join(arguments))
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}
    yield event({"text": ""}, candidate={"finishReason": "STOP"}, usageMetadata=usage)


_EVENTS = {
    "gemini_generate_content": _gemini,
    "openai_chat": _chat,
    "openai_completions": _completions,
    "openai_responses": _responses,
    "anthropic_messages": _messages,
}


def stream(dialect, pieces=(), *, thoughts=(), arguments=(), newline="\n", escape=True):
    """The bytes of a streamed answer that says `pieces`, an event each."""
    out = []
    for name, data in _EVENTS[dialect](list(pieces), list(thoughts), list(arguments)):
        said = data if isinstance(data, str) else json.dumps(data, ensure_ascii=escape, separators=(",", ":"))
        out.append(f"event: {name}{newline}" * (name is not None) + f"data: {said}{newline}{newline}")
    return "".join(out).encode()


def heard(dialect, body):
    """The words of each text in a streamed answer: text, thoughts, arguments; and the last event's error, if any."""
    words = {"text": "", "thoughts": "", "arguments": "", "error": None}
    framing = SSE()
    for event in [*framing.feed(body), *framing.end()]:
        if event.data is None or event.data == b"[DONE]":
            continue
        try:
            data = json.loads(event.data)
        except ValueError:  # a stream that broke off
            continue
        if "error" in data or data.get("type") == "error":
            words["error"] = data.get("error") or data
        for kind, said in _READ[dialect](data):
            words[kind] += said
    return words


def _read_chat(data):
    for choice in data.get("choices", ()):
        delta = choice.get("delta") or {}
        yield "text", delta.get("content") or ""
        yield "thoughts", delta.get("reasoning_content") or ""
        for call in delta.get("tool_calls", ()):
            yield "arguments", call["function"]["arguments"]


def _read_completions(data):
    for choice in data.get("choices", ()):
        yield "text", choice["text"]


def _read_messages(data):
    delta = data.get("delta") or {}
    yield "text", delta.get("text") or ""
    yield "thoughts", delta.get("thinking") or ""
    yield "arguments", delta.get("partial_json") or ""


def _read_responses(data):
    kinds = {
        "response.output_text.delta": "text",
        "response.reasoning_summary_text.delta": "thoughts",
        "response.function_call_arguments.delta": "arguments",
    }
    if data["type"] in kinds:
        yield kinds[data["type"]], data["delta"]


def _read_gemini(data):
    for candidate in data.get("candidates", ()):
        for part in candidate["content"]["parts"]:
            yield "thoughts" if part.get("thought") else "text", part.get("text") or ""
            if "functionCall" in part:
                yield "arguments", json.dumps(part["functionCall"]["args"])


_READ = {
    "gemini_generate_content": _read_gemini,
    "openai_chat": _read_chat,
    "openai_completions": _read_completions,
    "openai_responses": _read_responses,
    "anthropic_messages": _read_messages,
}


class Played:
    """One exchange through a gateway: the head the client gets, and the body."""

    def __init__(self, world, dialect, *, body=None, headers=None):
        self.world, self.dialect = world, dialect
        self.stream = world.stream()
        self.body = body or request(dialect)
        self.headers = headers or {}
        self.head, self.out, self.ended = None, b"", False
        self.sent = None

    async def ask(self):
        path = PATHS.get(self.dialect, "/v1/embeddings")
        headers = {":method": "POST", ":path": path, **self.headers}
        self.began = await self.stream.on_request_headers(headers, False)
        self.sent = await self.stream.on_request_body(json.dumps(self.body).encode())
        return self.sent

    async def answer(self, chunks, kind="text/event-stream", headers=None):
        """Play the chunks of an answer. Ends where the gateway ends it."""
        await self.ask()
        assert not isinstance(self.sent, LocalReply), self.sent.body
        given = {":status": "200", "content-type": kind, **(headers or {})}
        self.head = await self.stream.on_response_headers(given, {"upstream.request_attempt_count": 1.0}, False)
        for index, chunk in enumerate(chunks):
            if isinstance(self.head, LocalReply) or self.ended:
                break
            said = await feed(self.stream, chunk, index == len(chunks) - 1)
            if said.head is not None:
                assert self.head is None
                self.head = said.head
            assert self.head is not None or not said.body, "a body in front of its head"
            self.out += said.body
            self.ended = said.end
        await self.end()
        return self

    async def end(self):
        """Wait for what is recorded late, too."""
        await self.stream.on_end()
        await self.world.audits.drain()

    @property
    def status(self):
        return self.head.status if isinstance(self.head, LocalReply) else 200

    @property
    def row(self):
        return next(line for line in self.world.log if line["event"] == "exchange")

    @property
    def verdicts(self):
        return [(each["guardrail"], each["on"], each["action"], each["findings"]) for each in self.world.verdicts]

    @property
    def usage(self):
        row = self.row
        return row["status"], row["error"], row["input_tokens"], row["output_tokens"], row["usage_source"]
