"""The language of a text, by its letters and its most frequent words. Bounded work for any text, and no model.

It reads the first 600 characters. `python -m bench.language FILE.jsonl` measures it on labelled texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

_READ = 600
_LEAST = 2  # fewest frequent words that tell a language
_SCRIPTS = (  # ranges of letters, the telling ones first: Japanese has Chinese characters, too
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("uk", re.compile(r"[іїєґІЇЄҐ]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("fa", re.compile(r"[پچژگ]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
)
_RARE = {"ja": 20, "uk": 50, "fa": 20}
"""One in so many letters tells the language; half of them otherwise."""
_OTHER = re.compile(r"[\u0370-\U000e007f]")
_WORD = re.compile(r"[^\W\d_]+")
_WORDS: Mapping[str, str] = {
    "en": "the of and to is that for with this you are it as be on not have from was by how what can please my your i",
    "de": "der die und das ist nicht mit den von zu ein eine für auf ich sie wie des im dem bitte kann was es wird mir",
    "fr": "le les des est et une pour dans que qui pas vous je ce sur avec au du sont comment peux être ou à mon ma",
    "es": "el los las es y una para en que no con por se del como qué puedo está al un su lo mi más cómo eres son sus",
    "pt": "o os as é uma para em que não com por do da dos das como você no na ao um meu mais são seu sua ou eu está",
    "it": "il gli le è una per in che non con di del della come sono nel un si mi più questo al e da dei delle anche",
    "nl": "de het een van en is niet voor met dat op ik je zijn wat hoe te aan naar ook er mijn maar of wordt deze bij",
    "pl": "i w nie się na z jest do że to jak co dla czy proszę mi po od przez są lub tym jego oraz ten jako które być",
    "tr": "ve bir bu için ile da de ne mi nasıl olarak çok daha var ama ben sen gibi kadar olan her en şu lütfen ya",  # noqa: RUF001
    "vi": "và của là có không cho một các được trong với này tôi bạn những để như đã người khi về ở làm hãy tại",
    "id": "yang dan di ini itu untuk dengan dari tidak adalah saya anda pada ke apa bagaimana akan atau oleh bisa",
    "sv": "och att det som är en ett inte jag för på med av till den hur kan du har om vad från var mig eller så vi de",
}
_TELLS: Mapping[str, tuple[str, ...]] = {
    word: tuple(language for language, words in _WORDS.items() if word in words.split())
    for words in _WORDS.values()
    for word in words.split()
}


def language(text: str) -> str:
    """ISO 639-1 code of the language of `text`; empty if it does not show."""
    text = text[:_READ]
    if not text.isascii() and len(found := _OTHER.findall(text)) * 4 > len(text.replace(" ", "")):
        letters = "".join(found)
        for code, script in _SCRIPTS:
            if (count := len(script.findall(letters))) * _RARE.get(code, 2) > len(letters) and count:
                return code
        return ""
    votes: Counter[str] = Counter()
    for word in _WORD.findall(text.lower()):
        for code in (told := _TELLS.get(word, ())):
            votes[code] += 12 // len(told)
    (best, most), (_, second) = (*votes.most_common(2), ("", 0), ("", 0))[:2]
    return best if most >= 12 * _LEAST and most > second else ""
