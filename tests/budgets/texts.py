"""Kinds of text by which counts of tokens are judged, always the same."""

import json
from base64 import b64encode
from random import Random

R = Random(1)


def drawn(first, last, size=2000):
    return "".join(chr(R.randrange(first, last)) for _ in range(size))


PROSE = (
    "The gateway holds the amount before a request leaves, and settles it when the answer has ended. A limit therefore "
    "holds with any number of requests in flight, and nobody has to wait for a report of the day before. Prices change "
    "rarely; what changes often is who uses which model, and for what. So the first question of every month is not how "
    "much was spent, but by whom.\n\n"
) * 12
CODE = '''
def read(self, size: int = -1) -> bytes:
    """Read so many bytes, or all of them."""
    if size < 0:
        return self._rest()
    pieces: list[bytes] = []
    while size > 0 and (piece := self._source.recv(min(size, 65536))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
'''
ROWS = [
    {"id": R.randrange(10**9), "name": f"user{i}", "tags": ["a", "bc"], "ok": True, "x": R.random()} for i in range(99)
]
LINES = ["return x", "if a:", "for i in y:", "pass", "}", "{", "x = 1", "<div>", "</div>"]
PICTURES = ["😀", "😂", "🎉", "👍", "🔥", "🚀", "✨", "🙏", "🧿", "🫠", "🪩", "🦥", "🏳️\u200d🌈", "👩\u200d👩\u200d👧"]

ASCII = {
    "English": PROSE,
    "code": CODE * 20,
    "indented": "\n".join(" " * (4 * R.randrange(12)) + R.choice(LINES) for _ in range(600)),
    "indented by chance": "".join(" " * R.randrange(40) + f"<td class='c{i % 7}'>{i}</td>\n" for i in range(300)),
    "JSON arguments": json.dumps({"path": "/src/app/main.py", "old_str": CODE * 3, "new_str": CODE * 4}),
    "JSON": json.dumps(ROWS),
    "JSON with indents": json.dumps(ROWS, indent=2),
    "JSON without spaces": json.dumps(ROWS, separators=(",", ":")),
    "base64": b64encode(R.randbytes(6000)).decode(),
    "hex": R.randbytes(4000).hex(),
    "digits": "".join(str(R.randrange(10)) for _ in range(6000)),
    "signs": "".join(R.choice("!#$%&()*+,-./:;<=>?@[]^_{|}~") for _ in range(4000)),
    "letters": "".join(R.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(4000)),
    "capitals": "".join(R.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(4000)),
    "table": "| a   | b    |\n|-----|------|\n" * 100,
    "minified": "function a(b,c){var d=b.length,e=0;for(;e<d;e++){if(b[e]===c)return e}return-1}var f=[1,2,3];" * 40,
}
BEYOND = {
    "German": "Heute ist sehr schönes Wetter, und wir gehen im Park spazieren. Die Leistungsfähigkeit der Datenbank "
    "hängt vom Entwurf der Verzeichnisse ab, über die niemand gerne spricht. " * 25,
    "French": "Il fait très beau aujourd'hui et nous allons nous promener dans le parc. " * 40,
    "Chinese": "今天天气很好，我们去公园散步。人工智能正在改变世界，许多公司都在使用大型语言模型来提高工作效率。" * 40,
    "random Chinese": drawn(0x4E00, 0x9FA5),
    "Japanese": "今日はとても良い天気ですので、公園を散歩しましょう。データベースの性能は設計に依存します。" * 40,
    "Korean": "오늘은 날씨가 아주 좋아서 공원에서 산책을 합니다. 데이터베이스 성능은 설계에 따라 달라집니다. " * 40,
    "Russian": "Сегодня очень хорошая погода, и мы пойдём гулять в парк. Всё зависит от индексов. " * 40,
    "Greek": "Σήμερα ο καιρός είναι πολύ καλός και θα πάμε βόλτα στο πάρκο. " * 40,
    "Hebrew": "היום מזג האוויר יפה מאוד ואנחנו הולכים לטייל בפארק. " * 40,
    "Arabic": "الطقس جميل جدا اليوم وسنذهب في نزهة إلى الحديقة. يعتمد أداء قاعدة البيانات على تصميم الفهارس. " * 40,
    "Hindi": "आज मौसम बहुत अच्छा है और हम पार्क में टहलने जाएंगे। डेटाबेस का प्रदर्शन सूचकांक पर निर्भर करता है। " * 40,
    "Thai": "วันนี้อากาศดีมาก เราจะไปเดินเล่นในสวนสาธารณะ ประสิทธิภาพของฐานข้อมูลขึ้นอยู่กับดัชนี " * 40,
    "Tamil": "இன்று வானிலை மிகவும் நன்றாக உள்ளது, நாங்கள் பூங்காவில் நடக்கச் செல்கிறோம். " * 40,
    "Ethiopic": "ሰላም ለዓለም ሁሉ። ዛሬ የአየሩ ሁኔታ በጣም ጥሩ ነው፤ ወደ መናፈሻ እንሄዳለን። የመረጃ ቋቱ አፈጻጸም በንድፉ ላይ የተመሠረተ ነው። " * 40,
    "random Ethiopic": drawn(0x1200, 0x1340),
    "emoji": "".join(R.choice(PICTURES) for _ in range(1500)),
    "random emoji": drawn(0x1F300, 0x1F6FF),
    "Yi": drawn(0xA000, 0xA48C),
    "Braille": drawn(0x2800, 0x28FF),
    "mathematics": "".join(R.choice("∀∃∈∉∑∏∫√∞≈≠≤≥⊂⊆∪∩→⇒αβγλμπ𝒜𝔸𝕏 ") for _ in range(2000)),
}
MIXED = "".join(text[:700] for text in (ASCII | BEYOND).values())
TEXTS = ASCII | BEYOND | {"mixed": MIXED}
