# SPDX-License-Identifier: GPL-3.0-or-later
"""The example as visitors see it: a real browser opens the writer, types, saves, comes back and signs up. What it shows
is compared with what is on the disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.browsers import Browser, Page, browser
from tests.support.engine import Engine
from tests.support.studios import STUDIO, Studio, deployed

SECTIONS = ["Abstract", "Discussion", "Introduction", "Methods", "Results"]
TEMPLATE = STUDIO / "app/studio/apps/visitors/workspace/sections/manuscript"
TEXT = 'Knots & ropes: <b>naïve</b> "quotes", it\'s 5 % $x$ …\n\n  Second line.'
LABELS = "[...document.querySelectorAll('label')].filter(at => at.checkVisibility()).map(at => at.innerText)"
PLACE = "/data/users/{}/default-project/scitex/writer/sections/manuscript/{}.tex"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with deployed(tmp_path_factory.mktemp("studio")) as stack:
        yield stack


@pytest.fixture(scope="module")
def chromium(engine: Engine) -> Iterator[Browser]:
    with browser(engine) as found:
        yield found


def original(section: str) -> str:
    return (TEMPLATE / f"{section.lower()}.tex").read_text(encoding="utf-8")


def on_disk(studio: Studio, owner: str, section: str) -> str:
    """A section's file as it is; read as text, a carriage return would be hidden."""
    done = subprocess.run(
        ["docker", "exec", f"{studio.name}-web-1", "cat", PLACE.format(owner, section.lower())],
        env=studio.engine.environment,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode("utf-8")


def sql(studio: Studio, statement: str) -> str:
    words = ["exec", "-T", "db", "psql", "-U", "studio", "-d", "studio", "-tAc", statement]
    return studio.compose(*words).stdout.strip()


def comes(chromium: Browser, studio: Studio) -> Page:
    """Somebody whom nobody has seen before, at the writer."""
    page = chromium.page()
    page.visit(f"{studio.url}/writer/")
    return page


def owner(page: Page) -> str:
    """Whose workspace the page says that it is."""
    return str(page.evaluate("document.querySelector('.lead b').innerText"))


def is_well(page: Page, studio: Studio) -> None:
    """A page to write on, of which nothing went wrong and nothing came from anywhere else."""
    assert page.names("heading") == ["Manuscript"]
    assert page.names("textbox") == SECTIONS
    assert "Save" in page.names("button")
    for phrase in ("High Traffic", "Create Writer Workspace", "has ended"):
        assert phrase not in page.text
    assert "Create Writer Workspace" not in page.names("button")
    assert page.troubles == []
    assert {request.removeprefix(studio.url)[:1] for request in page.requests} == {"/"}


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_the_page_shows_labelled_sections_and_nothing_goes_wrong(
    studio: Studio, chromium: Browser, width: int, height: int
) -> None:
    page = chromium.page()
    page.resize(width, height)
    page.visit(f"{studio.url}/writer/")
    is_well(page, studio)
    assert {section: page.value(section) for section in SECTIONS} == {at: original(at) for at in SECTIONS}
    assert any(request.endswith(".css") for request in page.requests)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it has to be scrolled sideways"
    assert page.evaluate(LABELS) == SECTIONS
    assert all(page.is_seen("textbox", section) for section in SECTIONS)
    me = owner(page)
    project = sql(
        studio,
        f"SELECT p.id FROM project_app_project p JOIN auth_user u ON u.id = p.owner_id WHERE u.username = '{me}'",
    )
    assert page.console[:3] == [
        f"[VisitorPool] ✓ Allocated: {me}",
        f"[VisitorPool] Project ID: {project}",
        "[VisitorPool] Project: default-project",
    ]


def test_what_is_typed_and_saved_is_there_again_and_nobody_else_sees_it(studio: Studio, chromium: Browser) -> None:
    page = comes(chromium, studio)
    me = owner(page)
    page.write("Methods", TEXT)
    assert on_disk(studio, me, "Methods") == original("Methods")
    page.follow("button", "Save")
    assert "Saved." in page.text
    page.reload()
    is_well(page, studio)
    assert "Saved." not in page.text
    assert owner(page) == me
    for section in SECTIONS:
        expected = original(section) + (TEXT if section == "Methods" else "")
        assert page.value(section) == expected
        assert on_disk(studio, me, section) == expected

    other = comes(chromium, studio)
    is_well(other, studio)
    assert owner(other) != me
    assert other.value("Methods") == original("Methods")
    other.write("Methods", "Mine.")
    other.follow("button", "Save")
    page.reload()
    assert page.value("Methods") == original("Methods") + TEXT
    assert page.troubles == other.troubles == []


def test_who_signs_up_keeps_the_text_and_the_next_visitor_finds_a_clean_slot(studio: Studio, chromium: Browser) -> None:
    page = comes(chromium, studio)
    slot = owner(page)
    page.write("Abstract", TEXT)
    page.follow("button", "Save")
    page.follow("link", "Sign up")
    assert f"What you have written as {slot} becomes your account" in page.text
    page.write("Username", "ada")
    page.write("Password", "a ship's rope of 5 knots")
    page.follow("button", "Sign up")
    assert page.url == f"{studio.url}/writer/"
    assert "Welcome, ada" in page.text
    page.reload()
    is_well(page, studio)
    assert owner(page) == "ada"
    assert page.value("Abstract") == on_disk(studio, "ada", "Abstract") == original("Abstract") + TEXT

    # Whoever comes gets the lowest slot that is free, so it is the one that was left.
    following = comes(chromium, studio)
    is_well(following, studio)
    assert owner(following) == slot
    assert {section: following.value(section) for section in SECTIONS} == {at: original(at) for at in SECTIONS}
    following.write("Abstract", "The next one's.")
    following.follow("button", "Save")
    page.reload()
    assert page.value("Abstract") == original("Abstract") + TEXT

    page.follow("button", "Log out")
    page.visit(f"{studio.url}/writer/login")
    page.write("Username", "ada")
    page.write("Password", "a ship's rope of 5 knots")
    page.follow("button", "Log in")
    is_well(page, studio)
    assert page.value("Abstract") == original("Abstract") + TEXT


def test_what_was_typed_when_the_visit_ends_is_shown_and_what_goes_wrong_is_seen(
    studio: Studio, chromium: Browser
) -> None:
    """A page with a bad status is no quiet page: what the other tests look for can be found."""
    page = comes(chromium, studio)
    page.write("Results", TEXT)
    later = "now() + interval '1 hour'"
    sql(studio, f"UPDATE project_app_visitorallocation SET is_active = true, session_key = 'x', expires_at = {later}")
    try:
        page.follow("button", "Save")
        assert page.names("heading") == ["Your visit has ended", "What you were about to save"]
        assert page.value("Results") == original("Results") + TEXT
        assert f"403 {studio.url}/writer/save" in page.troubles
        refused = comes(chromium, studio)
        assert refused.names("heading") == ["High Traffic"]
        assert f"503 {studio.url}/writer/" in refused.troubles
        refused.evaluate("console.error('said'); setTimeout(() => { throw new Error('thrown') }); fetch('/nowhere')")
        refused.evaluate("fetch('http://localhost:9/').catch(() => null)")
        for trouble in ("console.error: said", "thrown", f"404 {studio.url}/nowhere", "Content Security Policy"):
            refused.wait_for(trouble)
    finally:
        studio.compose("exec", "-T", "web", "python", "manage.py", "reset_visitor_pool", "--force")
