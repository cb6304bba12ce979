# SPDX-License-Identifier: GPL-3.0-or-later
"""What shall be there x what was shipped x what is found -> what is done, as tables without a file system."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.manifest import (
    DIRECTORY,
    FILE,
    LINK,
    Entry,
    Record,
    State,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.files.tree_look import SPECIAL, Found
from ansible_collections.shipshape.deploy.plugins.module_utils.files.tree_plan import Owner, Plan, make
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError

OLD, NEW, HAND = "old", "new", "hand"


def plan(
    wanted: dict[str, Entry],
    shipped: dict[str, tuple[State, ...]],
    found: dict[str, Found],
    owner: Owner = Owner(),  # noqa: B008
    backup: bool = False,
) -> Plan:
    everything = {path: found.get(path, Found()) for path in {*wanted, *shipped}}
    return make(wanted, Record(shipped), everything, owner, backup=backup)


def file(path: str, content: str = NEW, mode: int = 0o644) -> Entry:
    return Entry(path, FILE, mode, 3, content)


def told(result: Plan) -> list[tuple[str, str, str, bool]]:
    return [(step.action, step.path, step.reason, step.keep) for step in result.steps]


def is_file(content: str, mode: int = 0o644) -> Found:
    return Found(FILE, mode, 0, 0, 3, content)


@pytest.mark.parametrize(
    ("shipped", "found", "expected"),
    [
        ((), Found(), ("add", "new in src", False)),
        ((OLD,), Found(), ("add", "missing on the target", False)),
        ((), is_file(NEW), None),
        ((NEW,), is_file(NEW), None),
        ((OLD,), is_file(OLD), ("change", "changed in src", False)),
        ((NEW,), is_file(HAND), ("change", "modified on the target", True)),
        ((OLD,), is_file(HAND), ("change", "changed in src, modified on the target", True)),
        ((), is_file(HAND), ("change", "was there before, with other content", True)),
        ((OLD, NEW), is_file(OLD), ("change", "changed in src", False)),
        ((NEW,), is_file(NEW, 0o600), ("set attributes", "mode 0600 instead of 0644", False)),
    ],
)
def test_a_file_that_shall_be_there(
    shipped: tuple[str, ...], found: Found, expected: tuple[str, str, bool] | None
) -> None:
    before = {"a": tuple(State(FILE, content) for content in shipped)} if shipped else {}
    result = plan({"a": file("a")}, before, {"a": found})
    assert told(result) == ([(expected[0], "a", *expected[1:])] if expected else [])
    assert result.record == {"a": (State(FILE, NEW),)}


@pytest.mark.parametrize(
    ("found", "expected", "code"),
    [
        (Found(), None, None),
        (is_file(OLD), ("remove", "gone from src", False), None),
        (is_file(HAND), ("remove", "gone from src, was modified on the target", True), None),
        (Found(LINK, content="/etc/passwd"), None, "left-alone"),
        (Found(DIRECTORY), None, None),
        (Found(SPECIAL), None, "left-alone"),
    ],
)
def test_a_file_that_was_shipped_and_is_gone(
    found: Found, expected: tuple[str, str, bool] | None, code: str | None
) -> None:
    result = plan({}, {"a": (State(FILE, OLD),)}, {"a": found})
    assert told(result) == ([(expected[0], "a", *expected[1:])] if expected else [])
    assert [finding.code for finding in result.findings] == ([code] if code else [])
    assert result.record == {}
    assert result.new_record


MADE = (State(DIRECTORY, attributes=(0o755, 0, 0)),)


@pytest.mark.parametrize(
    ("states", "found", "expected", "code"),
    [
        (MADE, Found(DIRECTORY, 0o755, 0, 0), ["a"], None),
        (MADE, Found(DIRECTORY, 0o700, 999, 999), ["a"], None),
        (MADE, Found(DIRECTORY, 0o755, 0, 0, inside=("a/upload",)), [], "directory-kept"),
        ((State(DIRECTORY),), Found(DIRECTORY, 0o755, 0, 0), [], None),
        (MADE, Found(LINK, content="/mnt"), [], "left-alone"),
    ],
)
def test_a_directory_that_was_shipped_and_is_gone(
    states: tuple[State, ...], found: Found, expected: list[str], code: str | None
) -> None:
    result = plan({}, {"a": states}, {"a": found})
    assert [step.path for step in result.steps] == expected
    assert [finding.code for finding in result.findings] == ([code] if code else [])


def test_removals_go_from_the_deepest_up() -> None:
    shipped = {"a": MADE, "a/b": MADE, "a/b/c": (State(FILE, OLD),), "a/d": (State(LINK, "x"),)}
    found = {
        "a": Found(DIRECTORY, 0o755, 0, 0, inside=("a/b", "a/b/c", "a/d")),
        "a/b": Found(DIRECTORY, 0o755, 0, 0, inside=("a/b/c",)),
        "a/b/c": is_file(OLD),
        "a/d": Found(LINK, content="x"),
    }
    assert [step.path for step in plan({}, shipped, found).steps] == ["a/d", "a/b/c", "a/b", "a"]


@pytest.mark.parametrize(
    ("states", "found", "mode", "expected"),
    [
        (MADE, Found(DIRECTORY, 0o755, 0, 0), 0o755, None),
        (MADE, Found(DIRECTORY, 0o755, 0, 0), 0o750, "mode 0755 instead of 0750"),
        (MADE, Found(DIRECTORY, 0o2755, 0, 0), 0o755, None),
        (MADE, Found(DIRECTORY, 0o700, 999, 0), 0o750, None),
        ((), Found(DIRECTORY, 0o700, 0, 0), 0o755, None),
        ((State(DIRECTORY),), Found(DIRECTORY, 0o700, 0, 0), 0o755, None),
    ],
)
def test_a_directory_is_ours_until_somebody_changes_it(
    states: tuple[State, ...], found: Found, mode: int, expected: str | None
) -> None:
    result = plan({"a": Entry("a", DIRECTORY, mode)}, {"a": states} if states else {}, {"a": found})
    assert [step.reason for step in result.steps] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("entry", "states", "found"),
    [
        (file("a"), (State(FILE, OLD),), Found(LINK, content="/etc/passwd")),
        (file("a"), (), Found(LINK, content="x")),
        (file("a"), (State(FILE, OLD),), Found(DIRECTORY, inside=("a/data",))),
        (file("a"), (), Found(DIRECTORY, inside=("a/data",))),
        (Entry("a", LINK, content="x"), (), Found(DIRECTORY)),
        (file("a"), (), Found(SPECIAL)),
        (Entry("a", LINK, content="x"), (), is_file(OLD)),
        (Entry("a", DIRECTORY, 0o755), (), Found(LINK, content="/mnt")),
        (Entry("a", DIRECTORY, 0o755), (State(DIRECTORY),), is_file(OLD)),
        (file("a"), MADE, Found(DIRECTORY, 0o755, 0, 0, inside=("a/upload",))),
    ],
)
def test_what_is_in_the_way_is_an_error(entry: Entry, states: tuple[State, ...], found: Found) -> None:
    with pytest.raises(ShipshapeError) as caught:
        plan({"a": entry}, {"a": states} if states else {}, {"a": found})
    assert [finding.code for finding in caught.value.findings] == ["path-in-the-way"]


@pytest.mark.parametrize("states", [(), (State(FILE, OLD),)])
def test_an_empty_directory_gives_way_to_a_file(states: tuple[State, ...]) -> None:
    """The engine makes one where it shall mount a file that is not there."""
    result = plan({"a": file("a")}, {"a": states} if states else {}, {"a": Found(DIRECTORY, 0o755, 0, 0)})

    [step] = result.steps
    assert (step.action, step.reason, step.keep) == ("change", "was a directory", False)
    assert [(gone.action, gone.path) for gone in step.clears] == [("remove", "a")]


def test_what_we_shipped_ourselves_gives_way() -> None:
    shipped = {"a": MADE, "a/b": (State(FILE, OLD),), "c": (State(LINK, "x"),), "d": (State(FILE, OLD),)}
    found = {
        "a": Found(DIRECTORY, 0o755, 0, 0, inside=("a/b",)),
        "a/b": is_file(HAND),
        "c": Found(LINK, content="x"),
        "d": is_file(OLD),
    }
    wanted = {"a": file("a"), "c": file("c"), "d": Entry("d", DIRECTORY, 0o755)}
    result = plan(wanted, shipped, found)
    assert told(result) == [
        ("create", "d", "was a file", False),
        ("change", "a", "was a directory", False),
        ("change", "c", "was a symbolic link", False),
    ]
    assert [(gone.path, gone.keep) for step in result.steps for gone in step.clears] == [
        ("d", False),
        ("a/b", True),
        ("a", False),
    ]
    assert result.paths("remove") == ["a/b", "d"]


def test_compose_files_come_last_and_removals_after_them() -> None:
    wanted = {path: file(path) for path in ("compose.yml", "a", "z", "docker-compose.prod.yaml", "compose.txt")} | {
        "l": Entry("l", LINK, content="a"),
        "d": Entry("d", DIRECTORY, 0o755),
    }
    result = plan(wanted, {"gone": (State(FILE, OLD),)}, {"gone": is_file(OLD)})
    assert [step.path for step in result.steps] == [
        "d",
        "a",
        "compose.txt",
        "z",
        "l",
        "compose.yml",
        "docker-compose.prod.yaml",
        "gone",
    ]


def test_owner_and_backup() -> None:
    result = plan({"a": file("a")}, {"a": (State(FILE, NEW),)}, {"a": is_file(NEW)}, Owner(5, 6))
    assert told(result) == [("set attributes", "a", "owner 0 instead of 5, group 0 instead of 6", False)]
    result = plan({"a": file("a")}, {"a": (State(FILE, OLD),)}, {"a": is_file(OLD)}, backup=True)
    assert told(result) == [("change", "a", "changed in src", True)]
