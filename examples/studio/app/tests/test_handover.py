# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing up: the project moves, byte for byte, and nothing is lost wherever it is killed."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from unittest import mock

from django.contrib.auth.models import User
from django.db import DatabaseError, InterfaceError, OperationalError

from studio.apps.visitors import accounts, disk, handover, leases, slots, transfers
from studio.apps.visitors.models import Project, VisitorAllocation

from .visitors import ABSTRACT, FORM, KilledError, Written


class SignUp(Written):
    def test_the_project_becomes_the_accounts_and_the_slot_is_new(self) -> None:
        (self.root / "visitor-001" / ABSTRACT).chmod(0o640)
        before = self.bytes_of("visitor-001")
        assert self.sign_up() == 302
        assert self.bytes_of("alice") == before
        assert Project.objects.get(pk=self.project).owner.username == "alice"
        assert sorted(os.listdir(self.root / "alice")) == ["default-project"]
        assert not any(key in self.browser.session for key in leases.SESSION_KEYS)
        assert self.row(1).state == "free"
        assert self.whole(1)
        assert Project.objects.get(owner__username="visitor-001").pk != self.project
        _, number = self.visit()
        assert number == 1
        assert "life" not in self.abstract("visitor-001")
        self.assertContains(self.browser.get("/writer/"), "my life&#x27;s work")
        assert self.save(self.browser, "and more") == 302
        assert self.abstract("alice") == "and more"

    def test_the_account_can_log_in_again(self) -> None:
        self.sign_up()
        self.browser.post("/writer/logout")
        assert self.browser.post("/writer/login", FORM).status_code == 302
        self.assertContains(self.browser.get("/writer/"), "my life&#x27;s work")

    def test_what_lies_there_already_is_never_overwritten(self) -> None:
        theirs = self.root / "alice/default-project"
        theirs.mkdir(parents=True)
        (theirs / "thesis.tex").write_text("somebody's")
        before = self.snapshot()
        assert self.sign_up() == 422
        assert self.snapshot() == before
        assert not User.objects.filter(username="alice").exists()
        assert self.save(self.browser, "still mine") == 302

    def test_a_file_or_what_nobody_may_look_into_is_somebodys_too(self) -> None:
        (self.root / "alice").write_text("a file")
        assert self.sign_up() == 422
        assert self.client_class().post("/writer/signup", FORM).status_code == 422
        (self.root / "alice").unlink()
        elsewhere = self.enterContext(tempfile.TemporaryDirectory())
        (self.root / "alice").symlink_to(elsewhere)  # an empty directory, and not ours
        assert self.sign_up() == 422
        assert os.listdir(elsewhere) == []
        (self.root / "alice").unlink()
        for function in ("listdir", "chmod"):
            (self.root / "alice").mkdir(exist_ok=True)
            real = getattr(os, function)

            def refused(path: object, *rest: object, real: Callable[..., object] = real, **more: object) -> object:
                if str(path).endswith("/alice"):
                    raise PermissionError(errno.EACCES, "Permission denied")
                return real(path, *rest, **more)

            with self.subTest(function), mock.patch.object(os, function, refused):
                assert self.sign_up() == 422
        assert self.save(self.browser, "still mine") == 302

    def test_an_empty_directory_is_nobodys(self) -> None:
        for browser in (self.browser, self.client_class()):
            User.objects.filter(username="alice").delete()
            shutil.rmtree(self.root / "alice", ignore_errors=True)
            (self.root / "alice").mkdir()
            assert browser.post("/writer/signup", FORM).status_code == 302
            self.assertContains(browser.get("/writer/"), "Abstract")

    def test_a_full_disk_is_no_500_and_leaves_no_account_without_a_page(self) -> None:
        with mock.patch.object(os, "mkdir", side_effect=OSError(errno.ENOSPC, "full")):
            assert self.sign_up() == 503
        assert not User.objects.exclude(username__startswith="visitor-").exists()
        assert self.save(self.browser, "still mine") == 302
        browser = self.client_class()
        with mock.patch.object(disk, "build", side_effect=OSError(errno.ENOSPC, "full")):
            assert browser.post("/writer/signup", FORM).status_code == 302
        self.assertContains(browser.get("/writer/"), "Create Writer Workspace")
        browser.post("/writer/workspace")
        self.assertContains(browser.get("/writer/"), "Abstract")

    def test_names_that_are_taken_reserved_or_lead_elsewhere_are_refused(self) -> None:
        User.objects.create_user("bob", password="x")
        User.objects.create_superuser("root", password="x")
        before = self.snapshot()
        for name in (
            "bob",
            "root",
            "visitor-002",
            "visitor-999",
            "..",
            ".visitor-pool",
            "a/b",
            "Alice",
            "a b",
            "",
            "é",
        ):
            with self.subTest(name):
                response = self.browser.post("/writer/signup", {**FORM, "username": name})
                assert response.status_code == 422
        assert self.snapshot() == before

    def test_a_lease_that_has_ended_is_handed_over_as_long_as_the_work_is_there(self) -> None:
        before = self.bytes_of("visitor-001")
        self.expire(1)
        self.assertContains(self.browser.get("/writer/signup"), "becomes your account")
        response = self.browser.post("/writer/signup", FORM, follow=True)
        self.assertContains(response, "What you have written is yours")
        assert self.bytes_of("alice") == before
        assert self.whole(1)

    def test_when_the_work_is_gone_that_is_said_before_there_is_an_account(self) -> None:
        lease = leases.held(self.browser.session)
        self.expire(1)
        self.run_command("reset_visitor_pool", "--expired")
        before = self.snapshot()
        with self.assertRaises(handover.EndedError):
            handover.sign_up("alice", "x", lease)
        response = self.browser.post("/writer/signup", FORM)
        self.assertContains(response, "no longer there", status_code=422)
        assert self.snapshot() == before
        assert not User.objects.filter(username="alice").exists()
        response = self.browser.post("/writer/signup", FORM, follow=True)
        self.assertNotContains(response, "What you have written is yours")
        assert User.objects.filter(username="alice").exists()

    def test_the_end_of_a_visit_is_said_on_the_page_that_asks_for_a_name(self) -> None:
        self.run_command("reset_visitor_pool")
        self.assertContains(self.browser.get("/writer/signup"), "no longer there")
        assert self.sign_up() == 302

    def test_who_has_no_lease_gets_a_workspace_of_their_own(self) -> None:
        browser = self.client_class()
        assert browser.post("/writer/signup", FORM).status_code == 302
        self.assertContains(browser.get("/writer/"), "Abstract")
        assert (self.root / "alice" / ABSTRACT).is_file()
        assert self.abstract("visitor-001") == "my life's work"

    def test_killed_at_any_step_one_more_try_heals_and_no_byte_is_lost(self) -> None:
        """Before the commit the visitor has everything back, after it the account has everything. Whether a run of the
        pool comes first, or the visitor with the page's own button."""
        for button, (step, call, when, committed) in itertools.product(
            (False, True),
            (
                ("disk.own", 1, "before", False),  # the account's directory is there
                ("transfers.os.rename", 1, "before", False),  # and the mark
                ("transfers.os.rename", 1, "after", False),  # and the project, but not yet the commit
                ("transfers.settle", 2, "before", True),  # committed, and the mark still there
                ("slots.finish", 1, "before", True),
                ("disk.build", 1, "after", True),
                ("disk.put_away", 1, "before", True),
                ("disk.put_away", 1, "after", True),
                ("disk.sweep", 1, "before", True),
                ("leases.free", 1, "before", True),
            ),
        ):
            with self.subTest(step=step, when=when, button=button):
                VisitorAllocation.objects.all().delete()
                User.objects.all().delete()
                self.setUp()
                mine = self.bytes_of("visitor-001")
                lease = leases.held(self.browser.session)
                with self.killed(f"studio.apps.visitors.{step}", call, when), self.assertRaises(KilledError):
                    handover.sign_up("alice", "x", lease)
                assert User.objects.filter(username="alice").exists() == committed
                if button:
                    assert self.browser.post("/writer/workspace").status_code == (403 if committed else 302)
                self.seed()
                owner = "alice" if committed else "visitor-001"
                assert self.bytes_of(owner) == mine
                assert Project.objects.get(pk=self.project).owner.username == owner
                assert self.whole(1)
                assert bool(list(self.root.glob("alice/*"))) == committed
                assert not list(self.root.glob("*/.from-*"))
                assert not (self.root / ".visitor-pool").exists()
                if committed:
                    assert self.row(1).state == "free"
                else:
                    assert self.save(self.browser, "still here") == 302
                    assert self.sign_up() == 302
                    assert self.abstract("alice") == "still here"

    def test_a_commit_that_fails_puts_everything_back(self) -> None:
        before = self.bytes_of("visitor-001")
        move = transfers.move

        def fails(*names: str) -> None:
            move(*names)
            raise DatabaseError("connection lost")

        with mock.patch.object(transfers, "move", fails), self.assertRaises(DatabaseError):
            handover.sign_up("alice", "x", leases.held(self.browser.session))
        assert self.bytes_of("visitor-001") == before
        assert not (self.root / "alice").exists()
        assert self.sign_up() == 302

    def test_what_happens_after_the_commit_takes_nothing_back(self) -> None:
        settle, calls = transfers.settle, []

        def second_fails(slot: str) -> None:
            calls.append(slot)
            if len(calls) == 2:
                raise OSError(errno.EIO, "Input/output error")
            settle(slot)

        for step, fault in (
            ("slots.finish", OperationalError("lost")),
            ("slots.finish", InterfaceError("connection already closed")),
            ("slots.disk.replace", OSError(errno.ENOSPC, "full")),
            ("transfers.settle", second_fails),
        ):
            with self.subTest(step=step, fault=fault):
                User.objects.filter(username="alice").delete()
                shutil.rmtree(self.root / "alice", ignore_errors=True)
                self.setUp()
                with mock.patch(f"studio.apps.visitors.{step}", side_effect=fault):
                    assert self.sign_up() == 302
                self.assertContains(self.browser.get("/writer/"), "my life&#x27;s work")
                self.seed()
                assert self.whole(1)

    def test_an_answer_that_was_lost_is_given_again(self) -> None:
        with mock.patch.object(accounts, "login", side_effect=OperationalError("lost")):
            assert self.sign_up() == 503
        assert self.abstract("alice") == "my life's work"
        self.assertContains(self.browser.get("/writer/signup"), "alice&#x27;s project now")
        response = self.browser.post("/writer/signup", FORM, follow=True)
        self.assertContains(response, "my life&#x27;s work")
        self.assertNotContains(response, "no longer there")

    def test_the_second_of_two_submits_is_let_in_too(self) -> None:
        """Its session has ended with the first's log-in. With another password it is refused, and that is not a 400."""
        sign_up = handover.sign_up
        for password, status in ((FORM["password"], 302), ("another horse battery", 422)):
            with self.subTest(status=status):
                User.objects.filter(username="alice").delete()
                shutil.rmtree(self.root / "alice", ignore_errors=True)
                self.setUp()
                second, first = self.client_class(), []
                second.cookies.load({name: morsel.value for name, morsel in self.browser.cookies.items()})

                def late(*arguments: object, first: list[int] = first) -> object:
                    if not first:
                        first.append(0)
                        first.append(self.sign_up())
                    return sign_up(*arguments)

                with mock.patch.object(handover, "sign_up", late):
                    response = second.post("/writer/signup", {**FORM, "password": password})
                assert (first[1], response.status_code) == (302, status)
                if status == 302:
                    self.assertContains(second.get("/writer/"), "my life&#x27;s work")

    def test_who_has_work_in_a_slot_is_not_logged_in_by_the_form_for_a_new_account(self) -> None:
        User.objects.create_user(**FORM)
        assert self.sign_up() == 422
        assert self.save(self.browser, "still mine") == 302

    def test_a_slot_that_cannot_be_rebuilt_is_kept_back_and_the_account_has_its_work(self) -> None:
        with mock.patch.object(slots.disk, "replace", side_effect=OSError("disk full")):
            assert self.sign_up() == 302
        assert self.abstract("alice") == "my life's work"
        assert self.row(1).state == "quarantined"
        assert self.visit()[1] == 2
        self.seed()
        assert self.row(1).state == "free"
        assert self.whole(1)
