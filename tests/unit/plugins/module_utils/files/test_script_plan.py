# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.attributes import Attributes
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_plan import (
    ADJUST,
    CREATE,
    DIFF_LIMIT,
    KEEP,
    REPLACE,
    Script,
    Step,
    actions,
    arguments,
    decide,
    difference,
    duplicates,
    judge,
    surplus,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_text import Facts, inspect


def script(content: bytes = b"#!/bin/sh\n", dest: str = "/srv/a", run=None, endings: str = "lf") -> Script:
    return Script(dest, inspect(content, endings)[1], Attributes(), run=run)


def step(kind: str, dest: str = "/srv/a", run=None, backups=()) -> Step:
    return Step(Script(dest, Facts("x", 1), Attributes(), run=run), dest, kind, "why", None, tuple(backups))


@pytest.mark.parametrize(
    ("found", "differing", "kind", "reason"),
    [
        (None, [], CREATE, "it does not exist"),
        ("other", [], REPLACE, "its content differs"),
        ("other", ["mode"], REPLACE, "its content differs"),
        ("wanted", ["mode"], ADJUST, "its mode differs"),
        ("wanted", ["mode", "owner"], ADJUST, "its mode, owner differ"),
        ("wanted", [], KEEP, "content, mode and owner are as wanted"),
    ],
)
def test_decision(found, differing, kind, reason):
    assert decide("wanted", found, differing) == (kind, reason)


def test_order_of_actions():
    steps = [
        step(REPLACE, "/a", run=(), backups=["/a.1", "/a.2"]),
        step(CREATE, "/b"),
        step(ADJUST, "/c"),
        step(KEEP, "/d", run=("x",)),
    ]
    planned = [(one.action, one.target) for one in actions(steps, backup=True, keep=2)]
    assert planned == [
        ("backup", "/a"),
        ("replace", "/a"),
        ("create", "/b"),
        ("adjust", "/c"),
        ("remove-backup", "/a.1"),
        ("run", "/a"),
        ("run", "/d"),
    ]
    assert actions([step(KEEP)], backup=True, keep=1) == []


@pytest.mark.parametrize(
    ("backups", "keep", "coming", "gone"),
    [
        ([], 1, 1, []),
        (["1"], 1, 1, ["1"]),
        (["1", "2", "3"], 2, 1, ["1", "2"]),
        (["1", "2"], 5, 1, []),
        (["1", "2", "3"], 2, 0, ["1"]),
    ],
)
def test_retention(backups, keep, coming, gone):
    assert surplus(backups, keep, coming=coming) == gone


@pytest.mark.parametrize(
    ("run", "command"),
    [
        ((), ["/srv/a"]),
        (("--json", "x y"), ["/srv/a", "--json", "x y"]),
        (("/srv/a", "--json"), ["/srv/a", "--json"]),
        (("/srv/b",), ["/srv/a", "/srv/b"]),
    ],
)
def test_command_line(run, command):
    assert arguments("/srv/a", run) == command


def test_one_file_with_two_names_is_found():
    findings = duplicates([("/a", "/real"), ("/b", "/real"), ("/c", "/c")])
    assert [(finding.subject, finding.code) for finding in findings] == [
        ("/a", "duplicate-destination"),
        ("/b", "duplicate-destination"),
    ]


@pytest.mark.parametrize(
    ("content", "run", "endings", "findings"),
    [
        (b"#!/bin/sh\n", (), "lf", []),
        (b"#!/bin/sh\r\n", None, "lf", [("info", "line-endings-converted")]),
        (b"\xef\xbb\xbf#!/bin/sh\n", None, "lf", [("info", "byte-order-mark-removed")]),
        (b"#!/bin/sh\r\n", None, "keep", [("warning", "line-endings-kept"), ("critical", "interpreter-missing")]),
        (
            b"\xef\xbb\xbf#!/bin/sh\n",
            None,
            "keep",
            [("warning", "byte-order-mark-kept"), ("warning", "no-interpreter")],
        ),
        (b"#!/no/such\n", None, "lf", [("critical", "interpreter-missing")]),
        (b"#!/usr/bin/env bash -e\n", None, "lf", [("critical", "interpreter-missing")]),
        (b"#!bash\n", None, "lf", [("critical", "interpreter-missing")]),
        (b"echo\n", None, "lf", [("warning", "no-interpreter")]),
        (b"echo\n", (), "lf", [("critical", "no-interpreter")]),
        (b"", None, "lf", [("warning", "empty-script")]),
        (b"", (), "lf", [("critical", "empty-script")]),
        (b"\x7fELF\0", (), "lf", []),
        ("echo\n".encode("utf-16"), None, "lf", [("warning", "utf-16"), ("warning", "no-interpreter")]),
    ],
)
def test_what_is_said_about_a_script(content, run, endings, findings):
    installed = {"/bin/sh": "/bin/sh"}
    _, found = judge(script(content, run=run, endings=endings), lambda shebang: installed.get(shebang.program))
    assert [(finding.severity, finding.code) for finding in found] == findings


def test_the_interpreter_concerns_only_who_has_it_checked_or_runs_the_script():
    facts = inspect(b"#!/no/such\n", "lf")[1]
    for validate, run, expected in (("auto", None, 1), ("none", None, 0), (("check", "%s"), None, 0), ("none", (), 1)):
        _, found = judge(Script("/a", facts, Attributes(), validate, run), lambda shebang: None)
        assert len(found) == expected, (validate, run)


def test_difference():
    assert difference(step(CREATE), None, b"new\n")["before"] == ""
    assert difference(step(REPLACE), b"old\n", "ü\n".encode())["after"] == "ü\n"
    assert difference(step(REPLACE), b"old\n", b"x" * (DIFF_LIMIT + 1))["after"] == "(too large to be shown)\n"
    assert difference(step(REPLACE), b"a\0", b"new\n")["before"] == "(binary data)\n"
