"""Images that models make, between APIs: in answers of chat completions, and in later requests."""

import json

import pytest

from extproc.dialects import client_apis
from extproc.exchange.translation.image_turns import SHOWN, show_images
from extproc.words.dialect import Destination
from extproc.words.messages import ImagePart, Message, Prompt, TextPart, ToolCall, ToolResult

CHAT, RESPONSES, MESSAGES = (client_apis()[name] for name in ("openai_chat", "openai_responses", "anthropic_messages"))
URL = "data:image/webp;base64,UklGRg=="
IMAGES = [{"type": "image_url", "image_url": {"url": URL}}, {"image_url": "https://x.test/a.png"}, {"odd": 1}, None]
SAID = {"role": "assistant", "content": "Here:", "images": IMAGES}
IMAGE = ImagePart("UklGRg==", "image/webp")


def body(name, said=SAID):
    return json.dumps(
        {"id": "c", "model": "m", "choices": [{"index": 0, name: said, "finish_reason": "stop"}]}
    ).encode()


def test_images_of_a_chat_completion_are_read():
    """OpenRouter's; one at an address becomes a text that shows it."""
    answer = CHAT.decode_answer(body("message"))
    assert answer.choices[0].parts == [TextPart("Here:"), IMAGE, TextPart("![image](https://x.test/a.png)")]
    *_, item, _ = RESPONSES.translation.encode_answer(answer)["output"]
    assert (item["type"], item["result"], item["output_format"]) == ("image_generation_call", "UklGRg==", "webp")


@pytest.mark.parametrize(
    ("client", "told"),
    [(RESPONSES, b'"result":"UklGRg=="'), (MESSAGES, b"An image (image/webp) was left out"), (CHAT, URL.encode())],
)
def test_streamed_images_of_a_chat_completion_are_read(client, told):
    decoder, encoder = CHAT.decoder(), client.translation.encoder()
    events = [*decoder.feed(body("delta"), ""), *decoder.end()]
    written = b"".join(encoder.feed(event) for event in events)
    assert told in written
    assert b"x.test/a.png" in written


def test_images_are_asked_for_in_a_chat_that_is_written_anew():
    prompt = CHAT.translation.decode_request(
        {"model": "m", "messages": [{"role": "user", "content": "A"}], "modalities": ["image"]}
    )
    made, _ = CHAT.encode_request(prompt, Destination("m"))
    assert made["modalities"] == ["image", "text"]


def test_images_of_an_answer_move_to_the_turn_of_the_user_behind_it():
    call, result = ToolCall("1", "f", "{}"), ToolResult("1", [TextPart("ok")])
    messages = [
        Message("user", [TextPart("A cat")]),
        Message("assistant", [TextPart("Here:"), IMAGE, call]),
        Message("user", [result]),
        Message("assistant", [IMAGE]),
    ]
    prompt = Prompt(model="m", messages=messages)
    show_images(prompt)
    assert [(message.role, message.parts) for message in prompt.messages[1:]] == [
        ("assistant", [TextPart("Here:"), call]),
        ("user", [TextPart(SHOWN), IMAGE, result]),
        ("user", [TextPart(SHOWN), IMAGE]),
    ]


def test_images_of_earlier_answers_are_weighed_as_images():
    large = [{"image_url": {"url": "data:image/png;base64," + "A" * 9000}}]
    ask = CHAT.read({"model": "m", "messages": [{"role": "assistant", "content": "Here:", "images": large}]})
    assert ask.image_bytes > 9000
    assert "images" in ask.needs


def test_images_are_no_text_for_guardrails_and_their_addresses_are():
    pieces = CHAT.said({"choices": [{"index": 0, "delta": SAID}]})
    assert [piece.value for piece in pieces] == ["Here:", "https://x.test/a.png"]
