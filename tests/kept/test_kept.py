"""Ids of objects that providers keep: sealed for one consumer, opened for nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.access.kept import Ids, Object, is_sealed, owner
from extproc.access.kept.stages import Seal
from extproc.dialects import Finder, client_apis
from extproc.settings.checks import doubts
from extproc.upstream.providers import ProviderSettings
from extproc.wire.framing.json import WholeBody
from extproc.words.exchange import Consumer, Kept, ResponseHead, Target
from extproc.words.values import Secret
from tests.exchanges import new_exchange, write

RAW = "resp_68d5ab3d0c"


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for name in ("A_KEY", "B_KEY", "OBJECT_KEY"):
        monkeypatch.setenv(name, f"secret of {name}")


def ids(key=None, **kinds):
    """Ids for providers, each with the name of the variable that holds its key."""
    settings = {
        name: ProviderSettings(kind="openai", base_url="http://127.0.0.1/v1", api_key=variable and f"env:{variable}")
        for name, variable in (kinds or {"a": "A_KEY", "b": "B_KEY"}).items()
    }
    return Ids(settings, key and Secret("env", key))


def test_an_id_leads_to_its_object_at_any_replica():
    object = Object("b", "gpt-5.4", RAW)
    sealed = ids().seal("demo", object)
    assert is_sealed(sealed)
    assert sealed.startswith("resp_kept_")
    assert not any(part in sealed for part in (RAW[5:], "gpt"))
    assert ids().seal("demo", object) == sealed
    assert ids().open("demo", sealed) == object
    assert ids().seal("other", object) != sealed
    assert ids().open("other", sealed) is None


def test_the_longest_names_have_an_id_that_can_be_called():
    object = Object("a", "m" * 256, "resp_" + "x" * 256)
    sealed = ids().seal("demo", object)
    assert ids().open("demo", sealed) == object
    [dialect, endpoint] = Finder(client_apis().values()).calls(f"/v1/responses/{sealed}/input_items")["GET"]
    assert (dialect.name, endpoint.id) == ("openai_responses", sealed)


def exchange_of(dialect, body, *providers, **more):
    targets = tuple(Target(name, name, "m") for name in providers)
    kept = Kept(sealing=client_apis()[dialect].offers.stored.keeps(body))
    made = new_exchange("id")
    write(made, dialect=client_apis()[dialect], json=body, targets=targets, target=None, kept=kept, **more)
    return made


def test_only_ids_of_answers_that_are_kept_are_sealed():
    seal = Seal(ids(a="A_KEY", keyless=None))
    for dialect, body, provider, sealed in (
        ("openai_responses", {}, "a", True),
        ("openai_responses", {"store": False}, "a", False),
        ("openai_responses", {}, "keyless", False),
        ("openai_chat", {}, "a", False),
        ("openai_responses_compact", {}, "a", False),
        ("openai_batches", {}, "a", True),
    ):
        made = exchange_of(dialect, body, provider)
        made.answer.target, made.answer.head = made.route.targets[0], ResponseHead(200, {})
        assert seal.needed(made, WholeBody(1000)) is sealed, (dialect, body, provider)


def test_a_consumer_that_only_a_token_names_is_another_one():
    assert owner(Consumer("demo")) != owner(Consumer("demo", listed=False))


def test_a_changed_id_leads_nowhere():
    sealed, many = ids().seal("demo", Object("a", "m", RAW)), ids()
    changed = [sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :] for at in range(5, len(sealed))]
    # The last characters of base64 can hold bits that stand for nothing.
    found = [many.open("demo", each) for each in (*changed, "file_" + sealed[5:], sealed + "A" * 1024, sealed[:20])]
    assert [each for each in found if each is not None] in ([], [Object("a", "m", RAW)])


def test_ids_are_void_without_the_key_that_sealed_them(monkeypatch):
    object = Object("a", "m", RAW)
    by_provider, by_setting = ids().seal("demo", object), ids("OBJECT_KEY").seal("demo", object)
    monkeypatch.setenv("A_KEY", "replaced")
    assert ids().open("demo", by_provider) is None
    assert ids("OBJECT_KEY").open("demo", by_setting) == object
    assert ids(a="B_KEY").open("demo", by_provider) is None


def test_a_provider_without_a_secret_has_no_sealed_ids():
    assert not ids(a=None).able("a")
    assert ids(a=None).seal("demo", Object("a", "m", RAW)) is None
    assert ids("OBJECT_KEY", a=None).able("a")
    assert not ids("UNSET_FOR_SURE").able("a")  # never the provider's key in place of a missing one


@given(st.text(max_size=40) | st.text("kept_resp-AZ09", max_size=60).map(lambda text: f"resp_kept_{text}"))
def test_any_id_is_opened_or_unknown(id):
    assert ids().open("demo", id) is None


@pytest.mark.parametrize("id", ["", "resp", "resp_ä", "resp_a/b", "resp_" + "a" * 300, None])
def test_only_plain_ids_are_sealed(id):
    assert ids().seal("demo", Object("a", "m", id or "")) is None
    assert ids().open("demo", id) is None


def test_ids_stay_good_while_the_file_of_their_key_is_away(tmp_path):
    """Another rebuild of the pipeline, such as for a key that an operator made, would void all of them."""
    file = tmp_path / "object-key"
    file.write_text("secret")
    settings = {"a": ProviderSettings(kind="openai", base_url="http://127.0.0.1/v1", api_key="env:A_KEY")}
    made = Ids(settings, Secret("file", str(file)))
    sealed = made.seal("demo", Object("a", "m", RAW))
    file.unlink()
    assert Ids(settings, Secret("file", str(file))).open("demo", sealed) == Object("a", "m", RAW)
    file.write_text("another")
    assert Ids(settings, Secret("file", str(file))).open("demo", sealed) is None


def test_that_all_foreign_ids_pass_is_told(settings):
    found = [path for path, _ in doubts(settings("foreign_objects: allow"))]
    assert ("foreign_objects",) in found
    assert ("foreign_objects",) not in [path for path, _ in doubts(settings("foreign_objects: [pmpt_1]"))]
