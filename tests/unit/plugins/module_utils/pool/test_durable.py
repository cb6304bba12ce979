# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be on the disk before the next thing is done: who loses power keeps what was synced."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import journals
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.access import Access
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.data_root import SCRATCH
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.disk import Root
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.model import Settings
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.origin import Source
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.repository import Repository
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.walk import HostPath
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    (tmp_path / "users").mkdir()
    place = HostPath(str(tmp_path / "users"))
    found = Root(place, Settings(), Access(place, []))
    yield found
    found.close()


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in order: `sync` with the name of what was synced, and changes of names."""
    found: list[str] = []

    def noting(name: str) -> Any:
        real = getattr(os, name)

        def note(what: Any, *words: Any, **keys: Any) -> Any:
            what_for = os.readlink(f"/proc/self/fd/{what}") if name == "fsync" else str(what)
            found.append(f"{name} {os.path.basename(what_for)}")
            return real(what, *words, **keys)

        return note

    for name in ("fsync", "rename", "replace", "unlink"):
        monkeypatch.setattr(os, name, noting(name))
    return found


def test_a_journal_is_there_before_it_has_its_name_and_its_name_before_anything_moves(
    root: Root, done: list[str]
) -> None:
    journals.begin(root, 7, {"slot": 7})
    temporary = done[0].split()[1]
    assert done == [f"fsync {temporary}", f"rename {temporary}", f"fsync {SCRATCH}"]
    assert oct((Path(root.path) / SCRATCH / "transfer-7.json").stat().st_mode & 0o777) == "0o600"
    done.clear()
    journals.end(root, 7)
    assert done == ["unlink transfer-7.json", f"fsync {SCRATCH}"]


def test_a_project_is_in_its_new_place_before_the_database_is_told(root: Root, done: list[str]) -> None:
    for name in ("visitor-001/default-project", "alice"):
        (Path(root.path) / name).mkdir(parents=True)
    root.move("visitor-001", "alice")
    assert done == ["rename default-project", "fsync alice", "fsync visitor-001"]


def test_which_state_of_a_template_is_current_is_written_before_it_counts(tmp_path: Path, done: list[str]) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "init.defaultBranch=main"]
    for words in (["init", str(tmp_path / "x")], ["-C", str(tmp_path / "x"), "commit", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *who, *words], check=True, capture_output=True)

    def run(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        said = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True)
        return said.returncode, said.stdout, said.stderr

    kept = Repository(Source(f"file://{tmp_path}/x", branch="main"), run, str(tmp_path / "cache"), Report())
    with kept.checkout():
        assert done == ["rename new", "fsync current.new", "replace current.new"]
