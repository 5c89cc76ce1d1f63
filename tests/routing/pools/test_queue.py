"""The order in which waiting requests are served."""

import pytest

from extproc.routing.pools.queue import Queue, Ticket


def waiting(most, *asked):
    """A queue, and the outcomes of those who asked: (consumer, priority) each."""
    queue, told = Queue(most), []
    for number, (consumer, priority) in enumerate(asked):
        ticket = Ticket(consumer, priority, lambda room, who=f"{consumer}{number}": told.append((who, room)))
        if not queue.join(ticket):
            told.append((f"{consumer}{number}", False))
    return queue, told


def served(queue, told):
    before = len(told)
    while queue.serve():
        pass
    assert len(queue) == 0
    return [who for who, _ in told[before:]]


@pytest.mark.parametrize(
    ("asked", "order"),
    [
        ([("a", 0), ("a", 0), ("b", 0), ("a", 0), ("b", 0)], ["a0", "b2", "a1", "b4", "a3"]),
        ([("a", 0), ("b", 5), ("a", 0), ("b", 5)], ["b1", "b3", "a0", "a2"]),
        ([("a", -1), ("b", 0), ("c", 1)], ["c2", "b1", "a0"]),
    ],
)
def test_the_highest_priority_is_served_first_and_consumers_of_one_in_turn(asked, order):
    assert served(*waiting(9, *asked)) == order


@pytest.mark.parametrize(
    ("asked", "gone"),
    [
        ([("a", 0), ("a", 0), ("a", 0)], [("a2", False)]),
        ([("a", 0), ("a", 0), ("b", 0)], [("a1", False)]),
        ([("a", 0), ("a", 0), ("b", 1)], [("a1", False)]),
        ([("a", 1), ("a", 1), ("b", 0)], [("b2", False)]),
    ],
)
def test_a_full_queue_of_two_keeps_the_higher_priority(asked, gone):
    queue, told = waiting(2, *asked)
    assert told == gone
    assert len(queue) == 2


def test_a_full_queue_gives_way_to_a_consumer_that_has_less_of_it():
    queue, told = waiting(4, *[("a", 0)] * 4, ("b", 0), ("b", 0), ("b", 0))
    assert told == [("a3", False), ("a2", False), ("b6", False)]
    assert served(queue, told) == ["a0", "b4", "a1", "b5"]


def test_a_request_that_leaves_gives_its_place_back_once():
    queue = Queue(1)
    ticket = Ticket("a", 0, lambda room: None)
    assert queue.join(ticket)
    queue.leave(ticket)
    queue.leave(ticket)
    assert len(queue) == 0
    assert not queue.serve()
    assert not Queue(0).join(ticket)
