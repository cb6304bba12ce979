# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from unittest.mock import ANY

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.applied import differences, label, read
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import project

SECRET = "correct-horse-battery"
HOOK = {"post_start": [{"command": ["a"], "environment": {"TOKEN": SECRET}}]}


def compared(before, after):
    """What differs between two versions of service `web`, as {field: (wanted, found, secret)}."""
    remembered = read(label(before, before.services["web"]))
    assert remembered is not None
    found = differences(after, after.services["web"], remembered)
    assert len({entry.field for entry in found}) == len(found)
    return {entry.field: (entry.wanted, entry.found, entry.secret) for entry in found}


def web(**entry):
    return project({"web": entry})


@pytest.mark.parametrize(
    ("entry", "sections"),
    [
        ({"environment": {"A": SECRET, "B": None}}, {}),
        ({"configs": [{"source": "c", "target": "/c"}]}, {"configs": {"c": {"content": SECRET}}}),
        ({"secrets": [{"source": "s"}]}, {"secrets": {"s": {"content": SECRET}}}),
        (HOOK, {}),
        ({"pre_stop": HOOK["post_start"]}, {}),
    ],
    ids=["environment", "config", "secret", "post_start", "pre_stop"],
)
def test_a_label_never_contains_a_value(entry, sections):
    found = project({"web": entry}, **sections)
    text = label(found, found.services["web"])
    assert SECRET not in text
    assert compared(found, found) == {}


def test_a_label_tells_equal_values_apart_only_on_its_own_container():
    found = web(environment={"A": SECRET, "B": SECRET, "C": "else"})
    one, two = (json.loads(label(found, found.services["web"]))["service"]["environment"] for _ in range(2))
    assert one["A"] == one["B"] != one["C"]
    assert one["A"] != two["A"], "the same value under the same digest on two containers could be looked up"


def test_a_label_is_written_the_same_way_whatever_the_order_of_its_keys(monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda _: "key")
    one, two = (web(labels=labels) for labels in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}))
    assert label(one, one.services["web"]) == label(two, two.services["web"])


CONTENT = {"secrets_content.x": (None, ANY, True)}


@pytest.mark.parametrize(
    ("before", "after", "differing"),
    [
        ({"command": ["a"]}, {"command": ["a"]}, {}),
        ({"command": ["a"]}, {"command": ["b"]}, {"command": (["b"], ["a"], False)}),
        ({}, {"command": ["b"]}, {"command": (["b"], None, False)}),
        ({"command": ["a"]}, {}, {"command": (None, ["a"], False)}),
        ({"labels": {"a": "1"}}, {"labels": {"a": "2"}}, {"labels.a": ("2", "1", False)}),
        ({"labels": {"a": "1", "b": "1"}}, {"labels": {"a": "1"}}, {"labels.b": (None, "1", False)}),
        ({}, {"labels": {"a": "1"}}, {"labels.a": ("1", None, False)}),
        ({"labels": {"a": "1"}}, {}, {"labels.a": (None, "1", False)}),
        (
            {"healthcheck": {"test": ["CMD", "a"], "interval": "1s"}},
            {"healthcheck": {"test": ["CMD", "b"], "interval": "1s"}},
            {"healthcheck.test": (["CMD", "b"], ["CMD", "a"], False)},
        ),
        ({"init": True}, {"init": False}, {"init": (False, True, False)}),
        # A secret's name tells that its value is one, also when it is in the file no more.
        ({"labels": {"a.token": "x"}}, {}, {"labels.a.token": (None, "x", True)}),
        ({"logging": {"options": {"token": "x"}}}, {}, {"logging.options.token": (None, "x", True)}),
        ({"secrets": [{"source": "x"}]}, {}, {"secrets": (None, [{"source": "x"}], False), **CONTENT}),
        # Compose fills in empty sections.
        ({}, {"deploy": {"mode": "x", "placement": {}}}, {"deploy.mode": ("x", None, False)}),
        ({"deploy": {"mode": "x", "placement": {}}}, {}, {"deploy.mode": (None, "x", False)}),
        ({}, {"deploy": {"placement": {}}}, {"deploy": ({"placement": {}}, None, False)}),
        ({"networks": {"a": None}}, {"networks": {"a": None}}, {}),
        ({"scale": 1, "profiles": ["x"], "build": {"context": "a"}}, {"scale": 2, "build": {"context": "b"}}, {}),
    ],
)
def test_differences_by_field(before, after, differing):
    assert compared(web(**before), web(**after)) == differing


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ({"networks": {"a": None}}, {"networks": {"a": None, "b": None}}, "networks.b"),
        ({"networks": {"a": None, "b": None}}, {"networks": {"a": None}}, "networks.b"),
        ({}, {"networks": {"a": None}}, "networks"),
        ({"networks": {"a": None}}, {}, "networks"),
        ({"networks": {"a": None}}, {"networks": {"a": {"aliases": ["x"]}}}, "networks.a"),
        ({"environment": {"A": "1"}}, {"environment": {"A": "1", "B": None}}, "environment.B"),
        ({"environment": {"A": "1", "B": None}}, {"environment": {"A": "1"}}, "environment.B"),
    ],
)
def test_an_entry_without_a_value_is_there_all_the_same(before, after, field):
    (found,) = compared(web(**before), web(**after))
    assert found.startswith(field)


