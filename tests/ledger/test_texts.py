"""The table of recorded texts, in every ledger."""

from extproc.money.texts import Sealed


def sealed(id="id-1", time=100.0, consumer="ada", content="AAAA"):
    return Sealed(id, time, consumer, "k1", content)


def test_a_text_is_found_replaced_and_deleted_by_age_and_consumer(ledger, monkeypatch):
    monkeypatch.setattr("extproc.money.ledger.texts.BATCH", 2)
    assert ledger.texts.find("id-1") is None
    ledger.texts.add([sealed(), sealed("id-2", 200.0, "bob"), sealed("id-3", 50.5), sealed("id-4"), sealed("id-5")])
    ledger.texts.add([sealed(content="BBBB")])
    assert ledger.texts.find("id-1") == sealed(content="BBBB")
    assert ledger.texts.find("id-3").time == 50.5
    assert ledger.texts.prune(60.0) == 1
    assert ledger.texts.find("id-3") is None
    assert ledger.texts.forget("ada") == 3
    assert ledger.texts.find("id-2") == sealed("id-2", 200.0, "bob")
    assert ledger.texts.find("id-5") is None


def test_a_forgotten_consumer_has_no_texts(ledger):
    ledger.texts.add([sealed(), sealed("id-2", consumer="bob")])
    ledger.forget("ada")
    assert ledger.texts.find("id-1") is None
    assert ledger.texts.find("id-2") is not None
