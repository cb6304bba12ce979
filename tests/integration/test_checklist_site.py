# SPDX-License-Identifier: GPL-3.0-or-later
"""The boxes about the pages, on a site that does as it likes: who gets in, who does not, which slots are given back."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.playbook import play_text
from tests.support.pools import now
from tests.support.sites import LOOKS, Site, go, read, results, variables, works


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
