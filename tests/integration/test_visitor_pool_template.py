# SPDX-License-Identifier: GPL-3.0-or-later
"""The template of `visitor_pool`: which it takes and which not, and what it keeps of a git repository, when two want it
at once and when git fails half-way."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool.origin import Source
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.repository import Repository
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.template import Template
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report
from tests.support.pools import World, make_template, run, sqlite


class Shelf:
    """A repository on this machine. `fails`: a word of the git command that ends half-way; `ran` are all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder / "repository", folder / "cache"
        self.fails = ""
        self.ran: list[Sequence[str]] = []
        self.report = Report()
        self.folder.mkdir()
        self.git("init", "--quiet")
        self.commit(one="1", two="1", three="1")

    def git(self, *words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *who, *words], cwd=self.folder, check=True, capture_output=True)

    def commit(self, **files: str) -> None:
        for at in self.folder.glob("[a-z]*"):
            at.unlink()
        for name, content in files.items():
            (self.folder / name).write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "x")

    def run(self, argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        self.ran.append(argv)
        if self.fails and self.fails in argv:
            [new] = [at.partition("=")[2] for at in argv if at.startswith("--work-tree=")] or [""]
            if new:
                Path(new, "one").write_text("half")
            return 128, "", "fatal: No space left on device"
        done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def repository(self) -> Repository:
        return Repository(Source(f"file://{self.folder}", branch="main"), self.run, str(self.cache), self.report)

    def files(self) -> dict[str, str]:
        with self.repository().checkout() as place:
            return {at.name: at.read_text() for at in Path(place).iterdir()}


@pytest.fixture
def forge(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.mark.parametrize("step", ["init", "fetch", "rev-parse", "read-tree", "checkout-index"])
def test_one_that_fails_half_way_is_what_it_was(forge: Shelf, step: str) -> None:
    forge.fails = step
    with pytest.raises(ShipshapeError) as raised:
        forge.files()
    assert "No space left" in raised.value.findings[0].message
    forge.fails = ""
    assert forge.files() == {"one": "1", "two": "1", "three": "1"}
    forge.commit(one="2", four="2")
    forge.fails = step
    assert forge.files() == {"one": "1", "two": "1", "three": "1"}
    assert [at.code for at in forge.report.findings] == ["template-not-fetched"]
    forge.fails = ""
    assert forge.files() == {"one": "2", "four": "2"}
    [kept] = [at for at in forge.cache.glob("*/*") if at.is_dir() and at.name != "git"]  # no older ones
    assert len(kept.name) == 40


def test_a_directory_that_is_nested_too_deeply(tmp_path: Path) -> None:
    below = tmp_path.joinpath("01_manuscript", *"x" * 120)
    below.mkdir(parents=True)
    (tmp_path / "01_manuscript/a.tex").write_text("x")
    template = Template(Source(str(tmp_path)), ["01_manuscript"], Shelf.run, "", Report())  # type: ignore[arg-type]
    with pytest.raises(ShipshapeError) as raised:
        template.check()
    assert raised.value.findings[0].code == "template-invalid"
    assert "is more than 100 directories deep" in str(raised.value)


def test_what_has_not_changed_is_not_checked_out_again(forge: Shelf) -> None:
    forge.files()
    forge.ran.clear()
    assert forge.files() == {"one": "1", "two": "1", "three": "1"}
    assert not [argv for argv in forge.ran if "checkout-index" in argv]


def test_nobody_takes_the_files_away_while_they_are_read(forge: Shelf) -> None:
    """Pools of one application share its template; each has a lock of its own."""
    with forge.repository().checkout() as place:
        forge.commit(one="2", four="2")
        found: list[dict[str, str]] = []
        other = threading.Thread(target=lambda: found.append(forge.files()))
        other.start()
        other.join(1)
        assert not found
        assert sorted(os.listdir(place)) == ["one", "three", "two"]
    other.join(20)
    assert found == [{"one": "2", "four": "2"}]


def test_a_url_runs_no_command(forge: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """git has a transport that is a command; somebody's own configuration may allow it."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.allow")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "always")
    ran = forge.cache.with_name("ran")
    origin = Source(f"ext::touch {ran}", branch="main")
    with pytest.raises(ShipshapeError):
        with Repository(origin, forge.run, str(forge.cache), forge.report).checkout():
            pass
    with pytest.raises(ShipshapeError):
        Repository(origin, forge.run, str(forge.cache), forge.report).check()
    assert not ran.exists()


# -- what is a template -----------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A tag with three files, and a branch with one more."""
    folder = make_template(tmp_path / "repository")

    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    git("tag", "v1")
    (folder / "later.txt").write_text("later")
    git("add", ".")
    git("commit", "-m", "two")
    return folder


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = sqlite(tmp_path / "app.db")
    made.make()
    (tmp_path / "users").mkdir()
    yield World(made, tmp_path / "users", tmp_path, size=1)
    made.close()


def test_a_tag_is_that_tag_and_a_branch_its_newest_state(plain: World, repository: Path) -> None:
    url = f"file://{repository}"
    run("visitor_pool", plain.given(workspace={"template": url, "tag": "v1"}))
    there = plain.path(1) / "scitex/writer"
    assert sorted(os.listdir(there)) == ["01_manuscript", "README.md", "compile.sh"]
    plain.well(workspace={"template": url, "branch": "main"}, state="reset")
    assert (there / "later.txt").read_text() == "later"
    repository.rename(repository.with_name("gone"))
    # A tag stays what it was, so its server is not needed any more; a branch is what it was last.
    assert plain.well(workspace={"template": url, "tag": "v1"}, state="reset")["findings"] == []
    assert not (there / "later.txt").exists()
    result = plain.call(workspace={"template": url, "branch": "main"}, state="reset")
    assert not result.get("failed")
    assert "template-not-fetched" in {at["code"] for at in result["findings"]}
    assert (there / "later.txt").exists()
    failed = plain.call(workspace={"template": url, "tag": "v2"}, state="reset")
    assert failed["failed"]
    assert not failed["changed"]


@pytest.mark.parametrize(
    "workspace",
    [
        {"template": "https://example.invalid/x.git"},
        {"template": "https://example.invalid/x.git", "branch": "a", "tag": "b"},
        {"branch": "a"},
        {"template": "/nowhere/at/all"},
        {"template": "--upload-pack=touch /tmp/x", "branch": "a"},
    ],
)
def test_templates_that_make_no_sense(plain: World, workspace: dict[str, str]) -> None:
    result = plain.call(workspace=workspace)
    assert result["failed"]
    assert not result["changed"]
    assert {at["code"] for at in result["findings"]} <= {"template-invalid", "template-missing"}


def test_a_template_without_its_marker(plain: World, tmp_path: Path) -> None:
    (tmp_path / "template").mkdir()
    (tmp_path / "template/README").write_text("x")
    result = plain.call(workspace={"template": str(tmp_path / "template")})
    assert {at["code"] for at in result["findings"]} == {"template-without-marker"}
    (tmp_path / "template/link").symlink_to("/etc/passwd")
    assert "template-invalid" in {
        at["code"] for at in plain.call(workspace={"template": str(tmp_path / "template")})["findings"]
    }


def test_no_template_and_another_marker(plain: World) -> None:
    plain.well(workspace={"path": ".scitex/writer", "marker": "a/b"})
    assert os.listdir(plain.path(1) / ".scitex/writer/a/b") == [".keep"]
