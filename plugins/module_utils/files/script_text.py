# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be told from a script's text: line endings, interpreter, how to check its syntax. No I/O."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_SHEBANG = 4096
_SHELLS = ("sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "zsh")
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")
_NODE = ("node", "nodejs")
# The script comes on stdin, so that no .pyc is written and no temporary name gets into the message.
_COMPILE = """
import sys
try:
    compile(getattr(sys.stdin, "buffer", sys.stdin).read(), sys.argv[1], "exec")
except SyntaxError as error:
    sys.exit("line %s: %s" % (error.lineno, error.msg))
except Exception as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class Facts:
    """What is known of a script's content without having it at hand.

    `shebang` is its first line without `#!`, empty when there is none. `notes` holds any of: crlf-removed,
    bom-removed, crlf-kept, bom-kept, utf-16, binary (has NUL bytes), program (an ELF file), extglob.
    """

    sha256: str
    size: int
    shebang: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shebang:
    """`path` is what the kernel starts; `program` is the interpreter, a bare name when env has to look it up."""

    path: str
    program: str
    arguments: tuple[str, ...] = ()
    unsplit: bool = False  # `env bash -e` without -S: env looks for a program named "bash -e"

    @property
    def by_env(self) -> bool:
        return self.program != self.path


def inspect(content: bytes, line_endings: str) -> tuple[bytes, Facts]:
    """`content` as it is to be placed, and the facts about it. Binary data is never touched."""
    notes: list[str] = []
    if content.startswith(_UTF16):
        notes.append("utf-16")
    if b"\0" in content:
        notes.append("binary")
        if content.startswith(b"\x7fELF"):
            notes.append("program")
    else:
        content, found = _text(content, line_endings)
        notes += found
    first = content[:_LONGEST_SHEBANG].split(b"\n", 1)[0]
    shebang = first[2:].decode("utf-8", "replace").strip(" \t") if first.startswith(b"#!") else ""
    facts = Facts(hashlib.sha256(content).hexdigest(), len(content), shebang, tuple(notes))
    return content, facts


def _text(content: bytes, line_endings: str) -> tuple[bytes, list[str]]:
    convert = line_endings == "lf"
    notes = []
    if content.startswith(_BOM):
        notes.append("bom-removed" if convert else "bom-kept")
        content = content[len(_BOM) :] if convert else content
    if b"\r\n" in content:
        notes.append("crlf-removed" if convert else "crlf-kept")
        content = content.replace(b"\r\n", b"\n") if convert else content
    if b"extglob" in content:
        notes.append("extglob")
    return content, notes


def parse_shebang(line: str) -> Shebang | None:
    """Reads what stands behind `#!` as the kernel and env do: one interpreter, at most one argument."""
    path, _space, rest = line.replace("\t", " ").strip(" ").partition(" ")
    rest = rest.strip(" ")
    if not path:
        return None
    if os.path.basename(path) != "env":
        return Shebang(path, path, (rest,) if rest else ())
    split = re.match(r"(?:-[a-zA-Z0]*S|--split-string[= ])\s*(.*)", rest)
    if split is None:
        return Shebang(path, rest, unsplit=" " in rest) if rest else None
    try:
        words = shlex.split(split.group(1))
    except ValueError:
        return None
    return _of_env(path, words)


def _of_env(path: str, words: Sequence[str]) -> Shebang | None:
    """Skips env's own options and the variables it sets."""
    takes_value = ("-u", "--unset", "-C", "--chdir")
    position = 0
    while position < len(words):
        word = words[position]
        if word in takes_value:
            position += 2
        elif word.startswith("-") or "=" in word:
            position += 1
        else:
            return Shebang(path, word, tuple(words[position + 1 :]))
    return None


def syntax_checks(shebang: Shebang, interpreter: str, dest: str, notes: Sequence[str]) -> list[list[str]]:
    """Commands that check a script on their stdin without running any of it: one of them must be content.

    Empty for languages without a safe check (`perl -c` runs BEGIN blocks) and for scripts with binary data in them.
    """
    name = os.path.basename(shebang.program)
    prefix = [interpreter]
    if name == "busybox" and shebang.arguments:
        name = shebang.arguments[0].split(" ", 1)[0]
        prefix.append(name)
    if "binary" in notes:
        return []
    if name in _SHELLS:
        # -n does not execute `shopt -s extglob` either, and without it such patterns are syntax errors.
        extended = ["-O", "extglob"] if name == "bash" and "extglob" in notes else []
        return [[*prefix, *extended, "-n"]]
    if _PYTHON.fullmatch(name):
        return [[*prefix, "-E", "-S", "-W", "ignore", "-c", _COMPILE, os.path.basename(dest)]]
    if name in _NODE:
        # Which of the two kinds of JavaScript it is depends on files around it that we do not know.
        plain, module = [*prefix, "--check", "-"], [*prefix, "--input-type=module", "--check", "-"]
        return [module] if dest.endswith(".mjs") else [plain, module]
    return []
