# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tree where something is in the way: it says what, and nothing that is there is changed or followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.trees import Project, snapshot, write


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("planted", ["link-to-directory", "link-to-file", "directory", "fifo", "parent-link"])
def test_something_else_in_the_way(project: Project, planted: str) -> None:
    """Nothing is followed out of dest, nothing foreign is deleted, and nothing at all is changed."""
    project.write("conf/app.conf", "new")
    project.write("z", "z")
    project.shipped()
    project.write("conf/app.conf", "newer")
    project.write("z", "zz")
    outside = project.folder / "outside"
    write(outside / "app.conf", "secret")
    target = project.dest / "conf" / "app.conf"
    if planted == "parent-link":
        (project.dest / "conf").rename(project.folder / "moved")
        (project.dest / "conf").symlink_to(outside)
    else:
        target.unlink()
        if planted == "link-to-directory":
            target.symlink_to(outside)
        elif planted == "link-to-file":
            target.symlink_to(outside / "app.conf")
        elif planted == "directory":
            write(target / "data", "precious")
        else:
            os.mkfifo(target)
    before = sorted(os.listdir(project.dest))
    for check in (True, False):
        result = project.refused(check=check)
        assert {finding["code"] for finding in result["findings"]} == {"path-in-the-way"}
        assert "conf" in result["msg"]
        assert not result["changed"]
    assert (outside / "app.conf").read_text() == "secret"
    assert (project.dest / "z").read_text() == "z"
    assert sorted(os.listdir(project.dest)) == before
    # Removing such a path is not ours to do either.
    (project.src / "conf" / "app.conf").unlink()
    (project.src / "conf").rmdir()
    result = project.shipped()
    assert (outside / "app.conf").read_text() == "secret"
    assert os.path.lexists(project.dest / "conf")
    assert {finding["code"] for finding in result["findings"]} & {"left-alone", "directory-kept"}


@pytest.mark.parametrize(
    ("dest", "code"),
    [
        ("relative/path", "invalid-dest"),
        ("/", "invalid-dest"),
        ("{folder}/file", "dest-not-a-directory"),
        ("{folder}/file/below", "not-a-directory"),
        ("{folder}/dangling", "dangling-link"),
    ],
)
def test_bad_destinations(project: Project, dest: str, code: str) -> None:
    project.write("a", "1")
    write(project.folder / "file", "x")
    (project.folder / "dangling").symlink_to(project.folder / "nowhere")
    result = project.refused(dest=dest.format(folder=project.folder))
    assert [finding["code"] for finding in result["findings"]] == [code]
    assert (project.folder / "file").read_text() == "x"
    assert not (project.folder / "nowhere").exists()


def test_bad_sources(project: Project) -> None:
    project.write("a", "1")
    assert [finding["code"] for finding in project.refused_play(src="nothing-there")["findings"]] == ["source-missing"]
    assert [finding["code"] for finding in project.refused_play(src="shop/a")["findings"]] == ["source-missing"]
    assert "transfer" in project.refused_play(transfer={"archive": "/etc/passwd"})["msg"]
    assert "Unsupported" in project.refused_play(sorce="x")["msg"]
    assert not project.dest.exists()


def test_dest_through_a_link(project: Project) -> None:
    project.write("conf/a", "1")
    (project.folder / "real").mkdir()
    project.dest.parent.mkdir()
    project.dest.symlink_to(project.folder / "real")
    assert project.shipped()["dest"] == str(project.folder / "real")
    assert snapshot(project.folder / "real") == snapshot(project.src)
