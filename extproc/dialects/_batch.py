"""Inputs of a request that a model reads separately: prompts of completions, texts of embeddings."""

from __future__ import annotations

from typing import Any

from extproc.words.dialect import CHARACTERS_PER_TOKEN, Ask


def add_inputs(ask: Ask, given: Any) -> None:
    """Note the number and length of inputs. `given` is a text, texts, token ids or lists of token ids. For other inputs
    only their number is known.
    """
    inputs = given if isinstance(given, list) else [given]
    if inputs and type(inputs[0]) is int:
        inputs = [inputs]
    ask.inputs = len(inputs)
    if all(isinstance(item, str) for item in inputs):
        sizes = [len(item) for item in inputs]
    elif all(isinstance(item, list) for item in inputs):
        sizes = [len(item) * CHARACTERS_PER_TOKEN for item in inputs]
    else:
        return
    ask.longest_bytes, ask.inputs_bytes = max(sizes), sum(sizes)
