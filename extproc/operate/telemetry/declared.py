"""Declarations of metrics. One line in a group defines the metric, its row on the page and its row in the tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.operate.telemetry.histogram import Counts, Histogram

SPENDER = ("consumer", "team", "label_*")
"""Labels of metrics by consumer. `label_*` stands for the labels of `attribution.metrics`."""
_link = re.compile(r"\[([^]]*)\]\([^)]*\)").sub

M = TypeVar("M")


class Declared(Generic[M]):
    """A metric of a group. `text` describes it in Markdown. `begins` are values of its label whose series begin at 0,
    so that an alert sees the first event.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        make: Callable[[str, str, Sequence[str], CollectorRegistry], M],
        begins: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._make = make
        self._begins = begins

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute

    def __get__(self, group: object, owner: type) -> M:  # the made metric hides its declaration
        raise AttributeError(f"{owner.__name__}.{self.attribute} was not made")

    def make(self, registry: CollectorRegistry, attributed: Sequence[str]) -> M:
        """The metric. `attributed` are the labels of `attribution.metrics`."""
        more = [f"label_{name.replace('-', '_').replace('.', '_')}" for name in attributed]
        labels = [name for label in self.labels for name in (more if label == SPENDER[-1] else [label])]
        made = self._make(self.name.removesuffix("_total"), _plain(self.text), labels, registry)
        for value in self._begins:
            made.labels(value)  # type: ignore[attr-defined]
        return made


def _plain(text: str) -> str:
    return _link(r"\1", text).replace("`", "").removesuffix(".")


class SharedCounter(Counter):
    """A counter that any thread may write."""

    def __call__(self, *values: str) -> None:
        """Add one for these values of the labels."""
        (self.labels(*values) if values else self).inc()


def counter(name: str, text: str, *labels: str, begins: Sequence[str] = ()) -> Declared[SharedCounter]:
    """Declares a counter, which is called when its event happens."""
    return Declared(
        name,
        text,
        labels,
        lambda name, text, labels, registry: SharedCounter(name, text, labels, registry=registry),
        begins,
    )


def gauge(name: str, text: str, *labels: str) -> Declared[Gauge]:
    return Declared(
        name, text, labels, lambda name, text, labels, registry: Gauge(name, text, labels, registry=registry)
    )


def counts(name: str, text: str, *labels: str) -> Declared[Counts]:
    """Declares a counter that only the event loop writes."""
    return Declared(name, text, labels, Counts)


def histogram(name: str, text: str, *labels: str, bounds: Sequence[float]) -> Declared[Histogram]:
    return Declared(
        name, text, labels, lambda name, text, labels, registry: Histogram(name, text, labels, bounds, registry)
    )


class Scraped(Collector):
    """A metric whose values are read at each scrape: `read` returns them by label values."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry, *, counts: bool
    ) -> None:
        family = CounterMetricFamily if counts else GaugeMetricFamily
        self._family: Callable[[], CounterMetricFamily | GaugeMetricFamily] = lambda: family(name, text, labels=labels)
        self.read: Callable[[], Mapping[tuple[str, ...], float]] = dict
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for values, number in sorted(self.read().items()):
            family.add_metric(values, number)
        yield family

    def describe(self) -> Iterator[Metric]:
        yield self._family()


def scraped(name: str, text: str, *labels: str) -> Declared[Scraped]:
    return Declared(name, text, labels, lambda *what: Scraped(*what, counts=name.endswith("_total")))


class Group:
    """Metrics of one table on the page."""

    heading: ClassVar[str]

    def __init__(self, registry: CollectorRegistry, attributed: Sequence[str] = ()) -> None:
        for kind in type(self).__mro__:
            for one in declared(kind):
                vars(self)[one.attribute] = one.make(registry, attributed)


def declared(group: type) -> Sequence[Declared[object]]:
    return [one for one in vars(group).values() if isinstance(one, Declared)]
