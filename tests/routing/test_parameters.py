import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import fixed_fields, output_limits
from extproc.routing.parameters import MAX_CHANGES, apply, compile_changes, compose, encode, output_limit
from extproc.wire.framing.patch import patch
from extproc.words.contract import changed

# --- valid changes


def test_changes_list_the_operation_on_each_field():
    assert compile_changes({"a": 1}, {"b": [2]}, ["c"]) == (
        ("a", "set", 1),
        ("b", "default", [2]),
        ("c", "remove", None),
    )
    assert compile_changes({}, {}, ()) == ()


@pytest.mark.parametrize("action", ["override", "default", "remove"])
@pytest.mark.parametrize("name", fixed_fields())
def test_fields_that_routing_and_budgets_need_cannot_be_changed(name, action):
    given = {"override": {}, "default": {}, "remove": ()}
    given[action] = [name] if action == "remove" else {name: 1}
    with pytest.raises(ValueError, match=f"'{name}' cannot be changed"):
        compile_changes(**given)


@pytest.mark.parametrize("name", ["generationConfig", "contents.0", "stream_options.include_usage"])
def test_neither_a_part_of_a_fixed_field_nor_an_object_with_one_can_be_changed(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be changed"):
        compile_changes({name: 1}, {}, ())


def test_a_name_with_a_dot_is_a_field_inside_an_object():
    changes = compile_changes({"a.b": 1, "x.y": 2}, {"a.c": 3}, ("a.d", "z.d"))
    fields, removed = apply(changes, {"a": {"b": 5, "c": None, "d": 6}, "x": "text"}, None)
    assert (fields, removed) == ({"a.b": 1, "x.y": 2, "a.c": 3}, ["a.d"])
    body = {"a": {"b": 5, "c": None, "d": 6, "e": 7}, "x": "text"}
    assert changed(body, fields, removed) == {"a": {"b": 1, "c": 3, "e": 7}, "x": {"y": 2}}
    assert json.loads(patch(json.dumps(body).encode(), fields, removed)) == changed(body, fields, removed)
    assert body["a"]["b"] == 5


@pytest.mark.parametrize(
    ("override", "default", "remove", "message"),
    [
        ({"a": 1}, {"a": 2}, [], "'a' stands in more than one of override, default and remove"),
        ({"a": 1}, {}, ["a"], "'a' stands in more than one of override, default and remove"),
        ({}, {}, ["a", "a"], "'a' stands in more than one of override, default and remove"),
        ({"max_tokens": 1}, {"max_completion_tokens": 2}, [], "'max_completion_tokens' is another name of a field"),
        ({"max_tokens": 1}, {}, ["max_output_tokens"], "'max_output_tokens' is another name of a field"),
        *(({"max_tokens": value}, {}, [], "whole number of at least 1") for value in (0, -1, 1.5, True, "5", [5])),
        ({}, {"max_output_tokens": 0}, [], "whole number of at least 1"),
        ({"a": date(2026, 1, 1)}, {}, [], "2026-01-01 is not JSON"),
        ({"a": {"b": [date(2026, 1, 1)]}}, {}, [], "2026-01-01 is not JSON"),
        ({"a": float("nan")}, {}, [], "JSON"),
        ({"a": float("inf")}, {}, [], "JSON"),
        ({"a": "x" * MAX_CHANGES}, {}, [], f"bytes of JSON, at most {MAX_CHANGES}"),
        ({}, {}, [f"field-{number}" for number in range(100)], f"bytes of JSON, at most {MAX_CHANGES}"),
    ],
)
def test_invalid_changes_are_refused(override, default, remove, message):
    with pytest.raises(ValueError, match=message):
        compile_changes(override, default, remove)


def test_the_largest_changes_that_fit_are_accepted():
    room = MAX_CHANGES - len(encode(compile_changes({"a": ""}, {}, ())))
    assert compile_changes({"a": "x" * room}, {}, ())
    with pytest.raises(ValueError, match="bytes of JSON"):
        compile_changes({"a": "x" * (room + 1)}, {}, ())


# --- applied to a request


@pytest.mark.parametrize(
    ("changes", "body", "fields", "removed"),
    [
        ({"override": {"a": 1}}, {}, {"a": 1}, []),
        ({"override": {"a": 1}}, {"a": 2}, {"a": 1}, []),
        ({"override": {"a": None}}, {"a": 2}, {"a": None}, []),
        ({"default": {"a": 1}}, {}, {"a": 1}, []),
        ({"default": {"a": 1}}, {"a": 2}, {}, []),
        ({"default": {"a": 1}}, {"a": 0}, {}, []),
        ({"default": {"a": 1}}, {"a": False}, {}, []),
        ({"default": {"a": 1}}, {"a": None}, {"a": 1}, []),  # null counts as absent
        ({"remove": ["a"]}, {"a": 2}, {}, ["a"]),
        ({"remove": ["a"]}, {"a": None}, {}, ["a"]),
        ({"remove": ["a"]}, {}, {}, []),
        ({"override": {"max_tokens": 5}}, {"limit": 9}, {"limit": 5}, []),
        ({"default": {"max_completion_tokens": 5}}, {"limit": 9}, {}, []),
        ({"remove": ["max_output_tokens"]}, {"limit": 9}, {}, ["limit"]),
    ],
)
def test_changes_become_fields_to_set_and_fields_to_remove(changes, body, fields, removed):
    compiled = compile_changes(**{"override": {}, "default": {}, "remove": ()} | changes)
    assert apply(compiled, body, "limit") == (fields, removed)


@pytest.mark.parametrize("name", output_limits())
def test_an_api_without_output_has_no_limit_to_change(name):
    assert apply(compile_changes({name: 5, "a": 1}, {}, ()), {name: 9}, None) == ({"a": 1}, [])


@pytest.mark.parametrize("name", output_limits())
@pytest.mark.parametrize(
    ("action", "value", "asked", "limit"),
    [
        ("set", 5, None, 5),
        ("set", 5, 9, 5),
        ("set", None, 9, None),
        ("default", 5, None, 5),
        ("default", 5, 9, 9),
        ("remove", None, 9, None),
        ("remove", None, None, None),
    ],
)
def test_the_output_limit_after_changes_is_found(name, action, value, asked, limit):
    assert output_limit(((name, action, value),), asked) == limit
    assert output_limit((("a", "set", 1),), asked) == asked


# --- composed changes

JSON = st.none() | st.booleans() | st.integers(-2, 2) | st.lists(st.integers(0, 1), max_size=1)
LIMIT = st.none() | st.integers(1, 3)


@st.composite
def any_changes(draw):
    names = draw(st.lists(st.sampled_from(("a", "b", draw(st.sampled_from(output_limits())))), unique=True))
    given = {"override": {}, "default": {}, "remove": []}
    for name in names:
        action = draw(st.sampled_from(list(given)))
        if action == "remove":
            given[action].append(name)
        else:
            given[action][name] = draw(LIMIT if name in output_limits() else JSON)
    return compile_changes(**given)


BODIES = st.fixed_dictionaries({}, optional={"a": JSON, "b": JSON, "limit": LIMIT})


def applied(changes, body, output_field="limit"):
    fields, removed = apply(changes, body, output_field)
    return {name: value for name, value in {**body, **fields}.items() if name not in removed}


def strict(value):
    """A comparison that tells 1 from true, as JSON does and Python does not."""
    return json.dumps(value, sort_keys=True)


@given(any_changes(), any_changes(), BODIES, st.sampled_from(["limit", None]))
def test_composed_changes_do_the_same_as_one_after_the_other(outer, inner, body, output_field):
    one_by_one = applied(inner, applied(outer, body, output_field), output_field)
    assert strict(applied(compose(outer, inner), body, output_field)) == strict(one_by_one)


@given(any_changes(), any_changes(), any_changes(), BODIES)
def test_composition_is_associative(first, second, third, body):
    left, right = compose(compose(first, second), third), compose(first, compose(second, third))
    assert strict(applied(left, body)) == strict(applied(right, body))


@given(any_changes())
def test_the_empty_change_is_neutral(changes):
    assert compose((), changes) == compose(changes, ()) == changes


@given(any_changes(), any_changes())
def test_composed_changes_name_each_field_once(outer, inner):
    names = ["limit" if name in output_limits() else name for name, *_ in compose(outer, inner)]
    assert len(names) == len(set(names))


@given(any_changes(), any_changes(), LIMIT)
def test_the_output_limit_that_is_counted_is_the_one_sent(outer, inner, asked):
    """A budget reserves `output_limit`. The provider must not get a higher one."""
    changes = compose(outer, inner)
    body = {} if asked is None else {"limit": asked}
    assert output_limit(changes, asked) == applied(changes, body).get("limit")
