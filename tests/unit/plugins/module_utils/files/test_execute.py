# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.execute import execute, explain_start
from ansible_collections.shipshape.deploy.plugins.module_utils.files.payload import Slice, pack, unpack
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_check import complaint, validate
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_place import find_program
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_plan import Attributes, Script
from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_text import inspect, parse_shebang
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError


def shell(text: str, timeout: float = 20):
    return execute(["/bin/sh", "-c", text], timeout=timeout, cwd="/")


def test_both_streams_and_the_exit_code():
    outcome = shell("echo out; echo err >&2; pwd; exit 3")
    assert (outcome.rc, outcome.stdout, outcome.stderr, outcome.timed_out) == (3, "out\n/\n", "err\n", False)
    assert outcome.last_lines() == ["err"]


def test_killed_by_a_signal():
    assert shell("kill -9 $$").rc == -9


def test_there_is_no_standard_input():
    assert shell("cat; echo end").stdout == "end\n"


def test_much_output_is_read_to_its_end_but_not_kept():
    outcome = shell("echo first; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert outcome.stdout.startswith("first\nxxx")
    assert outcome.stdout.endswith("xxx\nlast\n")
    assert "bytes left out" in outcome.stdout
    assert len(outcome.stdout) < 70_000


def test_what_is_no_utf_8_is_replaced():
    assert shell("printf '\\377'").stdout == "\ufffd"


def test_a_time_out_ends_its_children_too(tmp_path):
    started = time.monotonic()
    outcome = shell(f"echo waiting; sleep 1000 & echo $! > {tmp_path}/pid; wait", timeout=0.5)
    assert outcome.timed_out
    assert outcome.stdout == "waiting\n"
    assert time.monotonic() - started < 20
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the child still runs"


def test_one_that_ignores_the_polite_request_is_killed(monkeypatch):
    monkeypatch.setattr("ansible_collections.shipshape.deploy.plugins.module_utils.files.execute._TERM_GRACE", 0.3)
    assert shell("trap '' TERM; while :; do sleep 0.05; done", timeout=0.3).rc == -9


def test_a_daemon_left_in_the_background_is_not_waited_for():
    started = time.monotonic()
    assert shell("sleep 60 & echo started").stdout == "started\n"
    assert time.monotonic() - started < 20


def test_what_cannot_be_started():
    with pytest.raises(FileNotFoundError):
        execute(["/no/such"], timeout=1, cwd="/")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, "not-executable"),
        (errno.ENOENT, "interpreter-missing"),
        (errno.ENOEXEC, "no-interpreter"),
        (errno.ENOMEM, "run-failed"),
    ],
)
def test_why_it_could_not_be_started(number, code):
    error = explain_start("/srv/a", OSError(number, os.strerror(number)))
    assert isinstance(error, ShipshapeError)
    assert error.findings[0].code == code


def test_contents_travel_in_one_piece():
    parts = [b"one", b"", b"three" * 1000]
    stream = unpack(pack(parts))
    assert Slice(stream, 3, 5000).read(4) == b"thre"
    first, last = Slice(stream, 0, 3), Slice(stream, 3, 5000)
    assert (last.read(2), first.read(), last.read(-1)) == (b"th", b"one", parts[2][2:])
    assert first.read(10) == b""
    for broken in ("%%%", pack(parts)[:-8], "AAAA"):
        with pytest.raises(ShipshapeError):
            unpack(broken)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("#!/bin/sh\necho\n", None),
        ("#!/bin/sh\nif\n", "invalid-script"),
        ("#!/bin/bash\nshopt -s extglob\nls !(a)\n", None),
        ("#!/bin/bash\na=(1 2)\n", None),
        ("#!/bin/dash\na=(1 2)\n", "invalid-script"),
        ("#!/bin/sh\necho no newline at the end", None),
        ("#!/usr/bin/env python3\nprint(1)\n", None),
        ("#!/usr/bin/env python3\n# ä\nprint(\n", "invalid-script"),
        ("#!/usr/bin/perl\nBEGIN { unlink '/' }\n", "not-validated"),
        ("#!/bin/sh\n\0", "not-validated"),
        ("", None),
    ],
)
def test_validation(tmp_path, content, code):
    path = tmp_path / "script"
    path.write_text(content)
    _, facts = inspect(content.encode(), "lf")
    script = Script("/srv/script", facts, Attributes())
    shebang = parse_shebang(facts.shebang)
    findings = validate(script, find_program(shebang) if shebang else None, str(path))
    assert [finding.code for finding in findings] == ([code] if code else [])
    assert os.listdir(tmp_path) == ["script"]
    assert all("Traceback" not in finding.message and "\n" not in finding.message for finding in findings)


@pytest.mark.skipif(find_program(parse_shebang("/usr/bin/env node")) is None, reason="Node.js is not installed")
@pytest.mark.parametrize(
    ("content", "good"),
    [("require('fs')\n", True), ("import fs from 'fs'\nawait 1\n", True), ("fun(\n", False)],
)
def test_validation_of_javascript(tmp_path, content, good):
    path = tmp_path / "script"
    path.write_text("#!/usr/bin/env node\n" + content)
    _, facts = inspect(path.read_bytes(), "lf")
    findings = validate(Script("/a", facts, Attributes()), find_program(parse_shebang(facts.shebang)), str(path))
    assert (findings == []) is good
    assert all("    at " not in finding.message for finding in findings)


def test_a_command_of_ones_own(tmp_path):
    path = tmp_path / "script"
    path.write_text("a=1\n")
    _, facts = inspect(b"a=1\n", "lf")

    def said(*command):
        findings = validate(Script("/srv/x", facts, Attributes(), command), None, str(path))
        return findings[0].message if findings else None

    assert said("grep", "-q", "a=1", "%s") is None
    assert "grep finds it wrong: exit code 1" in said("grep", "-q", "b", "%s")
    assert "says script: no" in said("sh", "-c", "echo says $1: no >&2; exit 1", "x", "%s")
    assert "could not be started" in said("/no/such", "%s")


def test_an_interpreter_is_looked_up_as_it_would_be():
    assert find_program(parse_shebang("/bin/sh")) == "/bin/sh"
    assert find_program(parse_shebang("/etc/passwd")) is None
    assert find_program(parse_shebang("/no/such/env sh")) is None
    assert os.path.basename(find_program(parse_shebang("/usr/bin/env sh"))) == "sh"


def test_of_much_that_a_checker_says_the_errors_are_shown():
    outcome = shell("seq 100 >&2; echo the error is here >&2; exit 1")
    assert complaint(outcome) == "the error is here"
