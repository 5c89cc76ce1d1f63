"""Limits on bodies, streams and requests in flight."""

from __future__ import annotations

from pydantic import Field, field_validator

from extproc.money.budgets import LEASE
from extproc.stores import MAX_PARKED
from extproc.words.values import Duration, PositiveDuration, Section, Size


class LimitsSettings(Section):
    """Limits on bodies, streams and requests in flight."""

    request_body: Size = Field(
        20 << 20,
        ge=1 << 10,
        le=64 << 20,
        description="Largest body of a request, `1KiB` to `64MiB`. A larger one gets 413 `body_too_large`. Raise it "
        "for prompts with many images, together with the memory of Envoy and the processor.",
    )
    json_depth: int = Field(
        128, ge=8, le=512, description="Deepest nesting of a request's JSON. A deeper body gets 400 `invalid_json`."
    )
    json_nodes: int = Field(
        250_000,
        ge=1_000,
        le=10_000_000,
        description="Most values in a request's JSON: objects, lists, texts, numbers. A body with more gets 400 "
        "`invalid_json`. Each takes up to 250 bytes of memory while the request is judged. Raise it for embeddings of "
        "long lists of token ids.",
    )
    json_text: Size = Field(
        16 << 20,
        ge=1 << 20,
        le=256 << 20,
        description="Largest text with characters beyond Latin letters in a request's JSON, `1MiB` to `256MiB`, by the "
        "memory it takes: 2 bytes for each of its characters, or 4 with emoji. A larger one gets 400 `invalid_json`. "
        "Latin text is limited by `request_body` alone.",
    )
    body_memory: Size = Field(
        256 << 20,
        ge=1 << 20,
        le=64 << 30,
        description="Most bytes of request bodies in flight in one process, `1MiB` to `64GiB`. A further request gets "
        "503 `overloaded` with `Retry-After`. A body above 256 KiB counts until it has been sent on, a smaller one "
        "until its exchange ends.",
    )
    body_timeout: PositiveDuration = Field(
        120.0,
        ge=1,
        le=3600,
        description="Longest time for the whole body of a request to arrive, `1s` to `1h`. Envoy then answers 408. "
        "Raise it for large bodies over slow connections.",
    )
    consumer_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Largest share of `exchanges` and of `body_memory` that one consumer may take. A further request "
        "of that consumer gets 429 `rate_limited` with `Retry-After`. Set it to `1` where there is one consumer.",
    )
    buffered_response: Size = Field(
        10 << 20,
        description="Largest plain answer that the gateway reads whole. Of a larger one it reads the usage. A larger "
        "one that has to be translated becomes 502 `provider_bad_answer`.",
    )
    answer_memory: Size = Field(
        256 << 20,
        ge=1 << 20,
        le=64 << 30,
        description="Most bytes of plain answers that one process holds at a time, until each is whole; `1MiB` to "
        "`64GiB`. A further answer is treated as one above `buffered_response`; one that has to be translated becomes "
        "503 `overloaded`.",
    )
    sse_event: Size = Field(
        1 << 20,
        description="Largest event of a stream that the gateway reads whole. Of a larger one it reads the usage. A "
        "translated stream ends with an error there.",
    )
    stream_empty: Size = Field(
        4 << 20,
        ge=64 << 10,
        le=1 << 30,
        description="Most bytes in a row of a streamed answer that carry nothing, `64KiB` to `1GiB`: blank lines, "
        "comments, events without content. The stream then ends with the error `provider_bad_answer`. Raise it for "
        "providers that send very many comments while a model thinks.",
    )
    stream_idle: PositiveDuration = Field(
        600.0,
        description="Longest silence in the middle of an answer, also where the client does not read. A stream then "
        "ends with the error `provider_timeout`; a plain answer breaks off. Answers that "
        "nothing reads, such as errors and web pages, end after the provider's `timeout` where that is longer.",
    )
    answer_buffer: Size = Field(
        256 << 10,
        ge=64 << 10,
        le=16 << 20,
        description="Bytes of an answer that each of Envoy's buffers on the way holds, `64KiB` to `16MiB`. When they "
        "are full, the provider waits for the client. A client that reads slowly takes about ten times as much of "
        "Envoy's memory. Raise it for large answers over long distances.",
    )
    stream_duration: PositiveDuration = Field(
        4 * 3600.0,
        ge=1,
        le=7 * 86400,
        description="Longest time of an exchange, from its first byte to the end of its answer. Envoy then ends it, "
        "however the client reads it. Raise it for answers that take longer.",
    )
    keep_alive: Duration = Field(
        15.0,
        le=3600,
        description="Silence in a streamed answer after which its client gets a comment, `: keep-alive`, so that "
        "proxies and clients in between do not hang up; `1s` to `1h`, or `0s` for none. Only once the provider has "
        "sent the first bytes: until then another target may still serve. Not "
        "for clients whose API has no comments.",
    )
    output_tokens: int | None = Field(
        None,
        ge=1,
        le=1_000_000_000,
        description="Output limit, in tokens, that is written into a request when neither the client nor the model has "
        "one, where a budget counts tokens or USD. The answer says so: `x-ai-capped`. Default: none is written.",
    )
    hosted_tools: int = Field(
        32768,
        ge=0,
        le=1_000_000_000,
        description="Input tokens that budgets hold for tools which the provider runs itself (web search, code "
        "interpreters, MCP). Their text is not in the request, so this is an estimate: the answer is charged what the "
        "provider reports. Raise it where searches are long, to refuse earlier.",
    )
    hosted_calls: int = Field(
        4,
        ge=0,
        le=1000,
        description="Billed calls that budgets in USD hold for each such tool where the request sets no limit "
        "(`max_uses`, `max_tool_calls`): searches, containers, calls of an advisor, pictures. The answer is charged "
        "each call. Raise it where agents search often, to refuse earlier.",
    )
    exchanges: int = Field(
        10000,
        ge=1,
        le=1_000_000,
        description="Most requests in flight in one process. A further one gets 503 `overloaded`.",
    )
    reports: int = Field(
        30,
        ge=1,
        le=10_000,
        description="Most reports that one consumer gets from `/v1/usage` and `/v1/budgets` in a minute. A further one "
        "gets 429 `rate_limited`. Reports are heavier than other requests.",
    )
    lease: PositiveDuration = Field(
        LEASE,
        ge=1,
        le=600,
        description="Time after the death of a process until its reservations end, `1s` to `10m`. They are then "
        "charged if the request had been sent.",
    )
    pending: int = Field(
        MAX_PARKED,
        ge=0,
        le=1_000_000,
        description="Most batches and background responses whose usage is not known yet, among all processes that "
        "share the counters store. A further one is charged when it is created: what was held for it.",
    )
    pending_hold: PositiveDuration = Field(
        7 * 86400.0,
        ge=60,
        le=31 * 86400,
        description="Longest time that a batch or a background response holds its amounts, `1m` to `31d`. One whose "
        "usage is not known by then is charged what was held.",
    )
    pending_results: Size = Field(
        1 << 30,
        ge=1 << 20,
        le=64 << 30,
        description="Largest file of results that is read for the usage of a batch, `1MiB` to `64GiB`. It is read "
        "piece by piece. A batch with a larger one is charged what was held.",
    )
    guardrail_scans: int = Field(
        64,
        ge=1,
        le=10_000,
        description="Most searches of long texts by guardrails at a time in one process. A further one counts as a "
        "failure of its guardrail.",
    )
    quarantined: Size = Field(
        32 << 20,
        ge=64 << 10,
        le=4 << 30,
        description="Most memory for results of tools that guardrails of the kind `quarantine` keep behind references, "
        "in one process, `64KiB` to `4GiB`. The result that was used longest ago leaves first.",
    )
    audited_text: Size = Field(
        32 << 20,
        ge=64 << 10,
        le=4 << 30,
        description="Most memory for text that guardrails with `action: audit` have asked a service about, in one "
        "process, `64KiB` to `4GiB`. No request waits for them; a question beyond it is not asked, and counts as a "
        "failure of the guardrail.",
    )
    first_window: int = Field(
        128,
        ge=0,
        le=16384,
        description="Characters of a streamed answer that blocking guardrails check before any of it leaves. A block "
        "in there is a real 400. `0`: the answer begins with its first checked text. At most 16384.",
    )

    @field_validator("keep_alive")
    @classmethod
    def _whole_seconds(cls, value: float) -> float:
        """Silent streams are looked at about every second."""
        if 0 < value < 1:
            raise ValueError("is 1s or more, or 0s")
        return value
