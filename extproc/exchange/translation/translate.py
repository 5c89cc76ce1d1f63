"""Translation of one try, through `messages`: its request into the provider's API, its answer into the client's.

A plain answer is held until it is complete; a stream is translated event by event. Usage that the client's API cannot
express reaches the gateway attachment beside the answer (see `contract`).

`Select` skips a target whose API cannot express a field that changes the request's meaning. An advisory field is left
out and named in `x-ai-ignored`. The gateway attachment accepts usage beside an answer only from a try that translated,
shown by a header that providers cannot forge. It then ignores the answer's own counts: a translation writes zeros for
required counts that the provider did not give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec

from extproc.dialects import provider_apis, safe_names
from extproc.dialects._effort import forgo_thinking
from extproc.exchange.translation.call_ids import distinct_calls
from extproc.exchange.translation.image_turns import show_images
from extproc.exchange.translation.last_turn import end_with_user
from extproc.exchange.translation.prompt_cache import mark_stable
from extproc.exchange.translation.tool_names import ToolNames
from extproc.upstream.providers import kinds
from extproc.wire.framing import EMPTY_LIMIT, OVERSIZE, UNREADABLE, Frame
from extproc.wire.framing.content_types import AMAZON, framing_for
from extproc.wire.framing.inflate import Inflate
from extproc.wire.framing.intake import Intake
from extproc.words import contract
from extproc.words.api import ClientAPI, ClientTranslation, ProviderAPI, translation_of
from extproc.words.contract import Service
from extproc.words.dialect import Decoder, Destination
from extproc.words.errors import PROVIDER_BAD_ANSWER, Refusal
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, EmbeddingPrompt, Embeddings, Ended, Event, Failed, Started, Used

_MORE = 1.1
"""Growth of the output, as a factor, that is reported before the end."""
Unwrap = Callable[[bytes], bytes]
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(msgspec.Raw).decode


class Translation:
    """Translation of one try: `request`, then `problem`, `answer` or `TranslatedStream` for the answer."""

    def __init__(self, client: ClientAPI, service: Service) -> None:
        self.client = client
        self.model = service.model  # model's name for answers without one
        self.streamed = service.stream
        self.ignored: list[str] = []
        self._encoding: Literal["float", "base64"] = "float"  # encoding of embeddings
        self._service = service
        self._names: ToolNames | None = None
        self.one_call = False  # see `Prompt.one_call`
        self._translated = service.dialect != client.name or service.anew
        self.large_events = False  # True: events of the answer may hold images
        if (api := provider_apis().get(service.dialect)) is not None:
            self.large_events = api.able.images and api.able.image_turns

    @property
    def api(self) -> ProviderAPI:
        """The provider's API. Only for a service whose answers are read."""
        return provider_apis()[self._service.dialect]

    @property
    def into(self) -> ClientTranslation:
        """The client's API as a translation. Only for a translated request, or an answer that is read."""
        return translation_of(self.client)

    @property
    def names(self) -> ToolNames | None:
        """Tool names to restore in the answer; None without changed names."""
        return self._names if self._names is not None and self._names.changed else None

    @property
    def translates(self) -> bool:
        """True when the request is rewritten: client and provider speak different APIs, or the service asks for it."""
        return self._translated

    @property
    def reads_answer(self) -> bool:
        """True when the answer is read; False when only the request was rewritten."""
        return self._translated or self._service.dialect in kinds()[self._service.kind].unwrap

    def request(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> tuple[str, bytes]:
        """The path behind the provider's base_url, and the body. Raises Refusal for a request without a translation."""
        service, provider = self._service, kinds()[self._service.kind]
        destination = Destination(service.model, service.max_output_tokens, provider.more)
        made = self.client.offers.naming.for_model(dict(body), service.model)
        if self._translated:
            api, able = self.api, self.api.able
            dropped: Sequence[str] = ()
            if service.drop_hosted:
                body, dropped = self.into.without_hosted(body)
            prompt = self.into.decode_request(body)
            unable = [] if service.reasoning and able.reasons(service.model) else forgo_thinking(prompt)
            if not isinstance(prompt, EmbeddingPrompt) and not able.image_turns:
                show_images(prompt)
            if service.cache and able.cache_marks:
                mark_stable(prompt)
            if isinstance(prompt, EmbeddingPrompt):
                self._encoding = prompt.encoding
            else:
                prompt.stream = self.streamed  # the client's path, not its body, may ask for a stream
                distinct_calls(prompt)
                end_with_user(prompt)
                self._names = ToolNames(prompt, able)
                self.one_call = prompt.one_call
                self.large_events = self.large_events or prompt.images
            made, ignored = api.encode_request(prompt, destination)
            self.ignored = safe_names([*dropped, *prompt.ignored, *unable, *ignored])
        path = self._path(destination)
        if headers and service.dialect == self.client.name:
            for name, field in provider.in_body.items():
                if name in headers:
                    made.setdefault(field, [value.strip() for value in headers[name].split(",") if value.strip()])
        if provider.adapt is not None:
            path, made = provider.adapt(service.dialect, service.model, self.streamed, path, made)
        return path, _encode(made)

    def _path(self, destination: Destination) -> str:
        own = self.client.offers.naming.path
        if own is not None and self._service.dialect == self.client.name:
            return own(destination, self.streamed)
        if (api := provider_apis().get(self._service.dialect)) is not None:
            return api.path(destination, stream=self.streamed)
        return next(iter(self.client.endpoints.paths)).removeprefix("/v1")

    def headers(self) -> dict[str, str]:
        """Response headers for the gateway attachment."""
        if not self.translates:  # the gateway attachment reads the provider's answer itself
            return {}
        found = {contract.TRANSLATED: "1"}
        if self.ignored:
            found[contract.IGNORED] = ",".join(self.ignored)
        return found

    def problem(self, status: int, body: bytes) -> bytes:
        """The body of a provider's error answer, in the client's API."""
        return _encode(self.into.encode_problem(status, self.api.decode_problem(status, body)))

    def answer(self, body: bytes) -> tuple[bytes, Usage | None]:
        """A translated plain answer, and its usage. Raises Refusal for another body."""
        try:
            answer = self.api.decode_answer(body)
        except (ValueError, RecursionError):
            raise bad_answer("does not have the shape of its API") from None
        answer.model = answer.model or self.model
        if isinstance(answer, Embeddings):
            answer.encoding = self._encoding
        else:
            answer.one_call = self.one_call
        if not isinstance(answer, Embeddings) and (names := self.names) is not None:
            names.restore(part for choice in answer.choices for part in choice.parts)
        return _encode(self.into.encode_answer(answer)), answer.usage

    def decoder(self) -> Decoder:
        """Reader of the provider's stream."""
        assert self.api.decoder is not None, self.api.name
        return self.api.decoder()

    def stream(
        self,
        content_type: str,
        *,
        event_limit: int,
        body_limit: int,
        empty_limit: int = EMPTY_LIMIT,
        inflate: Inflate | None = None,
    ) -> TranslatedStream | Unwrapping:
        """A streamed answer. Raises Refusal for another content type."""
        unwrap = kinds()[self._service.kind].unwrap.get(self._service.dialect)
        wanted = AMAZON if unwrap else self.api.able.stream_type
        kind = content_type.partition(";")[0].strip().lower()
        framing = framing_for(kind, event_limit=event_limit, body_limit=body_limit, empty_limit=empty_limit)
        if kind != wanted or framing is None:
            raise bad_answer("is not a stream, although one was requested")
        intake = Intake(framing, inflate)
        if unwrap is None or self.translates:
            return TranslatedStream(self, intake, unwrap)
        return Unwrapping(self, intake, unwrap)


class _Steps:
    """A streamed answer in an attempt, in steps of `Intake`. `more`: another step waits. `over`: the answer ended, or
    reported an error.
    """

    def __init__(self, intake: Intake) -> None:
        self.failed = False
        self._intake = intake

    @property
    def more(self) -> bool:
        return self._intake.more

    @property
    def pause(self) -> float:
        """Seconds until the next step may begin."""
        return self._intake.pause

    @property
    def over(self) -> bool:
        return self.failed or self._intake.ended

    def _take_events(self, chunk: bytes, end: bool) -> tuple[Sequence[Frame], str]:
        """Events of the next step, and the reason to end the answer here, if any."""
        try:
            return self._intake.take(chunk, end), ""
        except Refusal as refusal:
            return (), refusal.message


class TranslatedStream(_Steps):
    """A streamed answer, translated event by event."""

    def __init__(self, translation: Translation, intake: Intake, unwrap: Unwrap | None = None) -> None:
        super().__init__(intake)
        self._unwrap = unwrap
        self._decoder = translation.decoder()
        self._reads, self._texts_at = translation.api.able.reads, translation.api.able.texts_at
        self._encoder = translation.into.encoder()
        self._model = translation.model
        self._names = translation.names
        self._one_call = translation.one_call
        self._usage: Usage | None = None
        self._told: Usage | None = None
        self._over = False

    def feed(self, chunk: bytes, end: bool) -> bytes:
        """Bytes for the client; at `end`, all remaining ones."""
        out: list[bytes] = []
        events, problem = self._take_events(chunk, end)
        for event in events:
            if not self._over:
                self._say(self._read(event, cut=event is self._intake.rest), out)
                if event.events > 1:
                    out.append(contract.EVENTS_EVENT + b"%d\n\n" % (event.events - 1))
        if self._unwrap is None:
            self._intake.learn(events, self._reads, self._texts_at)
        self._intake.pace(events)
        if problem:
            self._say([Failed(problem)], out)
            self.failed = True
        elif self._intake.ended:
            self._say(self._decoder.end(), out)
            self._say([Failed(_CUT)], out)
        return b"".join(out)

    def _read(self, event: Frame, *, cut: bool = False) -> Sequence[Event]:
        if event.name == OVERSIZE:
            return [Failed("The provider sent an event that is too large to be read.")]
        if event.data is None:
            return ()
        if self._unwrap is None:
            found = self._decoder.feed(event.data, event.name)
            return found if found or cut else _damage(event.data)
        if event.name.startswith(_BROKEN):
            return [Failed(_BROKE_OFF)]
        try:
            return self._decoder.feed(self._unwrap(event.data), "")
        except ValueError:
            return ()

    def _send_usage(self, out: list[bytes]) -> None:
        """Send the gateway attachment the usage so far, if it grew: the client may leave before the end."""
        usage, told = self._usage, self._told
        if usage is None or (told and usage.input_tokens <= told.input_tokens and not _grown(usage, told)):
            return
        self._told = usage
        out += [contract.USAGE_EVENT, contract.encode_usage(replace(usage, source="estimated")), b"\n\n"]

    def _say(self, events: Sequence[Event], out: list[bytes]) -> None:
        for event in events:
            if self._over:
                return
            if type(event) is Used:
                self._usage = event.usage
            elif type(event) is Delta and self._usage is not self._told:
                self._send_usage(out)
            elif type(event) is Started:
                event.model = event.model or self._model
                event.one_call = self._one_call
                self._usage = event.usage
            elif type(event) is Ended or type(event) is Failed:
                self._over, self.failed = True, type(event) is Failed
                # Usage goes before the last event, because clients leave after it
                if (usage := self._usage) is not None:
                    out += [contract.USAGE_EVENT, contract.encode_usage(usage), b"\n\n"]
            elif type(event) is Delta and event.name and self._names:
                self._names.restore((event,))
            out.append(self._encoder.feed(event))


class Unwrapping(_Steps):
    """A streamed answer in the client's own dialect, unwrapped from Amazon's binary events."""

    def __init__(self, translation: Translation, intake: Intake, unwrap: Unwrap) -> None:
        super().__init__(intake)
        self._ended = False
        self._unwrap = unwrap
        self._translation = translation

    def feed(self, chunk: bytes, end: bool) -> bytes:
        events, problem = self._take_events(chunk, end)
        out = [self._event(event) for event in events]
        if not self._ended and (problem or self._intake.ended):
            out.append(self._fail(problem or _CUT))
        self.failed = self.failed or bool(problem)
        self._intake.pace(events)
        return b"".join(out)

    def _event(self, event: Frame) -> bytes:
        if event.data is None or self.failed:
            return b""
        if event.name.startswith(_BROKEN):
            return self._fail(_BROKE_OFF)
        try:
            data = self._unwrap(event.data)
        except (ValueError, RecursionError):
            return b""
        frame = self._translation.into.frame
        assert frame is not None, self._translation.client.name
        out, last = frame(data)
        self._ended |= last
        return out

    def _fail(self, message: str) -> bytes:
        if self.failed:
            return b""
        self.failed = True
        return self._translation.into.encoder().feed(Failed(message))


def _grown(usage: Usage, told: Usage) -> bool:
    return usage.output_tokens > told.output_tokens * _MORE


def _damage(data: bytes) -> Sequence[Event]:
    """The end of a stream at a damaged event, so that a client does not take the answer for complete."""
    if data.strip() == b"[DONE]":
        return ()
    try:
        _decode(data)
    except UNREADABLE:
        return [Failed(_DAMAGED)]
    return ()


_DAMAGED = "The provider sent a damaged event."
_CUT = "The provider's answer ended before it was complete."
_BROKE_OFF = "The provider broke off."
_BROKEN = ("exception:", "error:")


def bad_answer(what: str) -> Refusal:
    """The 502 refusal of an answer that cannot be translated; the next target may do better."""
    return Refusal(PROVIDER_BAD_ANSWER, f"The provider's answer {what}; try again, or use another model.")
