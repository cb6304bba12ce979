# SPDX-License-Identifier: GPL-3.0-or-later
"""Visiting, writing, coming back, and what happens when nobody can be let in."""

from __future__ import annotations

import hashlib
import hmac
import re
import shutil
from datetime import timedelta
from unittest import mock

from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.utils import timezone

from studio.apps.visitors import leases, sections, slots
from studio.apps.visitors.models import Project, VisitorAllocation

from .visitors import ABSTRACT, FORM, PoolCase


class Visit(PoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.seed()

    def test_each_session_gets_the_lowest_free_slot_and_keeps_it(self) -> None:
        first, one = self.visit()
        second, two = self.visit()
        assert (one, two) == (1, 2)
        assert (self.visit(first)[1], self.visit(second)[1]) == (1, 2)
        assert VisitorAllocation.objects.filter(is_active=True).count() == 2

    def test_the_session_has_exactly_three_keys_and_the_table_no_token(self) -> None:
        client, number = self.visit()
        keys = {key for key in client.session.keys() if not key.startswith("_")}  # noqa: SIM118 a session is no dict
        assert keys == {"visitor_project_id", "visitor_user_id", "visitor_allocation_token"}
        token, row = client.session["visitor_allocation_token"], self.row(number)
        assert len(token) == 64
        assert int(token, 16)
        assert row.allocation_token == hashlib.sha256(token.encode()).hexdigest()
        assert row.session_key == client.session.session_key
        owner = Project.objects.get(pk=client.session["visitor_project_id"]).owner
        assert (owner.pk, owner.username) == (client.session["visitor_user_id"], "visitor-001")

    def test_a_lease_ends_when_the_settings_say(self) -> None:
        for hours in (1, 24):
            with override_settings(VISITOR_LIFETIME=timedelta(hours=hours)):
                row = self.row(self.visit()[1])
                assert row.expires_at - row.allocated_at == timedelta(hours=hours)

    def test_the_log_says_who_came_and_no_token(self) -> None:
        with self.assertLogs("studio.apps.visitors", "INFO") as seen:
            client, _ = self.visit()
        project = client.session["visitor_project_id"]
        assert [record.getMessage() for record in seen.records] == [
            "[VisitorPool] ✓ Allocated: visitor-001",
            f"[VisitorPool] Project ID: {project}",
            "[VisitorPool] Project: default-project",
        ]

    def test_a_second_request_of_the_same_session_is_lent_no_second_slot(self) -> None:
        client, number = self.visit()
        stale = client.session
        leases.forget(stale)  # what a request knows that came before the first was answered
        from studio.apps.visitors.visits import lease_for

        assert lease_for(stale).number == number
        assert VisitorAllocation.objects.filter(is_active=True).count() == 1

    def test_a_token_opens_only_its_own_slot_to_its_own_session(self) -> None:
        client, number = self.visit()
        other, _ = self.visit()
        good = dict(client.session.items())
        theirs = dict(other.session.items())
        forged = {
            "forged": {"visitor_allocation_token": "0" * 64},
            "truncated": {"visitor_allocation_token": good["visitor_allocation_token"][:-1]},
            "the hash itself": {"visitor_allocation_token": self.row(number).allocation_token},
            "no text": {"visitor_allocation_token": 7},
            "another's slot": {key: theirs[key] for key in ("visitor_user_id", "visitor_project_id")},
            "another's token": {"visitor_allocation_token": theirs["visitor_allocation_token"]},
            "another's everything": theirs,
            "a user of another": {"visitor_user_id": theirs["visitor_user_id"]},
            "a project of another": {"visitor_project_id": theirs["visitor_project_id"]},
        }
        before = self.snapshot()
        for what, values in forged.items():
            with self.subTest(what):
                session = client.session
                session.update({**good, **values})
                session.save()
                assert self.save(client, "stolen") == 403
        assert self.snapshot() == before
        self.row(number)
        VisitorAllocation.objects.filter(visitor_number=number).update(session_key="another")
        session = client.session
        session.update(good)
        session.save()
        with mock.patch.object(leases.hmac, "compare_digest", side_effect=hmac.compare_digest) as compare:
            assert self.save(client, "stolen") == 403
        compare.assert_called_once()  # in constant time, also when there is no row to compare with

    def test_a_lease_holds_until_its_end_and_not_a_moment_longer(self) -> None:
        client, number = self.visit()
        row = VisitorAllocation.objects.filter(visitor_number=number)
        row.update(is_active=False)  # somebody has freed it, and has not cleared it yet
        assert self.save(client, "no longer mine") == 403
        row.update(is_active=True)
        self.expire(number, -1)
        assert self.save(client, "in time") == 302
        self.expire(number)
        response = client.post("/writer/save", {"section:abstract": "too late"})
        self.assertContains(response, "too late", status_code=403)
        assert self.abstract("visitor-001") == "in time"
        end = timezone.now()
        row.update(expires_at=end)
        with mock.patch("studio.apps.visitors.models.timezone.now", return_value=end):
            assert self.row(number).state == "leased"
            assert not row.filter(slots.expired()).exists()
            assert self.save(client, "at the last moment") == 302

    def test_without_free_slots_the_page_says_so_and_nothing_changes(self) -> None:
        for _ in range(self.size):
            self.visit()
        before = list(VisitorAllocation.objects.order_by("id").values())
        with self.assertLogs("studio.apps.visitors", "WARNING") as seen:
            response = self.client.get("/writer/")
        self.assertContains(response, "High Traffic", status_code=503)
        assert 60 <= int(response.headers["Retry-After"]) <= 3600
        assert "saturated" in seen.output[0]
        assert list(VisitorAllocation.objects.order_by("id").values()) == before

    def test_quarantined_and_unprovisioned_are_other_causes(self) -> None:
        VisitorAllocation.objects.update(is_active=True, session_key="shipshape:quarantined")
        with self.assertLogs("studio.apps.visitors", "WARNING") as seen:
            assert self.client.get("/writer/").status_code == 503
        assert "quarantined" in seen.output[0]
        User.objects.filter(username__startswith="visitor-").delete()
        VisitorAllocation.objects.update(session_key="nobody's", expires_at=timezone.now() + timedelta(hours=1))
        with self.assertLogs("studio.apps.visitors", "WARNING") as seen:
            assert self.client.get("/writer/").status_code == 503
        assert "unprovisioned" in seen.output[0]

    def test_an_expired_slot_is_lent_again_clean_and_only_strictly_after_its_end(self) -> None:
        clients = [self.visit()[0] for _ in range(self.size)]
        assert self.save(clients[2], "private") == 302
        (self.root / "visitor-003" / "left.txt").write_text("private")
        self.expire(3)
        _, number = self.visit()
        assert number == 3
        assert self.whole(3)
        assert "private" not in self.abstract("visitor-003")
        assert not (self.root / "visitor-003" / "left.txt").exists()
        assert not (self.root / ".visitor-pool").exists()
        assert self.save(clients[2], "again") == 403
        _, number = self.visit(clients[3])
        assert number == 4

    def test_who_comes_back_too_late_is_told_and_gets_a_fresh_workspace(self) -> None:
        client, number = self.visit()
        self.expire(number)
        response = client.get("/writer/")
        self.assertContains(response, "Your earlier visit has ended")
        assert self.number(client) == 2

    def test_a_free_slot_whose_directory_has_gone_is_made_whole_before_it_is_lent(self) -> None:
        (self.root / "visitor-001").rename(self.root / "elsewhere")
        _, number = self.visit()
        assert number == 1
        assert self.whole(1)


class Writing(PoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.seed()
        self.browser, _ = self.visit()

    def form(self, browser: Client, **texts: str) -> dict[str, str]:
        """What the writer's form sends: its hidden fields as they are, and a text for each section."""
        page = browser.get("/writer/").content.decode().partition('action="/writer/save"')[2]
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', page))
        return {**hidden, **{f"section:{name}": text for name, text in texts.items()}}

    def test_an_old_tab_saves_into_no_other_workspace(self) -> None:
        old = self.form(self.browser, abstract="the old tab's")
        assert self.browser.post("/writer/save", old).status_code == 302
        self.expire(1)
        self.browser.get("/writer/")
        assert self.save(self.browser, "the new tab's") == 302
        self.assertContains(self.browser.post("/writer/save", old), "the old tab&#x27;s", status_code=403)
        assert self.abstract("visitor-002") == "the new tab's"

    def test_an_old_tab_saves_nothing_in_the_next_visit_to_the_same_slot(self) -> None:
        old = self.form(self.browser, abstract="the old tab's")
        self.expire(1)
        self.run_command("reset_visitor_pool", "--expired")
        assert self.visit(self.browser)[1] == 1
        assert self.save(self.browser, "the new tab's") == 302
        self.assertContains(self.browser.post("/writer/save", old), "the old tab&#x27;s", status_code=403)
        assert self.abstract("visitor-001") == "the new tab's"

    def test_an_accounts_tab_saves_nothing_after_the_log_out(self) -> None:
        self.browser.post("/writer/signup", FORM)
        alices = self.form(self.browser, abstract="alice's chapter")
        assert self.browser.post("/writer/save", alices).status_code == 302
        self.browser.post("/writer/logout")
        before = self.snapshot()
        self.visit(self.browser)
        self.assertContains(self.browser.post("/writer/save", alices), "alice&#x27;s chapter", status_code=403)
        assert self.snapshot() == before

    def test_a_tab_from_before_the_sign_up_goes_on_in_the_same_project(self) -> None:
        form = self.form(self.browser, abstract="mine")
        self.browser.post("/writer/signup", FORM)
        assert self.browser.post("/writer/save", form).status_code == 302
        assert self.abstract("alice") == "mine"

    def test_what_is_refused_is_given_back(self) -> None:
        before = self.snapshot()
        for name, text in (("../abstract", "precious"), ("unknown", "precious"), ("abstract", "precious" * 30_000)):
            response = self.browser.post("/writer/save", {f"section:{name}": text})
            self.assertContains(response, "precious", status_code=400)
        self.assertContains(self.browser.post("/writer/save"), "Nothing could be saved", status_code=400)
        assert self.snapshot() == before

    def test_a_token_from_before_a_log_in_loses_no_text(self) -> None:
        browser = self.client_class(enforce_csrf_checks=True)
        form = self.form(browser, abstract="precious")
        token = {"csrfmiddlewaretoken": form["csrfmiddlewaretoken"]}
        assert browser.post("/writer/signup", {**FORM, **token}).status_code == 302
        response = browser.post("/writer/save", form)
        self.assertContains(response, "precious", status_code=403)
        self.assertContains(response, "Nothing could be saved", status_code=403)
        assert "precious" not in self.abstract("alice")
        self.assertContains(browser.post("/writer/logout", token), "Forbidden", status_code=403)

    def test_a_section_that_cannot_be_read_is_an_error_and_not_an_empty_page(self) -> None:
        methods = self.root / "visitor-001" / ABSTRACT.replace("abstract", "methods")
        methods.unlink()
        methods.mkdir()
        response = self.browser.get("/writer/")
        self.assertNotContains(response, "no section", status_code=503)
        assert self.client_class().get("/writer/").status_code == 200
        shutil.rmtree(methods.parent)
        response = self.browser.get("/writer/")
        self.assertContains(response, "This workspace has no section")
        self.assertNotContains(response, "Save")

    def test_what_is_saved_is_on_disk_and_on_the_page_and_nowhere_else(self) -> None:
        before = self.snapshot("visitor-002", "visitor-003", "visitor-004")
        assert self.save(self.browser, "Ünlike <b>\r\n& others\r\n") == 302
        assert self.abstract("visitor-001") == "Ünlike <b>\n& others\n"
        self.assertContains(self.browser.get("/writer/"), "Ünlike &lt;b&gt;")
        assert self.snapshot("visitor-002", "visitor-003", "visitor-004") == before

    def test_the_page_has_every_section_with_a_label_and_no_button_to_create(self) -> None:
        page = self.browser.get("/writer/").content.decode()
        for name in ("abstract", "introduction", "methods", "results", "discussion"):
            assert f'for="section-{name}"' in page
            assert f'id="section-{name}"' in page
        assert "Create Writer Workspace" not in page
        assert "High Traffic" not in page

    def test_names_lead_nowhere(self) -> None:
        before = self.snapshot()
        names = ("../abstract", "..", "/etc/passwd", "a/b", "abstract.tex", "", "x" * 61, "A", "unknown", "a\x00b")
        for name in names:
            with self.subTest(name):
                assert self.save(self.browser, "bad", name) == 400
        assert self.save(self.browser, "x" * 200_001) == 400
        assert self.snapshot() == before

    def test_a_symlink_is_not_written_through(self) -> None:
        outside = self.root / "visitor-002" / ABSTRACT
        before = outside.read_text()
        place = self.root / "visitor-001" / ABSTRACT
        place.unlink()
        place.symlink_to(outside)
        self.browser.raise_request_exception = False
        self.save(self.browser, "through")
        assert outside.read_text() == before
        folder = place.parent
        folder.rename(folder.with_name("old"))
        folder.symlink_to(outside.parent)
        self.save(self.browser, "through")
        assert outside.read_text() == before

    def test_a_slot_cleaned_while_a_save_is_under_way_keeps_nothing_of_it(self) -> None:
        """The directory is open and the lease was good: then it ends, and the next visitor is there."""
        write = sections.write

        def late(*arguments: object) -> None:
            self.expire(1)
            self.run_command("reset_visitor_pool", "--expired")
            write(*arguments)

        with mock.patch.object(sections, "write", late):
            response = self.browser.post("/writer/save", {"section:abstract": "mine alone"})
        assert response.status_code == 403
        _, number = self.visit()
        assert number == 1
        assert "mine alone" not in self.abstract("visitor-001")

    def test_between_the_look_at_the_lease_and_the_files_the_next_visitor_may_have_come(self) -> None:
        real, come = sections.opened, []

        def late(owner: str) -> object:
            if not come:
                come.append(True)
                self.expire(1)
                self.run_command("reset_visitor_pool", "--expired")
                come.append(self.visit()[0])
                assert self.save(come[1], "the next visitor's") == 302
            return real(owner)

        for request in (
            lambda: self.browser.post("/writer/save", {"section:abstract": "mine"}),
            lambda: self.browser.get("/writer/"),
        ):
            with mock.patch.object(sections, "opened", late):
                response = request()
            self.assertNotContains(response, "the next visitor", status_code=403)
            assert self.abstract("visitor-001") == "the next visitor's"
            self.run_command("reset_visitor_pool")
            come.clear()
            self.browser = self.visit()[0]

    def test_without_its_marker_a_workspace_is_created_on_demand(self) -> None:
        marker = self.root / "visitor-001/default-project/scitex/writer/01_manuscript"
        assert self.save(self.browser, "kept") == 302
        for file in marker.iterdir():
            file.unlink()
        self.assertContains(self.browser.get("/writer/"), "Create Writer Workspace")
        marker.rmdir()
        self.assertContains(self.browser.get("/writer/"), "Create Writer Workspace")
        self.assertRedirects(self.browser.post("/writer/workspace"), "/writer/")
        self.assertNotContains(self.browser.get("/writer/"), "Create Writer Workspace")
        assert self.whole(1)
        assert self.abstract("visitor-001") == "kept"