@pytest.mark.parametrize(
    ("before", "after", "field", "present"),
    [
        ({"A": "1"}, {"A": "2"}, "environment.A", (True, True)),
        ({"A": "1"}, {"A": "1", "B": "2"}, "environment.B", (True, False)),
        ({"A": "1", "B": "2"}, {"A": "1"}, "environment.B", (False, True)),
        (None, {"A": "1"}, "environment.A", (True, False)),
        ({"A": "1"}, None, "environment.A", (False, True)),
        ({"A": None}, {"A": ""}, "environment.A", (True, False)),
    ],
)
def test_variables_are_named_and_their_values_marked_as_secret(before, after, field, present):
    found = compared(web(environment=before), web(environment=after))
    assert list(found) == [field]
    wanted, was, secret = found[field]
    assert (wanted is not None, was is not None) == present
    assert secret


@pytest.mark.parametrize("section", ["configs", "secrets"])
def test_changed_content_of_a_config_or_secret_is_seen(section):
    entry = {"web": {section: [{"source": "c"}]}}
    before, after = (project(entry, **{section: {"c": {"content": text}}}) for text in ("one", "two"))
    assert [(field, found[2]) for field, found in compared(before, after).items()] == [(f"{section}_content.c", True)]
    assert compared(before, before) == {}


def test_a_hook_s_changed_variable_is_seen_and_not_shown():
    before, after = web(**HOOK), web(post_start=[{"command": ["a"], "environment": {"TOKEN": "another-value"}}])
    found = compared(before, after)
    assert found
    assert SECRET not in str(found)
    assert "another-value" not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        "[]",
        "null",
        "1",
        "{}",
        '{"v": 2, "key": "k", "service": {}}',
        '{"v": "1", "key": "k", "service": {}}',
        '{"key": "k", "service": {}}',
        '{"v": 1, "service": {}}',
        '{"v": 1, "key": "k"}',
        '{"v": 1, "key": 5, "service": {}}',
        '{"v": 1, "key": null, "service": {}}',
        '{"v": 1, "key": "k", "service": null}',
        '{"v": 1, "key": "k", "service": ["image"]}',
        '{"v": 1, "key": "k", "servi',
    ],
)
def test_a_label_that_cannot_be_understood_counts_as_none(text):
    assert read(text) is None


@pytest.mark.parametrize(
    ("files", "read_back"),
    [
        (None, {}),
        ([], {}),
        ({"/a": ["~1", 5]}, {"/a": ("~1", 5)}),
        ({"/a": ["~1"], "/b": [1, 5], "/c": None, "/d": ["~1", "5"], "/e": ["~1", 5]}, {"/e": ("~1", 5)}),
    ],
)
def test_files_in_a_label_that_cannot_be_understood_are_left_out(files, read_back):
    found = read(json.dumps({"v": 1, "key": "k", "service": {}, "files": files}))
    assert found is not None
    assert found.files == read_back


def test_values_of_any_kind_survive_being_remembered():
    entry = {"environment": {"A": "ü\n\"'$$", "B": "", "C": "x" * 5000}, "ulimits": {"nofile": {"soft": 1, "hard": 2}}}
    assert compared(web(**entry), web(**entry)) == {}
