# SPDX-License-Identifier: GPL-3.0-or-later
"""The boxes about pool and pages, on applications of other people: a pool in SQLite, a site that does as it likes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.playbook import Played, play, play_text
from tests.support.pools import World, make_template, now, sqlite

SIZE = 4
LOOKS = ["database", "directories", "workspaces", "visit", "writer"]


@dataclass
class Site:
    """An application: what it answers to whom is one function, `answer`."""

    world: World
    port: int = 0
    answer: Callable[[Site, str, str], tuple[int, dict[str, str], str]] | None = None
    sessions: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def lend(self) -> tuple[int, str]:
        """A slot for a new visitor, as another process would take it."""
        own = World(sqlite(Path(self.world.database.url.removeprefix("sqlite:///"))), self.world.root, Path(), SIZE)
        found = own.visit()
        own.database.close()
        assert found is not None
        self.sessions[found[1]] = found[0]
        return found[:2]

    def lent(self) -> list[int]:
        rows = self.world.sql("SELECT visitor_number FROM project_app_visitorallocation WHERE is_active ORDER BY 1")
        return [number for (number,) in rows]


def works(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    number, headers = site.sessions.get(session), {}
    if number is None:
        number, key = site.lend()
        headers = {"Set-Cookie": f"sessionid={key}; Path=/; HttpOnly"}
    return 200, headers, f"<p>You write as visitor-{number:03d}</p>"


def nameless(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    status, headers, _ = works(site, path, session)
    return status, headers, "<p>Welcome</p>"


def crowded(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    if not session:
        site.lend()
    return works(site, path, session)


def crowded_and_nameless(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    if not session:
        site.lend()
    return nameless(site, path, session)


def page(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    return 200, {}, "<h1>Another site</h1>"


def page_with_cookie(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    return 200, {"Set-Cookie": "seen=1"}, "<h1>visitor-001 was here</h1>"


def form(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    return 200, {"Set-Cookie": "csrf=1"}, '<form><input name="name"><input type="password" name="password"></form>'


def login(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    if path.startswith("/auth/login/"):
        return form(site, path, session)
    return 302, {"Location": f"/auth/login/?next={path}"}, ""


def elsewhere(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    return 302, {"Location": f"http://localhost:{site.port}/parked/"}, ""


def winding(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    if path != "/en/writer/":
        return 301, {"Location": "/en" + path}, ""
    return works(site, path, session)


def busy(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    return 503, {}, "<h1>High Traffic</h1>"


def headless(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    return 502, {}, "Bad Gateway"


def absent(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    return 404, {}, "nothing here"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "users"
    root.mkdir()
    database = sqlite(tmp_path / "app.db")
    database.make()
    world = World(database, root, make_template(tmp_path), SIZE)
    assert not world.call().get("failed")
    made = Site(world)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            cookie = SimpleCookie(self.headers.get("Cookie", ""))
            session = cookie["sessionid"].value if "sessionid" in cookie else ""
            made.asked.append(self.path)
            assert made.answer is not None
            status, headers, body = made.answer(made, self.path, session)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()
    database.close()


def variables(site: Site, boxes: list[str], **more: Any) -> dict[str, Any]:
    return {
        "checklist_boxes": boxes,
        "checklist_service": "",
        "checklist_data_service": "",
        "checklist_database_url": site.world.database.url,
        "checklist_data_root": str(site.world.root),
        "checklist_size": SIZE,
        "checklist_workspace": {
            "path": "scitex/writer",
            "marker": "01_manuscript",
            "template": str(site.world.template),
        },
        "checklist_url": site.url,
        **more,
    }


def read(played: Played) -> dict[str, tuple[str, str]]:
    """Each box that was looked at: its result and the evidence."""
    shown = [record["msg"] for record in played.results if record["name"].endswith("Show the list")]
    assert shown, played.output
    boxes = {}
    names = ("build", "reset", "restart", "logs", "database", "directories", "workspaces", "visit", "writer")
    for name, line in zip(names, shown[-1], strict=True):
        found = re.fullmatch(r"\[[ x]\] \d [^:]+: ([a-z ]+?)(?: \((.*)\))?", line, re.DOTALL)
        assert found, line
        if found[1] != "left out":
            boxes[name] = (found[1], found[2] or "")
    return boxes


def go(
    site: Site, folder: Path, boxes: list[str], *options: str, **more: Any
) -> tuple[int, dict[str, tuple[str, str]], str]:
    task = {"ansible.builtin.import_role": {"name": "shipshape.deploy.checklist"}}
    played = play(folder / "play", task, options=list(options), vars=variables(site, boxes, **more))
    return played.rc, read(played), played.output


def results(boxes: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {name: seen[0] for name, seen in boxes.items()}


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


# -- boxes 8 and 9: who gets in ----------------------------------------------------------------------------------------


def test_a_visit_is_lent_one_slot_and_gives_it_back(site: Site, tmp_path: Path) -> None:
    site.answer = works
    site.lend()  # somebody is there, and stays
    for environment in ("demo", "production"):
        code, boxes, output = go(site, tmp_path, LOOKS, checklist_environment=environment)
        assert code == 0, output
        assert set(results(boxes).values()) == {"passed"}
        assert "visitor-002 lent to it, 1 before and 2 after" in boxes["visit"][1]
        assert "cookie sessionid" in boxes["visit"][1]
        assert boxes["visit"][1].endswith("visitor-002 given back")
        assert not any(key in output for key in site.sessions), "the cookie opens the workspace"
        assert site.lent() == [1]
    site.world.is_whole()


def test_box_9_alone_visits_and_gives_back(site: Site, tmp_path: Path) -> None:
    site.answer = works
    code, boxes, output = go(site, tmp_path, ["writer"])
    assert code == 0, output
    assert boxes["writer"][1].endswith("visitor-001 given back")
    assert site.lent() == []


def test_others_come_meanwhile_and_keep_what_they_have(site: Site, tmp_path: Path) -> None:
    site.answer = crowded
    code, boxes, output = go(site, tmp_path, ["visit"])
    assert code == 0, output
    assert boxes["visit"][1].endswith("visitor-002 given back")
    assert site.lent() == [1]


def test_what_the_page_does_not_name_is_not_given_back(site: Site, tmp_path: Path) -> None:
    site.answer = nameless
    code, boxes, output = go(site, tmp_path, ["visit"])
    assert code == 0, output
    assert "visitor-001 stays lent" in boxes["visit"][1]
    assert site.lent() == [1]
    site.answer = crowded_and_nameless
    code, boxes, _ = go(site, tmp_path, ["visit"])
    assert code != 0
    assert "2 slots were lent" in boxes["visit"][1]
    assert site.lent() == [1, 2, 3]


def test_a_slot_that_cannot_be_made_anew_is_not_given_back(site: Site, tmp_path: Path) -> None:
    site.answer = works
    bare = {"path": "scitex/writer", "marker": "01_manuscript"}
    code, boxes, output = go(site, tmp_path, ["visit"], checklist_workspace=bare)
    assert code == 0, output
    assert "visitor-001 stays lent until the lease ends: without a template" in boxes["visit"][1]
    assert site.lent() == [1]


def test_what_is_broken_elsewhere_is_told_and_not_mended_by_the_look(site: Site, tmp_path: Path) -> None:
    site.answer = works
    site.world.lose("workspace", 3)
    for lent in ([1], [1, 2]):
        code, boxes, _ = go(site, tmp_path, LOOKS)
        assert code != 0
        assert [name for name, seen in boxes.items() if seen[0] != "passed"] == ["workspaces"]
        assert "visitor-003 without" in boxes["workspaces"][1]
        assert "stays lent until the lease ends: clearing it would mend visitor-003, too." in boxes["visit"][1]
        assert site.lent() == lent


def test_a_slot_that_the_page_no_longer_shows_is_left_alone(site: Site, tmp_path: Path) -> None:
    def forgets(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
        return works(site, path, session) if len(site.asked) < 3 else page(site, path, session)

    site.answer = forgets
    code, boxes, output = go(site, tmp_path, ["visit"])
    assert code == 0, output
    assert boxes["visit"][1].endswith("; visitor-001 is held by the visit no more, and was left alone")
    assert site.lent() == [1]


@pytest.mark.parametrize(
    ("session", "cause", "remedy"),
    [
        ("'x' || visitor_number", "saturated", "Wait until leases end"),
        ("'shipshape:quarantined'", "quarantined", "See why its slots could not be cleaned"),
    ],
)
def test_why_nobody_is_let_in(site: Site, tmp_path: Path, session: str, cause: str, remedy: str) -> None:
    site.answer = busy
    tomorrow = now() + timedelta(days=1)
    site.world.sql(
        f"UPDATE project_app_visitorallocation SET is_active = true, expires_at = %s, session_key = {session}",
        [tomorrow],
    )
    code, boxes, _ = go(site, tmp_path, ["visit"])
    assert code != 0
    assert f"answered 503, and the page says High Traffic, and the pool is {cause}. Next: {remedy}" in boxes["visit"][1]


def test_nobody_answers(site: Site, tmp_path: Path) -> None:
    code, boxes, _ = go(site, tmp_path, ["visit"], checklist_url="http://127.0.0.1:1/")
    assert code != 0
    assert "did not answer (Request failed: <urlopen error [Errno 111] Connection refused>)" in boxes["visit"][1]
    assert "Next: see that checklist_url is" in boxes["visit"][1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (headless, ["answered 502", "see that what the proxy leads to runs"]),
        (absent, ["answered 404", "checklist_visit_url"]),
        (page, ["set no cookie", "no slot was lent", "checklist_url"]),
        (page_with_cookie, ["no slot was lent", "checklist_url"]),
        (form, ["a form that asks for a password", "make the pool"]),
        (login, ["redirect to http://127.0.0.1", "/auth/login/", "make the pool"]),
        (elsewhere, ["redirect to http://localhost", "/parked/", "checklist_url"]),
        (busy, ["answered 503", "High Traffic", "read the logs"]),
    ],
)
def test_who_does_not_get_in(site: Site, tmp_path: Path, answer: Any, said: list[str]) -> None:
    def parked(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
        return page(site, path, session) if path == "/parked/" else answer(site, path, session)

    site.answer = parked
    code, boxes, _ = go(site, tmp_path, LOOKS)
    assert code != 0
    assert [name for name, seen in boxes.items() if seen[0] != "passed"] == ["visit", "writer"]
    assert results(boxes)["writer"] == "not judged"
    for words in said:
        assert words in boxes["visit"][1]
    assert ("make the pool" in boxes["visit"][1]) == ("make the pool" in said)
    assert site.lent() == []


def test_a_redirect_within_the_site_is_followed(site: Site, tmp_path: Path) -> None:
    site.answer = winding
    code, boxes, output = go(site, tmp_path, ["visit", "writer"])
    assert code == 0, output
    assert f"{site.url}en/writer/ answered 200" in boxes["visit"][1]
    assert site.lent() == []


def test_a_text_that_must_be_there(site: Site, tmp_path: Path) -> None:
    site.answer = works
    code, boxes, _ = go(site, tmp_path, ["visit"], checklist_expect_text="Manuscript")
    assert code != 0
    assert "the page does not say Manuscript" in boxes["visit"][1]
    assert site.lent() == []
    code, boxes, output = go(site, tmp_path, ["visit"], checklist_expect_text="You write as")
    assert code == 0, output


# -- check mode and addresses ------------------------------------------------------------------------------------------


def test_check_mode_judges_what_it_can_and_is_content(site: Site, tmp_path: Path) -> None:
    site.answer = works
    chosen = ["build", "reset", "restart", *LOOKS]
    code, boxes, output = go(site, tmp_path, chosen, "--check")
    assert code == 0, output
    judged = {name for name, seen in boxes.items() if seen[0] == "passed"}
    assert judged == {"database", "directories", "workspaces"}
    assert {seen[0] for name, seen in boxes.items() if name not in judged} == {"not judged"}
    assert all(evidence for _, evidence in boxes.values())
    assert (site.lent(), site.asked) == ([], [])


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"deploy_verify_url": "{url}healthz?deep=1"}, "/writer/"),
        ({"deploy_verify_url": "{url}healthz", "checklist_url": "{url}mysite/"}, "/mysite/writer/"),
    ],
)
def test_where_the_playbook_asks(site: Site, tmp_path: Path, given: dict[str, str], asked: str) -> None:
    site.answer = works
    every = variables(site, ["visit"])
    del every["checklist_url"]
    hosts = {
        **every,
        **{name: value.format(url=site.url) for name, value in given.items()},
        "ansible_connection": "local",
        "deploy_dest": str(tmp_path),
    }
    inventory = {"deploy": {"hosts": {"localhost": None}, "vars": hosts}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
    text = json.dumps([{"import_playbook": "shipshape.deploy.checklist"}])
    played = play_text(tmp_path / "play", text, options=["-i", str(tmp_path / "inventory.yml")])
    assert read(played)["visit"][0] == "passed", played.output
    assert set(site.asked) == {asked}
