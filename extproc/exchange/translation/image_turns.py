"""Images in a model's turns, for APIs that accept images from users only."""

from __future__ import annotations

from extproc.words.messages import ImagePart, Message, Prompt, TextPart

SHOWN = "What the answer before showed:"


def show_images(prompt: Prompt) -> None:
    """Move images of each model's turn into the user's turn behind it."""
    if not any(_images(message) for message in prompt.messages):
        return
    made: list[Message] = []
    waiting: list[TextPart | ImagePart] = []
    for message in prompt.messages:
        if message.role == "user" and waiting:
            message.parts[:0] = waiting
            waiting = []
        images = _images(message)
        if images:
            message.parts = [part for part in message.parts if not isinstance(part, ImagePart)]
            waiting += [TextPart(SHOWN), *images]
        if message.parts:
            made.append(message)
    if waiting:
        made.append(Message("user", [*waiting]))
    prompt.messages[:] = made


def _images(message: Message) -> list[ImagePart]:
    if message.role != "assistant":
        return []
    return [part for part in message.parts if isinstance(part, ImagePart)]
