"""The audit trail: one chain of all processes, in which no entry changes, is missing or is out of order."""

import threading

import pytest

from extproc.money.ledger import open_ledger
from extproc.money.ledger.trail import BEGIN, MAX_EVENT, AuditEntry, BrokenError, Event, digest_of, read_line, verify
from tests.ledger.conftest import NOW, row, write


def event(id, consumer="", at=NOW, **fields):
    return Event(str(id), at, {"event": {"id": str(id)}, **fields}, consumer)


def broken(entries):
    with pytest.raises(BrokenError) as found:
        list(verify(entries))
    return str(found.value)


def test_entries_are_chained_paged_and_appended_once(ledger):
    trail = ledger.trail
    trail.append([event(1), event(2, text="'; DROP TABLE audit; --\0\ud800")])
    trail.append([event(2), event(3)])  # the outcome of the first call was unknown
    entries = list(verify(trail.all()))
    assert [entry.number for entry in entries] == [1, 2, 3]
    assert entries[0].digest == digest_of('{"event":{"id":"1"}}')
    assert [entry.number for entry in trail.latest(2)] == [3, 2]
    assert [entry.number for entry in trail.latest(9, 3)] == [2, 1]
    trail.append([event(4, extproc={"long": "y" * MAX_EVENT})])
    [entry] = trail.latest(1)
    assert '"cut"' in entry.event
    assert len(entry.event) < MAX_EVENT


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (
            lambda e: [e[0], AuditEntry(2, e[1].event.replace("2", "9"), e[1].digest, e[1].hash), *e[2:]],
            "entry 2 was changed",
        ),
        (lambda e: [e[0], *e[2:]], "behind entry 1 comes 3"),
        (lambda e: [e[0], e[2], e[1], *e[3:]], "behind entry 1 comes 3"),
        (lambda e: [*e, AuditEntry(5, e[3].event, e[3].digest, e[3].hash)], "entry 5 does not follow"),
        (lambda e: [AuditEntry(1, "{}", digest_of("{}"), e[0].hash), *e[1:]], "entry 1 does not follow"),
    ],
    ids=["changed", "removed", "moved", "added", "made anew"],
)
def test_a_changed_trail_is_found(edit, found):
    ledger = open_ledger("memory:")
    ledger.trail.append([event(number) for number in range(1, 5)])
    entries = list(ledger.trail.all())
    assert found in broken(edit(entries))
    ledger.close()


def test_lines_are_the_entries_with_their_place(ledger):
    ledger.trail.append([event(1, text=',"chain":{"number":7,'), event(2, consumer="ada")])
    ledger.trail.forget("ada")
    previous, lines = BEGIN, []
    for entry in ledger.trail.all():
        lines.append(entry.line(previous))
        previous = entry.hash
    assert [read_line(line)[0] for line in lines] == list(ledger.trail.all())
    for line in ("", "{}", lines[0][:-4], '{"chain":{"number":"x"}}'):
        with pytest.raises(BrokenError):
            read_line(line)


def test_forgotten_and_old_entries_leave_the_chain_whole(ledger):
    write(ledger, row("r", consumer="ada"))
    ledger.trail.append([event(number, "ada" if number % 2 else "bob", NOW + number, who="ada") for number in range(6)])
    ledger.forget("ada")
    assert [bool(entry.event) for entry in verify(ledger.trail.all())] == [True, False] * 3
    ledger.trail.prune(NOW + 3)
    assert [entry.number for entry in verify(ledger.trail.all())] == [3, 4, 5, 6]
    ledger.trail.prune(NOW + 99)
    ledger.trail.append([event(9)])
    assert [entry.number for entry in verify(ledger.trail.all())] == [6, 7]


def test_processes_append_to_one_chain_and_one_of_them_copies(shared_url):
    ledgers = [open_ledger(shared_url) for _ in range(4)]

    def append(number):
        for count in range(10):
            ledgers[number].trail.append([event(f"{number}-{count}-{each}") for each in range(3)])

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = list(verify(ledgers[0].trail.all()))
    assert len(entries) == 120
    claims = [each.trail.claim("x", NOW, NOW + 60) for each in ledgers]
    assert claims == [(0, BEGIN), None, None, None]
    assert ledgers[1].trail.claim("x", NOW + 60, NOW + 120) == (0, BEGIN), "the first one died"
    ledgers[1].trail.sent("x", entries[6])
    ledgers[0].trail.sent("x", entries[3])  # it did not: what was sent stays sent
    assert ledgers[2].trail.claim("x", NOW, NOW + 60) == (7, entries[6].hash)
    for ledger in ledgers:
        ledger.close()
