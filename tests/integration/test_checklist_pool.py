# SPDX-License-Identifier: GPL-3.0-or-later
"""The boxes about the pool, on one in SQLite that somebody else broke: slots that cannot be lent, visitors' files that
cannot be deleted."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.engine import Project
from tests.support.pools import now
from tests.support.sites import LOOKS, Site, go, results, works
from tests.support.stacks import service

# -- box 5: slots that cannot be lent ----------------------------------------------------------------------------------


def test_every_slot_can_be_lent(site: Site, tmp_path: Path) -> None:
    code, boxes, output = go(site, tmp_path, ["database"])
    assert code == 0, output
    assert "4 slots in all, 0 lent, 4 free" in boxes["database"][1]


def test_an_empty_database_is_no_pool_though_all_directories_are_there(site: Site, tmp_path: Path) -> None:
    for table in ("project_app_visitorallocation", "project_app_project", "auth_user"):
        site.world.sql(f"DELETE FROM {table}")
    code, boxes, _ = go(site, tmp_path, ["database", "directories", "workspaces"])
    assert code != 0
    assert results(boxes) == {"database": "failed", "directories": "passed", "workspaces": "passed"}
    assert "4 incomplete" in boxes["database"][1]
    assert "visitor-001 has no user" in boxes["database"][1]


@pytest.mark.parametrize("artefact", ["allocation", "project", "user"])
def test_a_row_that_is_lost(site: Site, tmp_path: Path, artefact: str) -> None:
    site.world.lose(artefact, 3)
    code, boxes, _ = go(site, tmp_path, ["database", "directories", "workspaces"])
    assert code != 0
    assert results(boxes) == {"database": "failed", "directories": "passed", "workspaces": "passed"}
    assert "1 incomplete" in boxes["database"][1]
    assert "visitor-003 has no" in boxes["database"][1]


def test_a_slot_that_is_quarantined(site: Site, tmp_path: Path) -> None:
    site.world.sql(
        "UPDATE project_app_visitorallocation SET is_active = true, session_key = 'shipshape:quarantined',"
        " expires_at = '9999-12-31 00:00:00' WHERE visitor_number = 2"
    )
    code, boxes, _ = go(site, tmp_path, ["database"])
    assert code != 0
    assert "1 quarantined" in boxes["database"][1]
    assert "visitor-002" in boxes["database"][1]


@pytest.mark.parametrize(("artefact", "box"), [("directory", "directories"), ("workspace", "workspaces")])
def test_what_is_missing_on_disk_is_another_box(site: Site, tmp_path: Path, artefact: str, box: str) -> None:
    site.world.lose(artefact, 2)
    code, boxes, _ = go(site, tmp_path, ["database", "directories", "workspaces"])
    assert code != 0
    assert [name for name, seen in boxes.items() if seen[0] == "failed"] == [box]


@pytest.mark.parametrize(
    ("path", "box", "said"),
    [
        ("default-project", "directories", "visitor-002 without default-project (visitor-002/default-project is no"),
        ("default-project/scitex/writer/01_manuscript", "workspaces", "01_manuscript (01_manuscript is neither"),
    ],
)
def test_what_is_in_the_way_is_named_and_is_not_for_the_module(
    site: Site, tmp_path: Path, path: str, box: str, said: str
) -> None:
    place = site.world.root / "visitor-002" / path
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    code, boxes, _ = go(site, tmp_path, ["database", "directories", "workspaces"])
    assert code != 0
    assert [name for name, seen in boxes.items() if seen[0] == "failed"] == [box]
    assert said in boxes[box][1]
    assert "Next: Look at what it is and move it away" in boxes[box][1]


def test_what_is_closed_to_the_application_is_the_box_of_directories(
    site: Site, tmp_path: Path, project: Project
) -> None:
    """Its user is another than that of the directories, which nobody who looks as root would see."""
    site.world.root.chmod(0o777)
    project.write({"services": {"web": service(user="1234:1234", volumes=[f"{site.world.root}:/data"])}})
    project.compose("up", "-d")
    given = {
        "checklist_project_src": str(project.folder),
        "checklist_project_name": project.name,
        "checklist_data_service": "web",
        "checklist_data_root": "/data",
    }
    boxes_of_disk = ["database", "directories", "workspaces"]
    site.world.call(state="reset")
    code, boxes, output = go(site, tmp_path, boxes_of_disk, **given)
    assert code == 0, output
    (site.world.root / "visitor-003/default-project").chmod(0o700)
    code, boxes, _ = go(site, tmp_path, boxes_of_disk, **given)
    assert code != 0
    assert results(boxes) == {"database": "passed", "directories": "failed", "workspaces": "passed"}
    assert (
        "visitor-003: the application runs as user 1234, and visitor-003/default-project is 0:0"
        in boxes["directories"][1]
    )
    assert "Next: Give it the owner" in boxes["directories"][1]
    site.world.root.chmod(0o700)
    code, boxes, _ = go(site, tmp_path, boxes_of_disk, **given)
    assert code != 0
    assert results(boxes) == {"database": "passed", "directories": "failed", "workspaces": "passed"}
    assert "pool: the application runs as user 1234" in boxes["directories"][1]


@pytest.mark.parametrize("lost", ["file", "table"])
def test_a_pool_that_cannot_be_looked_at_is_box_5s(site: Site, tmp_path: Path, lost: str) -> None:
    site.answer = works
    database = Path(site.world.database.url.removeprefix("sqlite:///"))
    if lost == "file":
        database.write_text("this is no database, and has been none for a while " * 40)
        said = "app.db"
    else:
        site.world.sql("ALTER TABLE project_app_visitorallocation RENAME TO old")
        said = "project_app_visitorallocation: there is no such table; Next: Run the application's migrations"
    code, boxes, _ = go(site, tmp_path, LOOKS)
    assert code != 0
    assert results(boxes) == {"database": "failed", **dict.fromkeys(LOOKS[1:], "not judged")}
    assert said in boxes["database"][1]
    assert "box 5 has to be ticked first" in boxes["directories"][1]
    code, boxes, _ = go(site, tmp_path, ["directories"])
    assert code != 0
    assert boxes["directories"][0] == "failed"
    assert said in boxes["directories"][1]


def test_visitors_are_no_flaw_unless_all_were_sent_away(site: Site, tmp_path: Path) -> None:
    site.lend()
    site.world.sql("UPDATE project_app_visitorallocation SET expires_at = %s WHERE visitor_number = 1", [now()])
    site.lend()
    code, boxes, output = go(site, tmp_path, ["database"])
    assert code == 0, output
    assert "1 lent, 2 free, 1 expired" in boxes["database"][1]
    code, boxes, output = go(site, tmp_path, ["reset", "database"], checklist_environment="demo")
    assert code == 0, output
    assert "0 lent, 4 free" in boxes["database"][1]


# -- box 2: what is deleted --------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("chattr") is None, reason="no chattr here")
def test_a_file_that_is_in_no_slot_but_still_there_is_not_deleted(site: Site, tmp_path: Path) -> None:
    kept = site.world.root / "visitor-001/default-project/thesis.tex"
    kept.write_text("of the one before")
    if subprocess.run(["chattr", "+i", kept], check=False, capture_output=True).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        code, boxes, _ = go(site, tmp_path, ["reset", "database", "workspaces"], checklist_environment="demo")
        assert code != 0
        assert results(boxes) == {"reset": "failed", "database": "passed", "workspaces": "passed"}
        assert "files of former visitors could not be removed" in boxes["reset"][1]
        assert "Next: See what holds them" in boxes["reset"][1]
    finally:
        for path in site.world.root.rglob("thesis.tex"):
            subprocess.run(["chattr", "-i", path], check=True)
