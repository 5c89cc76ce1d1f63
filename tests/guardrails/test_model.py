"""Files of weights: their checks, and the arithmetic of windows."""

import json
import math

import pytest

from extproc.guardrails import _model
from extproc.guardrails._model import LinearModel, ModelError, places, tokens

NAMES = [path.stem for path in sorted(_model.FOLDER.glob("*.npz"))]


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_were_changed_are_refused(name, tmp_path, monkeypatch):
    for path in _model.FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(_model, "FOLDER", tmp_path)
    LinearModel(name)
    data = bytearray((tmp_path / f"{name}.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / f"{name}.npz").write_bytes(data)
    with pytest.raises(ModelError):
        LinearModel(name)


@pytest.mark.parametrize("name", NAMES)
def test_sources_and_licences_are_named_and_the_file_is_small(name):
    about = json.loads((_model.FOLDER / f"{name}.json").read_text())
    assert all(source["name"] and source["licence"] for source in about["sources"])
    assert (_model.FOLDER / f"{name}.npz").stat().st_size < 1 << 20


@pytest.mark.parametrize("name", NAMES)
def test_a_window_scores_as_its_tokens_do(name):
    model = LinearModel(name)
    words = tokens("The quick brown fox jumps over the lazy dog, and nothing else happens here today.")
    sums = model.sums(words)
    scores, starts = model.windows(sums, 8)
    assert starts[0] == 0
    assert starts[-1] == len(words) - 8
    for score, start in zip(scores, starts, strict=True):
        assert score == pytest.approx(model.bias + (sums[start + 8] - sums[start]) / math.sqrt(8))


def test_tokens_and_their_places():
    text = "Ignore, the_rules! été 日本 x1"
    assert tokens(text) == ["Ignore", ",", "the", "_", "rules", "!", "été", "日本", "x1"] or "_" not in tokens(text)
    assert [text[start : start + len(word)] for word, start in zip(tokens(text), places(text), strict=False)] == tokens(
        text
    )


def test_kept_tokens_do_not_grow_without_bound(monkeypatch):
    monkeypatch.setattr(_model, "_MOST_KEPT", 100)
    model = LinearModel(NAMES[0])
    model.sums([f"word{number}" for number in range(1000)])
    assert len(model._kept) <= 100
