# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.injection import Content, Injector, contents
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import project

VARIABLES = {"TOKEN": "opensesame", "EMPTY": "", "DOLLAR": "a$$b"}


def written(use=None, entry=None, section="secrets"):
    """The contents for one use of one secret or config `s`."""
    found = project({"web": {section: [{"source": "s", **(use or {})}]}}, **{section: {"s": entry or {"content": "x"}}})
    return contents(found, found.services["web"], lambda: VARIABLES)


@pytest.mark.parametrize(
    ("section", "use", "target"),
    [
        ("secrets", {}, "/run/secrets/s"),
        ("secrets", {"target": "name"}, "/run/secrets/name"),
        ("secrets", {"target": "/etc/name"}, "/etc/name"),
        ("configs", {}, "/s"),
        ("configs", {"target": "name"}, "/name"),
        ("configs", {"target": "/etc/name"}, "/etc/name"),
    ],
)
def test_targets(section, use, target):
    assert written(use, section=section) == [Content(target, b"x")]


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ({}, {"mode": 0o444, "uid": "", "gid": ""}),
        ({"mode": 288}, {"mode": 0o440}),  # Compose 2.26.1
        ({"mode": "0440"}, {"mode": 0o440}),  # Compose 2.40.3
        ({"mode": 0}, {"mode": 0}),
        ({"uid": "103", "gid": "104"}, {"uid": "103", "gid": "104"}),
        ({"uid": 103}, {"uid": "103"}),
    ],
)
def test_modes_and_owners(use, expected):
    (content,) = written(use)
    assert content == replace(content, **expected)


@pytest.mark.parametrize(
    ("entry", "data"),
    [
        ({"content": "a$$b\nü"}, "a$b\nü".encode()),
        ({"environment": "TOKEN"}, b"opensesame"),
        # The dollars of a variable's value are what they are.
        ({"environment": "DOLLAR"}, b"a$$b"),
        # Bind-mounted by the engine, or somebody else's: nothing to write.
        ({"file": "./s"}, None),
        ({"external": True}, None),
        # As Compose 2.40 has it: nothing is written for nothing.
        ({"content": ""}, None),
        ({"environment": "EMPTY"}, None),
    ],
)
def test_sources(entry, data):
    assert [content.data for content in written(entry=entry)] == ([] if data is None else [data])


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(ShipshapeError, match="secret s comes from the variable NOSUCH, which is not set") as raised:
        written(entry={"environment": "NOSUCH"})
    assert [(at.subject, at.code) for at in raised.value.findings] == [("web", "variable-required")]


def test_the_variables_are_asked_for_only_when_one_is_a_source():
    def asked():
        raise AssertionError("a call of docker compose that nobody needs")

    found = project(
        {"web": {"secrets": [{"source": "s"}], "configs": [{"source": "c"}]}}, secrets={"s": {"content": "x"}}
    )
    assert len(contents(found, found.services["web"], asked)) == 1


def unpacked(content):
    with tarfile.open(fileobj=io.BytesIO(content.as_tar())) as archive:
        (member,) = archive.getmembers()
        return member, archive.extractfile(member).read()


def test_the_archive():
    member, data = unpacked(Content("/run/secrets/s", b"x\0\xff", 0o440, "103", "104"))
    assert (member.name.lstrip("/"), data) == ("run/secrets/s", b"x\0\xff")
    assert (member.mode, member.uid, member.gid, member.isfile()) == (0o440, 103, 104, True)


def test_the_archive_s_owner_is_root_where_none_is_asked_for():
    member, _ = unpacked(Content("/s", b"x"))
    assert (member.uid, member.gid, member.mode) == (0, 0, 0o444)


@pytest.mark.parametrize("use", [{"uid": "nobody"}, {"gid": "nogroup"}, {"mode": "rw"}])
def test_an_owner_or_mode_that_is_no_number_is_an_error_in_words(use):
    """Compose says: strconv.Atoi: parsing "nobody": invalid syntax."""
    found = project({"web": {"secrets": [{"source": "s", **use}]}}, secrets={"s": {"content": "x"}})
    with pytest.raises(ShipshapeError, match=f"{next(iter(use.values()))}"):
        Injector(Putter(), found, dict).inject(found.services["web"], "id")


class Putter:
    """A connection that only remembers what is put through it."""

    def __init__(self):
        self.put_through = []

    def put(self, path, body, /, **query):
        self.put_through.append((path, query))


@pytest.mark.parametrize(
    ("done", "use", "put"),
    [
        (frozenset(), {}, [("/containers/id/archive", {"path": "/"})]),
        (frozenset(), {"uid": "103"}, [("/containers/id/archive", {"path": "/", "copyUIDGID": "true"})]),
        (frozenset({"other"}), {}, [("/containers/id/archive", {"path": "/"})]),
        (frozenset({"id"}), {}, []),
    ],
)
def test_injection(done, use, put):
    found = project({"web": {"secrets": [{"source": "s", **use}]}}, secrets={"s": {"content": "x"}})
    connection = Putter()
    Injector(connection, found, dict, done).inject(found.services["web"], "id")
    assert connection.put_through == put
