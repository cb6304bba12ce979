# SPDX-License-Identifier: GPL-3.0-or-later
"""Ignore patterns: a table of the rules people rely on, and git itself as the judge of everything else."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.ignore import Ignore


@pytest.mark.parametrize(
    ("patterns", "path", "is_directory", "ignored"),
    [
        (["*.log"], "a/b.log", False, True),
        (["/a"], "a", False, True),
        (["/a"], "b/a", False, False),
        (["a/"], "a", False, False),
        (["a/"], "x/a", True, True),
        (["a/b"], "x/a/b", False, False),
        (["**/b"], "x/a/b", False, True),
        (["a/**"], "a/b/c", False, True),
        (["a/**"], "a", True, False),
        (["a/**/c"], "a/c", False, True),
        (["*.log", "!keep.log"], "keep.log", False, False),
        (["!keep.log", "*.log"], "keep.log", False, True),
        (["# comment"], "# comment", False, False),
        (["\\#x"], "#x", False, True),
        (["\\!x"], "!x", False, True),
        (["x  "], "x", False, True),
        (["x\\ "], "x ", False, True),
        (["[!a]b"], "ab", False, False),
        (["[a-c]x"], "bx", False, True),
        (["a?c"], "a/c", False, False),
        (["[[:digit:]]"], "7", False, True),
        (["", "/"], "a", True, False),
    ],
)
def test_rules(patterns: list[str], path: str, is_directory: bool, ignored: bool) -> None:
    ignore = Ignore(pattern.encode() for pattern in patterns)
    assert ignore.ignores(path.encode(), is_directory) is ignored


NAMES = ["a", "b", "ab", "a.c", "foo", "fo o", "[a]", "a]", "-", "*", "!x", "#h", "é", "foo\\", "x ", "A", "\\a", "a-b"]
PARTS = [
    *("a", "b", "c", "*", "**", "?", "/", "[ab]", "[!a]", "[^b]", "[a-z]", "[]a]", "[a", "\\", "\\*", "\\a", "foo"),
    *(
        "fo*",
        ".c",
        "!",
        "#",
        " ",
        "[[:alpha:]]",
        "[[:foo:]]",
        "-",
        "[z-a]",
        "[a-]",
        "**/",
        "/**",
        "é",
        "[\\]]",
        "[--a]",
    ),
]


def agrees(folder: Path, seed: int, rounds: int) -> None:
    """Random patterns on a random tree: the same paths are left out as `git check-ignore` names."""
    chance = random.Random(seed)
    subprocess.run(["git", "init", "-q", folder], check=True)
    paths: list[tuple[str, bool]] = []

    def fill(parent: str, depth: int) -> None:
        for name in NAMES:
            path = f"{parent}{name}"
            is_directory = depth < 2 and chance.random() < 0.3
            paths.append((path, is_directory))
            if is_directory:
                (folder / path).mkdir()
                fill(f"{path}/", depth + 1)
            else:
                (folder / path).touch()

    fill("", 0)
    for _ in range(rounds):
        patterns = ["".join(chance.choices(PARTS, k=chance.randint(1, 5))) for _ in range(chance.randint(1, 4))]
        (folder / ".git/info/exclude").write_text("\n".join(patterns) + "\n", encoding="utf-8")
        done = subprocess.run(
            ["git", "-C", folder, "check-ignore", "--no-index", "-z", "--stdin"],
            input="\0".join(path for path, _ in paths),
            capture_output=True,
            text=True,
        )
        ignore = Ignore(pattern.encode() for pattern in patterns)
        ours: set[str] = set()
        for path, is_directory in paths:
            parent = path.rpartition("/")[0]
            if parent in ours or ignore.ignores(os.fsencode(path), is_directory):
                ours.add(path)
        assert ours == set(done.stdout.split("\0")) - {""}, patterns


@pytest.mark.skipif(not shutil.which("git"), reason="git is the judge")
def test_agrees_with_git(tmp_path: Path) -> None:
    agrees(tmp_path, seed=7, rounds=60)
