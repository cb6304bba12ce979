# SPDX-License-Identifier: GPL-3.0-or-later
"""A template on disk: what of it comes into the slots, and what is refused before any slot is touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import template as module
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.origin import secrets_in, source
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.template import (
    File,
    Link,
    Node,
    Template,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "01_manuscript").mkdir()
    (tmp_path / "01_manuscript/abstract.tex").write_text("An abstract.")
    return tmp_path


def read(folder: Path) -> Mapping[str, Node]:
    def run(*_words: object) -> tuple[int, str, str]:
        raise AssertionError("a directory needs no command")

    return Template(source({"template": str(folder)}), ("01_manuscript",), run, "/nowhere", Report()).tree()


def refused(folder: Path) -> str:
    with pytest.raises(ShipshapeError) as raised:
        read(folder)
    [finding] = raised.value.findings
    assert finding.code == "template-invalid"
    return f"{finding.subject} {finding.message}"


def test_files_links_and_what_may_be_run(folder: Path) -> None:
    for name, mode in (("run", 0o700), ("all", 0o755), ("data", 0o644), ("others", 0o645)):
        (folder / name).write_text(name)
        (folder / name).chmod(mode)
    (folder / "01_manuscript/link").symlink_to("../data")
    tree = read(folder)
    runs = {name for name, node in tree.items() if isinstance(node, File) and node.executable}
    assert runs == {"run", "all"}
    assert tree["01_manuscript"] == {"abstract.tex": File(b"An abstract."), "link": Link("../data")}


def test_a_working_copys_history_stays_where_it_is(folder: Path) -> None:
    for name in (".git", "01_manuscript/.git"):
        (folder / name).mkdir()
        (folder / name / "config").write_text("url = https://somebody:secret@example.invalid")
    tree = read(folder)
    assert sorted(tree) == ["01_manuscript"]
    assert sorted(tree["01_manuscript"]) == [".git", "abstract.tex"]  # only the top one is the template's own


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "..", "../..", "../01_manuscript/../../x"])
def test_a_link_that_leads_out_is_refused(folder: Path, target: str) -> None:
    place = folder / ("link" if target in ("..", "/etc/passwd") else "01_manuscript/link")
    place.symlink_to(target)
    assert f"leads out of the template ({target})" in refused(folder)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.mknod(path, 0o140600)], ids=["fifo", "socket"])
def test_what_is_no_file_is_refused(folder: Path, make: Callable[[Path], None]) -> None:
    make(folder / "odd")
    assert "neither file nor directory" in refused(folder)


def test_a_template_that_is_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "large").write_bytes(b"x" * 20)
    monkeypatch.setattr(module, "_LARGEST", 32)
    assert isinstance(read(folder)["large"], File)  # 12 before it: 32 of 32
    monkeypatch.setattr(module, "_LARGEST", 31)
    assert str(folder / "large") in refused(folder)


@pytest.mark.parametrize(
    "workspace",
    [
        {"template": "--upload-pack=x", "branch": "a"},
        {"template": "https://example.invalid/x.git", "branch": "--upload-pack=x"},
        {"template": "https://example.invalid/x.git", "tag": "-x"},
        {"template": "https://example.invalid/x.git", "branch": "a", "tag": "b"},
        {"template": "https://example.invalid/x.git"},
        {"template": "git@example.invalid:x"},
        {"tag": "v1"},
        {"template": "https://a%0Ab:c@example.invalid/x.git", "tag": "v1"},
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(workspace: dict[str, str]) -> None:
    with pytest.raises(ShipshapeError) as raised:
        source(workspace)
    assert [at.code for at in raised.value.findings] == ["template-invalid"]


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("https://example.invalid/x.git", set()),
        ("/srv/template", set()),
        ("https://t0ken@example.invalid/x.git", {"t0ken"}),
        ("https://t0ken:x-oauth-basic@example.invalid/x.git", {"t0ken"}),
        ("https://me:pa%2Fss@example.invalid/x.git", {"pa%2Fss", "pa/ss"}),
    ],
)
def test_what_of_a_url_must_not_be_shown(url: str, secret: set[str]) -> None:
    assert secrets_in(url) == secret
    shown = source({"template": url, "branch": "main"})
    assert not any(at in f"{shown} {shown.place}" for at in secret)
