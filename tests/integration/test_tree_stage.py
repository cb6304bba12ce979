# SPDX-License-Identifier: GPL-3.0-or-later
"""Role `tree`, tasks `stage`: a plan is made from the files as they are going to be, those that only the target has
included, wherever they lie."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.playbook import play

SHIPPED = ("compose.yaml", "conf/site.conf", "conf/deep/er/a.conf", "old/gone.conf", "dropped/gone.conf")
OWN = ("secrets.env", "conf/secrets.env", "conf/deep/.hidden", "conf/ssl/key.pem", "old/kept.conf", "data/rows", "gone")


def write(root: Path, names: tuple[str, ...], text: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def staged(root: Path) -> dict[str, str]:
    """Every file that is seen from below `root`, through links as well."""
    return {
        os.path.relpath(os.path.join(folder, name), root): Path(folder, name).read_text(encoding="utf-8").strip()
        for folder, _dummy, names in os.walk(root, followlinks=True)
        for name in names
        if ".shipshape" not in Path(folder).parts
    }


def test_what_only_the_target_has_is_part_of_the_plan(tmp_path: Path) -> None:
    src, dest = tmp_path / "src", tmp_path / "srv" / "it's a shop"
    write(src, (*SHIPPED, "gone"), "one")
    bring = {"import_role": {"name": "shipshape.deploy.tree"}, "vars": {"tree_src": str(src), "tree_dest": str(dest)}}
    assert play(tmp_path / "first", bring).rc == 0
    write(dest, OWN[:-1], "own")
    write(src, ("conf/site.conf", "new/file"), "two")
    for name in ("old/gone.conf", "dropped/gone.conf", "gone"):
        (src / name).unlink()
    (src / "old").rmdir()
    (src / "dropped").rmdir()

    plan = {"include_role": {"name": "shipshape.deploy.tree", "tasks_from": "stage"}, "vars": bring["vars"]}
    tell = {"debug": {"msg": "{{ tree_staged_src }}"}}
    played = play(tmp_path / "plan", bring, plan, tell, options=["--check"])
    assert played.rc == 0, played.output
    root = Path(played.last["msg"])
    try:
        found = staged(root)
        assert not (root / "dropped").exists()
    finally:
        assert play(tmp_path / "end", {"file": {"path": str(root.parent), "state": "absent"}}).rc == 0
    own = dict.fromkeys(OWN[:-1], "own")
    two = {"conf/site.conf": "two", "new/file": "two"}
    assert found == {"compose.yaml": "one", "conf/deep/er/a.conf": "one", **own, **two}
    assert {name: text for name, text in staged(dest).items() if text == "two"} == {}, "a plan touches nothing"
