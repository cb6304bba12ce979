# SPDX-License-Identifier: GPL-3.0-or-later
"""What role `tree` lays beside the files of a plan: whatever only the target has, however deep."""

from __future__ import annotations

from pathlib import Path

from tests.support.roles import program

beside = program("tree", "beside.py")


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{root.name}: {name}\n", encoding="utf-8")


def test_what_only_the_target_has_is_linked_wherever_it_lies(tmp_path: Path) -> None:
    dest, staged = tmp_path / "dest", tmp_path / "staged"
    write(dest, "compose.yaml", "proxy/a.conf", "proxy/cert.pem", "proxy/deep/er/key", "data/db/1", ".env", "old/x/1")
    write(staged, "compose.yaml", "proxy/a.conf", "proxy/deep/er/other", "new")
    (dest / "leads-nowhere").symlink_to("nothing")

    beside.link(str(dest), str(staged), [])

    links = {str(at.relative_to(staged)) for at in staged.rglob("*") if at.is_symlink()}
    assert links == {"proxy/cert.pem", "proxy/deep/er/key", "data", ".env", "old", "leads-nowhere"}
    assert (staged / "proxy/cert.pem").read_text(encoding="utf-8") == "dest: proxy/cert.pem\n"
    assert (staged / "compose.yaml").read_text(encoding="utf-8") == "staged: compose.yaml\n"


def test_what_is_going_to_be_removed_is_not(tmp_path: Path) -> None:
    dest, staged = tmp_path / "dest", tmp_path / "staged"
    write(dest, "old/x/1", "old/x/own", "gone/1", "proxy/a.conf", "proxy/b.conf")
    write(staged, "proxy/a.conf")

    beside.link(str(dest), str(staged), ["old/x/1", "gone/1", "proxy/b.conf"])

    assert {str(at.relative_to(staged)) for at in staged.rglob("*") if at.is_symlink()} == {"old/x/own"}
    assert not (staged / "gone").exists()


def test_what_ships_in_the_place_of_something_else_stays_as_it_ships(tmp_path: Path) -> None:
    dest, staged = tmp_path / "dest", tmp_path / "staged"
    write(dest, "a/own", "b")
    write(staged, "a", "b/ships")

    beside.link(str(dest), str(staged), [])

    assert (staged / "a").is_file()
    assert sorted(at.name for at in (staged / "b").iterdir()) == ["ships"]


def test_a_target_without_the_project_has_nothing_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    beside.link(str(tmp_path / "none"), str(tmp_path / "staged"), [])
    assert list((tmp_path / "staged").iterdir()) == []
