# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_text import (
    Shebang,
    inspect,
    parse_shebang,
    syntax_checks,
)

ELF = b"\x7fELF\x02\x01\x01\0\0\r\n"


@pytest.mark.parametrize(
    ("given", "endings", "placed", "notes"),
    [
        (b"#!/bin/sh\necho\n", "lf", b"#!/bin/sh\necho\n", ()),
        (b"#!/bin/sh\r\necho\r\n", "lf", b"#!/bin/sh\necho\n", ("crlf-removed",)),
        (b"#!/bin/sh\r\necho\r\n", "keep", b"#!/bin/sh\r\necho\r\n", ("crlf-kept",)),
        (b"\xef\xbb\xbf#!/bin/sh\n", "lf", b"#!/bin/sh\n", ("bom-removed",)),
        (b"\xef\xbb\xbf#!/bin/sh\n", "keep", b"\xef\xbb\xbf#!/bin/sh\n", ("bom-kept",)),
        (b"\xef\xbb\xbf#!/bin/sh\r\n", "lf", b"#!/bin/sh\n", ("bom-removed", "crlf-removed")),
        (b"one\rtwo", "lf", b"one\rtwo", ()),  # a carriage return alone is content
        (b"", "lf", b"", ()),
        (b"no newline at the end", "lf", b"no newline at the end", ()),
        (ELF, "lf", ELF, ("binary", "program")),
        (b"#!/bin/sh\r\nexit\r\n\0\r\n", "lf", b"#!/bin/sh\r\nexit\r\n\0\r\n", ("binary",)),
        ("#!/bin/sh\r\n".encode("utf-16"), "lf", "#!/bin/sh\r\n".encode("utf-16"), ("utf-16", "binary")),
        (b"\xe4\xf6\r\n", "lf", b"\xe4\xf6\n", ("crlf-removed",)),  # Latin-1 is text too
        (b"shopt -s extglob\n", "lf", b"shopt -s extglob\n", ("extglob",)),
    ],
)
def test_line_endings(given, endings, placed, notes):
    content, facts = inspect(given, endings)
    assert content == placed
    assert facts.notes == notes
    assert facts.size == len(placed)
    assert facts.sha256 == hashlib.sha256(placed).hexdigest()


@pytest.mark.parametrize(
    ("content", "shebang"),
    [
        (b"#!/bin/sh\necho\n", "/bin/sh"),
        (b"#! /bin/sh -e \necho\n", "/bin/sh -e"),
        (b"#!/bin/sh", "/bin/sh"),
        (b"#!\n", ""),
        (b"echo\n#!/bin/sh\n", ""),
        (b"", ""),
    ],
)
def test_first_line(content, shebang):
    assert inspect(content, "lf")[1].shebang == shebang


def test_a_carriage_return_that_is_kept_stays_in_the_first_line():
    assert inspect(b"#!/bin/sh\r\n", "keep")[1].shebang == "/bin/sh\r"


@pytest.mark.parametrize(
    ("line", "shebang"),
    [
        ("/bin/sh", Shebang("/bin/sh", "/bin/sh")),
        ("/bin/sh -e -u", Shebang("/bin/sh", "/bin/sh", ("-e -u",))),  # the kernel gives all the rest as one
        ("/usr/bin/env python3", Shebang("/usr/bin/env", "python3")),
        ("/usr/bin/env\tpython3", Shebang("/usr/bin/env", "python3")),
        ("/usr/bin/env bash -e", Shebang("/usr/bin/env", "bash -e", unsplit=True)),
        ("/usr/bin/env -S bash -e", Shebang("/usr/bin/env", "bash", ("-e",))),
        ("/usr/bin/env -S -i A=b bash -e", Shebang("/usr/bin/env", "bash", ("-e",))),
        ("/usr/bin/env -S -u HOME node --x 'a b'", Shebang("/usr/bin/env", "node", ("--x", "a b"))),
        ("/usr/bin/env -iS A=b python3", Shebang("/usr/bin/env", "python3")),
        ("/usr/bin/env --split-string=perl -w", Shebang("/usr/bin/env", "perl", ("-w",))),
        ("/usr/bin/env -S A=b", None),
        ("/usr/bin/env -S 'unclosed", None),
        ("/usr/bin/env", None),
        ("", None),
        ("  ", None),
    ],
)
def test_shebang(line, shebang):
    assert parse_shebang(line) == shebang


@pytest.mark.parametrize(
    ("line", "notes", "begins"),
    [
        ("/bin/sh", (), [["/x", "-n"]]),
        ("/usr/bin/env bash", (), [["/x", "-n"]]),
        ("/bin/bash", ("extglob",), [["/x", "-O", "extglob", "-n"]]),
        ("/bin/dash", ("extglob",), [["/x", "-n"]]),
        ("/bin/busybox sh", (), [["/x", "sh", "-n"]]),
        ("/bin/busybox awk -f", (), []),
        ("/usr/bin/env python3.11", (), [["/x", "-E", "-S", "-W", "ignore", "-c"]]),
        ("/usr/bin/python", (), [["/x", "-E", "-S", "-W", "ignore", "-c"]]),
        ("/usr/bin/pythonista", (), []),
        ("/usr/bin/env node", (), [["/x", "--check", "-"], ["/x", "--input-type=module", "--check", "-"]]),
        ("/usr/bin/perl -w", (), []),
        ("/usr/bin/env ruby", (), []),
        ("/bin/bash", ("binary",), []),
    ],
)
def test_choice_of_the_syntax_check(line, notes, begins):
    commands = syntax_checks(parse_shebang(line), "/x", "/srv/script", notes)
    assert [command[: len(begin)] for command, begin in zip(commands, begins)] == begins
    assert len(commands) == len(begins)


def test_a_module_of_javascript_is_checked_as_one():
    shebang = parse_shebang("/usr/bin/node")
    assert syntax_checks(shebang, "/x", "/srv/a.mjs", ()) == [["/x", "--input-type=module", "--check", "-"]]
