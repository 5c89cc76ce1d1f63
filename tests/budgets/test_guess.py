"""Tokens guessed from a text's kinds of characters, against the exact count of o200k_base."""

import json
from base64 import b64encode
from random import Random

import pytest

from extproc.budgets import tokenizer
from extproc.budgets.guess import about, guess

R = Random(1)
ROWS = [
    {"id": R.randrange(10**9), "name": f"user{i}", "tags": ["a", "bc"], "ok": True, "x": R.random()} for i in range(99)
]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = {
    "prose": "The gateway holds the amount before a request leaves, and settles it when the answer has ended. " * 40,
    "code": "def read(self, size: int = -1) -> bytes:\n    if size < 0:\n        return self._rest()\n" * 40,
    "JSON": json.dumps(ROWS),
    "JSON with indents": json.dumps(ROWS, indent=2),
    "JSON without spaces": json.dumps(ROWS, separators=(",", ":")),
    "base64": b64encode(R.randbytes(6000)).decode(),
    "hex": R.randbytes(4000).hex(),
    "digits": "".join(str(R.randrange(10)) for _ in range(6000)),
    "numbers": "\n".join(",".join(f"{R.random() * 1000:.3f}" for _ in range(8)) for _ in range(100)),
    "signs": "".join(R.choice("!#$%&()*+,-./:;<=>?@[]^_{|}~") for _ in range(4000)),
    "letters": "".join(R.choice(LETTERS) for _ in range(4000)),
    "capitals": "".join(R.choice(LETTERS.upper()) for _ in range(4000)),
    "Chinese": "今天天气很好，我们去公园散步。人工智能正在改变世界，许多公司都在使用大型语言模型来提高工作效率。" * 40,
    "Japanese": "今日はとても良い天気ですので、公園を散歩しましょう。データベースの性能は設計に依存します。" * 40,
    "Korean": "오늘은 날씨가 아주 좋아서 공원에서 산책을 합니다. 데이터베이스 성능은 설계에 따라 달라집니다. " * 40,
    "Russian": "Сегодня очень хорошая погода, и мы пойдём гулять в парк. Всё зависит от индексов. " * 40,
    "Arabic": "الطقس جميل جدا اليوم وسنذهب في نزهة إلى الحديقة. يعتمد أداء قاعدة البيانات على تصميم الفهارس. " * 40,
    "Hindi": "आज मौसम बहुत अच्छा है और हम पार्क में टहलने जाएंगे। डेटाबेस का प्रदर्शन सूचकांक पर निर्भर करता है। " * 40,
    "Thai": "วันนี้อากาศดีมาก เราจะไปเดินเล่นในสวนสาธารณะ ประสิทธิภาพของฐานข้อมูลขึ้นอยู่กับดัชนี " * 40,
    "German": "Heute ist sehr schönes Wetter, und wir gehen im Park spazieren. Die Leistungsfähigkeit zählt. " * 40,
    "pictures": "".join(R.choice("😀😂🎉👍🔥🚀✨🙏") for _ in range(1000)),
    "a path of SVG": " ".join(f"{R.choice('MLCQ')}{R.random() * 100:.1f},{R.random() * 100:.1f}" for _ in range(400)),
    "minified": "function a(b,c){var d=b.length,e=0;for(;e<d;e++){if(b[e]===c)return e}return-1}var f=[1,2,3];" * 40,
}


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_is_counted_much_too_low_or_too_high(name):
    tokenizer.load().join()
    text = TEXTS[name].encode()
    true = tokenizer.count(text, 1 << 20)
    assert 0.9 * true <= guess(TEXTS[name]) <= 1.6 * true
    assert 0.9 * true <= about(text) <= 1.6 * true, "of slices too"
    assert 0.9 * true <= about(text[:2000], len(text)) <= 1.6 * true, "of its beginning too"


def test_a_text_of_which_nothing_was_kept_is_counted_by_its_size():
    assert about(b"", 300) == 100
    assert about(b"") == 0
