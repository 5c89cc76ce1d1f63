"""Time to check settings grows with their size, not with its square."""

import time

import pytest

from extproc.settings import checks, config
from extproc.settings.document import Document

pytestmark = pytest.mark.alone  # it measures CPU time

LESS, MORE = 1500, 12_000
MODELS = "".join(f"  m{number}: {{provider: a}}\n" for number in range(100))
SIZED = {
    "consumers": '  - {{name: c{0}, team: t, models: ["m{1}*"], keys: [{{hash: "hmac-sha256:{0:064x}"}}]}}\n',
    "keys of one consumer": '    - {{name: k{0}, hash: "hmac-sha256:{0:064x}"}}\n',
    "budgets": "  - {{name: b{0}, match: {{consumer: c}}, unit: usd, limit: 1, window: month}}\n",
}
AROUND = {
    "consumers": "consumers:\n{0}",
    "keys of one consumer": "consumers:\n- name: c\n  keys:\n{0}",
    "budgets": "consumers: [{{name: c}}]\nbudgets:\n{0}",
}


@pytest.mark.parametrize("what", SIZED)
def test_time_to_check_grows_with_the_number(what, monkeypatch):
    monkeypatch.setenv("KEY_SECRET", "s" * 40)
    took = {}
    for count in (LESS, MORE):
        entries = "".join(SIZED[what].format(number, number % 100) for number in range(count))
        head = "providers: {a: {kind: mock, base_url: 'http://a.test/v1'}}\nauth: {key_secret: env:KEY_SECRET}\n"
        text = f"{head}teams: {{t: {{}}}}\nmodels:\n{MODELS}{AROUND[what].format(entries)}"
        settings = config.Settings.model_validate(Document(text, "f").tree)
        work = lambda settings=settings: [*checks.contradictions(settings), *checks.doubts(settings)]  # noqa: E731
        took[count] = min(cpu(work) for _ in range(3))
    assert took[MORE] < 3 * MORE / LESS * took[LESS]


def cpu(work):
    began = time.process_time()
    work()
    return time.process_time() - began
