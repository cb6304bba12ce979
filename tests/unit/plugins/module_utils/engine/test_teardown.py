# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import signal

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.teardown import waves
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import container


def at(service, *needed, number=1):
    """A container with Compose's own label of what it depends on."""
    label = ",".join(f"{name}:service_started:false" for name in needed)
    labels = {"com.docker.compose.depends_on": label} if needed else {}
    return container(f"p-{service}-{number}", service=service, labels=labels)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], []),
        ([at("a")], ["a"]),
        ([at("a"), at("b")], ["a b"]),
        ([at("db"), at("web", "db")], ["web", "db"]),
        ([at("db"), at("web", "db"), at("proxy", "web")], ["proxy", "web", "db"]),
        # db is stopped after the last of those that need it, however far away.
        ([at("db"), at("web", "db"), at("proxy", "web", "db")], ["proxy", "web", "db"]),
        ([at("db"), at("cache"), at("web", "db", "cache"), at("job", "db")], ["web job", "db cache"]),
        ([at("web", "db"), at("web", "db", number=2), at("db")], ["web web", "db"]),
        ([at("web", "gone"), at("db")], ["web db"]),
        # Compose would not have started circles, but their containers must go all the same.
        ([at("a", "b"), at("b", "a")], ["a", "b"]),
        ([at("a", "a")], ["a"]),
        ([at("a", "b"), at("b", "a", "db"), at("db")], ["a", "b", "db"]),
    ],
)
def test_order(found, expected):
    result = waves(found)
    assert [sorted(entry.service for entry in wave) for wave in result] == [sorted(line.split()) for line in expected]


def test_every_container_is_in_exactly_one_wave():
    found = [at(name, *needed) for name, needed in {"a": "bc", "b": "c", "c": "a", "d": "ad", "e": ""}.items()]
    assert sorted(entry.name for wave in waves(found) for entry in wave) == sorted(entry.name for entry in found)


def test_a_label_may_be_empty_or_lack_the_details():
    odd = container("p-web-1", labels={"com.docker.compose.depends_on": "db,,cache:"})
    result = waves([at("db"), at("cache"), odd])
    assert [len(wave) for wave in result] == [1, 2]


def test_many_ways_to_the_same_service_are_not_all_walked():
    """40 layers of 3 services that all need each other have 3^40 ways through them."""
    layers = [[f"s{layer}-{number}" for number in range(3)] for layer in range(40)]
    found = [at(name, *below) for above, below in zip(layers, [*layers[1:], []]) for name in above]

    def too_slow(*_):
        raise AssertionError("the order was not found within 2 s")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(2)
    try:
        assert [len(wave) for wave in waves(found)] == [3] * 40
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
