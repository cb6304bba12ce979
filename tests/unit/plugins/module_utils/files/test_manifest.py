# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.manifest import (
    DIRECTORY,
    FILE,
    LINK,
    Entry,
    Record,
    State,
    dump_record,
    is_env_name,
    load_record,
    merged,
    pack,
    pack_contents,
    safe,
    shown,
    unpack,
    unpack_contents,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError

RECORD = Record(
    {
        "a": (State(FILE, "1" * 64), State(LINK, "x")),
        "caf\udce9\n": (State(LINK, "../y\udcff"),),
        "d": (State(DIRECTORY),),
        "e": (State(DIRECTORY, attributes=(0o750, 1, -1)),),
    },
    complete=False,
)


def test_there_and_back() -> None:
    entries = [
        Entry("caf\udce9 \n", FILE, 0o644, 5, "0" * 64, True),
        Entry("l", LINK, content="\udcff"),
        Entry("d", DIRECTORY, 7),
    ]
    assert unpack(pack(entries)) == entries
    assert pack(entries).isascii()
    assert unpack_contents(pack_contents({".env": b"\0\xff"})) == {".env": b"\0\xff"}
    assert load_record("x", dump_record(RECORD)) == RECORD


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"format":2,"complete":true,"shipped":{}}',
        b'{"format":1,"complete":true,"shipped":{"../x":[["file","1"]]}}',
        b'{"format":1,"complete":true,"shipped":{"/etc/passwd":[["file","1"]]}}',
        b'{"format":1,"complete":true,"shipped":{"a":[["socket","1"]]}}',
        b'{"format":1,"complete":true,"shipped":{"a":[["directory",1]]}}',
        b'{"format":1,"complete":true,"shipped":["a"]}',
    ],
)
def test_a_damaged_record_is_never_guessed_at(content: bytes) -> None:
    with pytest.raises(ShipshapeError) as caught:
        load_record("/srv/x/.shipshape/manifest.json", content)
    assert caught.value.findings[0].code == "manifest-unreadable"


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "../a", "a/../b", ".", "a//b", "a\0b", ".shipshape", ".shipshape/lock"]
)
def test_unsafe_paths(path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside the tree"):
        safe(path)


def test_safe_paths() -> None:
    for path in ("a", "a/.shipshape", "..a", "a b/\n", "-x"):
        assert safe(path) == path


def test_merged_knows_old_and_new() -> None:
    before = Record({"a": (State(FILE, "old"),), "gone": (State(FILE, "x"),)})
    union = merged(before, {"a": [State(FILE, "new")], "b": [State(LINK, "y")]})
    assert not union.complete
    assert union.shipped == {
        "a": (State(FILE, "old"), State(FILE, "new")),
        "gone": (State(FILE, "x"),),
        "b": (State(LINK, "y"),),
    }
    assert merged(union, {"a": [State(FILE, "new")]}).shipped["a"] == union.shipped["a"]


def test_names() -> None:
    assert [is_env_name(name) for name in (".env", "x/.env.prod", "web.env", "environment", "a.envx")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert shown("caf\udce9é") == "caf\\xe9é"
