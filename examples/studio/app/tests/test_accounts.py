# SPDX-License-Identifier: GPL-3.0-or-later
"""What was written stays its writer's: after a killed transfer, and when somebody logs in."""

from __future__ import annotations

import errno
import os
from unittest import mock

from django.contrib.auth.models import User
from django.db import OperationalError
from django.http import HttpResponse

from studio.apps.visitors import handover, leases, slots, transfers
from studio.apps.visitors.models import Project

from .visitors import FORM, KilledError, Written


class KilledBeforeTheCommit(Written):
    """What is on disk then: the work in the account's directory, a mark beside it, and no such account."""

    def setUp(self) -> None:
        super().setUp()
        self.mine = self.bytes_of("visitor-001")
        lease = leases.held(self.browser.session)
        with self.killed("studio.apps.visitors.transfers.os.rename", 1, "after"), self.assertRaises(KilledError):
            handover.sign_up("alice", "x", lease)
        assert self.bytes_of("alice") == self.mine

    def test_the_page_itself_has_the_work_again(self) -> None:
        self.assertContains(self.browser.get("/writer/"), "my life&#x27;s work")
        assert self.bytes_of("visitor-001") == self.mine
        assert self.sign_up() == 302
        assert self.bytes_of("alice") == self.mine

    def test_a_save_says_that_it_was_not_done(self) -> None:
        response = self.browser.post("/writer/save", {"section:abstract": "and more"})
        self.assertContains(response, "and more", status_code=503)

    def test_a_mark_is_a_finding_until_it_is_settled(self) -> None:
        well, said = self.run_command("check_visitor_pool_health")
        assert (well, "transfer of its project to alice" in said) == (False, True)
        well, said = self.run_command("check_visitor_pool_health", "--fix")
        assert well, said

    def test_a_slot_is_not_cleaned_while_its_work_cannot_be_put_back(self) -> None:
        self.expire(1)
        with mock.patch.object(transfers, "_undo", side_effect=OSError("stuck")):
            assert not self.run_command("reset_visitor_pool", "--visitor", "1")[0]
            assert self.row(1).state == "quarantined"
        assert self.bytes_of("alice") == self.mine

    def test_an_empty_project_made_meanwhile_gives_way(self) -> None:
        slots.disk.mend("visitor-001")
        self.seed()
        assert self.bytes_of("visitor-001") == self.mine
        assert not (self.root / "alice").exists()
        assert not (self.root / ".visitor-pool").exists()

    def test_what_was_written_meanwhile_is_kept_beside_the_work(self) -> None:
        slots.disk.mend("visitor-001")
        assert self.save(self.browser, "written meanwhile") == 302
        self.seed()
        assert self.abstract("visitor-001") == "my life's work"
        assert self.sign_up() == 302
        kept = (self.root / "alice/default-project").glob("recovered-*/scitex/writer/sections/manuscript/abstract.tex")
        assert [path.read_text() for path in kept] == ["written meanwhile"]

    def test_an_account_made_by_an_operator_does_not_make_the_work_its_own(self) -> None:
        User.objects.create_user("alice", password=FORM["password"])
        other = self.client_class()
        other.post("/writer/login", FORM)
        self.assertNotContains(other.get("/writer/"), "my life")
        assert self.bytes_of("visitor-001") == self.mine


class LogIn(Written):
    def setUp(self) -> None:
        super().setUp()
        self.account = User.objects.create_user(**FORM)

    def log_in(self, **more: str) -> HttpResponse:
        return self.browser.post("/writer/login", {**FORM, **more}, follow=True)

    def test_an_account_without_a_project_gets_the_visitors(self) -> None:
        before = self.bytes_of("visitor-001")
        self.assertContains(self.log_in(), "my life&#x27;s work")
        assert self.bytes_of("alice") == before
        assert self.row(1).state == "free"
        assert self.whole(1)

    def test_with_a_project_of_its_own_it_is_asked_first(self) -> None:
        Project.objects.create(owner=self.account, slug="default-project", name="thesis")
        before = self.snapshot()
        self.assertContains(self.log_in(), "would be deleted", status_code=409)
        assert self.snapshot() == before
        assert self.save(self.browser, "still mine") == 302
        assert self.log_in(give_up="on").status_code == 200
        assert self.row(1).state == "free"
        assert "still" not in self.abstract("visitor-001")
        self.assertContains(self.browser.get("/writer/"), "<b>alice</b>")

    def test_a_full_disk_or_a_project_made_meanwhile_is_no_500(self) -> None:
        before, mend = self.bytes_of("visitor-001"), slots.disk.mend
        with mock.patch.object(os, "mkdir", side_effect=OSError(errno.ENOSPC, "full")):
            assert self.log_in().status_code == 503

        def meanwhile(name: str) -> None:
            Project.objects.create(owner=self.account, slug="default-project", name="thesis")
            mend(name)

        with mock.patch.object(slots.disk, "mend", meanwhile):
            self.assertContains(self.log_in(), "would be deleted", status_code=409)
        assert self.bytes_of("visitor-001") == before
        assert self.save(self.browser, "still mine") == 302

    def test_the_form_sent_twice_does_not_say_that_the_work_is_gone(self) -> None:
        with mock.patch("django.contrib.auth.views.auth_login", side_effect=OperationalError("lost")):
            assert self.log_in().status_code == 503
        response = self.log_in()
        self.assertContains(response, "now your account&#x27;s project")
        self.assertNotContains(response, "no longer there")

    def test_what_the_next_visitor_of_the_slot_is_called_is_not_told(self) -> None:
        self.expire(1)
        self.run_command("reset_visitor_pool", "--expired")
        other, number = self.visit()
        assert number == 1
        assert other.post("/writer/signup", {**FORM, "username": "bob"}).status_code == 302
        response = self.browser.get("/writer/signup")
        self.assertContains(response, "no longer there")
        self.assertNotContains(response, "bob")

    def test_a_wrong_password_tells_nothing_and_takes_nothing(self) -> None:
        before = self.snapshot()
        self.assertNotContains(self.log_in(password="wrong"), "project already")
        assert self.snapshot() == before
        assert self.row(1).state == "leased"

    def test_who_has_written_nothing_is_not_asked(self) -> None:
        Project.objects.create(owner=self.account, slug="default-project", name="thesis")
        self.browser, number = self.visit()
        assert number == 2
        assert self.log_in().status_code == 200
        assert self.row(2).state == "free"

    def test_a_name_with_a_dot_and_capitals_has_a_workspace(self) -> None:
        User.objects.create_superuser("First.Last", password=FORM["password"])
        browser = self.client_class()
        browser.post("/writer/login", {**FORM, "username": "First.Last"})
        self.assertContains(browser.get("/writer/"), "Create Writer Workspace")
        browser.post("/writer/workspace")
        assert self.save(browser, "mine") == 302
        assert self.abstract("First.Last") == "mine"


class CleanSlot(Written):
    def test_the_former_visitors_name_and_description_go_too(self) -> None:
        Project.objects.filter(pk=self.project).update(name="My disease", description="private")
        self.run_command("reset_visitor_pool")
        project = Project.objects.get(owner__username="visitor-001")
        assert (project.name, project.description) == ("default-project", "")
