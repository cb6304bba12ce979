# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and databases that fail for a while: nothing is concluded from that, and nobody loses a word."""

from __future__ import annotations

import errno
import os
from typing import Any
from unittest import mock
from urllib.parse import urlencode

from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError, connection
from django.http import HttpResponse
from django.test import TransactionTestCase, override_settings

from studio.apps.core import health
from studio.apps.visitors import disk, leases, pool, sections, slots, visits
from studio.apps.visitors.models import VisitorAllocation

from .visitors import ABSTRACT, FORM, PoolCase, PoolMixin

CURSOR = "django.db.backends.utils.CursorWrapper.execute"


def no(number: int) -> mock.Mock:
    return mock.Mock(side_effect=OSError(number, os.strerror(number)))


class Disk(PoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.seed()

    def states(self) -> list[str]:
        return [row.state for row in VisitorAllocation.objects.order_by("visitor_number")]

    def refused(self, cause: str) -> HttpResponse:
        with self.assertLogs("studio.apps.visitors.views", "WARNING") as seen:
            response = self.client_class().get("/writer/")
        assert (response.status_code, f"{cause}:" in seen.output[-1]) == (503, True), seen.output
        assert 30 <= int(response.headers["Retry-After"]) <= 600
        return response

    def test_a_data_root_that_is_gone_changes_no_row(self) -> None:
        self.visit()
        self.expire(1)
        away = self.root.with_name(f"{self.root.name}-away")
        self.root.rename(away)
        self.assertNotContains(self.refused("storage"), "High Traffic", status_code=503)
        for command in ("create_visitor_pool", "reset_visitor_pool", "check_visitor_pool_health"):
            well, said = self.run_command(command)
            assert (well, "data root" in said) == (False, True), said
        away.rename(self.root)
        assert self.states() == ["expired", "free", "free", "free"]
        assert self.visit()[1] == 2

    def test_too_many_open_files_is_no_slots_fault(self) -> None:
        with mock.patch.object(disk.os, "open", no(errno.EMFILE)):
            self.refused("storage")
        assert self.states() == ["free"] * 4

    def test_an_error_between_the_look_at_the_root_and_the_slot_gives_the_slot_back(self) -> None:
        with mock.patch.object(disk, "has_workspace", no(errno.EMFILE)):
            self.refused("storage")
        assert "quarantined" not in self.states()
        assert "leased" not in self.states()
        assert self.visit()[1] == 2
        self.seed()
        assert self.row(1).state == "free"

    def test_a_full_disk_quarantines_nothing_and_leaves_no_half_built_tree(self) -> None:
        for number in [self.visit()[1] for _ in range(4)]:
            self.expire(number)
        with mock.patch.object(disk.shutil, "copyfile", no(errno.ENOSPC)):
            self.refused("storage")
        assert "quarantined" not in self.states()
        assert self.states().count("expired") == 3
        assert not (self.root / ".visitor-pool").exists()
        self.visit()

    def test_on_a_full_disk_clearing_makes_room(self) -> None:
        big = self.root / "visitor-001/big"
        big.write_text("big")
        self.visit()
        copyfile = disk.shutil.copyfile

        def full(*arguments: Any, **more: Any) -> None:
            if big.exists() or list(self.root.glob(".visitor-pool/*/big")):
                raise OSError(errno.ENOSPC, "No space left on device")
            copyfile(*arguments, **more)

        with mock.patch.object(disk.shutil, "copyfile", full):
            assert self.run_command("reset_visitor_pool", "--visitor", "1")[0]
            assert self.whole(1)
            # Also when the first that there is to be cleaned has nothing left to be cleared.
            slots.take(1)
            disk.remove("visitor-001")
            big = self.root / "visitor-002/big"
            big.write_text("big")
            self.visit()
            self.expire(2)
            assert self.run_command("reset_visitor_pool", "--expired")[0]
        assert self.whole(1)
        assert self.whole(2)

    def test_one_visit_quarantines_one_slot_at_most(self) -> None:
        for fault in ("disk.has_workspace", "disk.replace"):
            with self.subTest(fault):
                self.run_command("reset_visitor_pool")
                if fault == "disk.replace":
                    for number in [self.visit()[1] for _ in range(4)]:
                        self.expire(number)
                with mock.patch(f"studio.apps.visitors.{fault}", no(errno.EIO)):
                    self.refused("storage")
                assert self.states().count("quarantined") == 1

    def test_a_slot_that_cannot_be_read_is_a_finding(self) -> None:
        look = disk.has_project

        def unreadable(name: str) -> bool:
            return no(errno.EIO)() if name == "visitor-002" else look(name)

        with mock.patch.object(disk, "has_project", unreadable):
            well, said = self.run_command("check_visitor_pool_health")
        assert (well, "visitor-002: its directory cannot be read" in said) == (False, True)

    def test_a_template_that_is_missing_for_a_moment_quarantines_nothing(self) -> None:
        for number in [self.visit()[1] for _ in range(4)]:
            self.expire(number)
        no_marker = self.root / "template"
        (no_marker / "01_manuscript").mkdir(parents=True)
        for template in (self.root / "nowhere", no_marker):
            with override_settings(VISITOR_TEMPLATE=template):
                self.refused("storage")
                self.assertRaises(disk.StorageError, pool.renew_expired)
                well, said = self.run_command("reset_visitor_pool", "--expired")
                assert (well, "template" in said) == (False, True), said
                assert "workspaces" in [check.name for check in health.look()[1] if not check.ok]
            assert self.states() == ["expired"] * 4
        pool.renew_expired()
        assert self.states() == ["free"] * 4

    def test_a_visit_that_is_refused_leaves_no_session(self) -> None:
        """An answer that is an error sets no cookie, so nobody would ever come with it."""
        with mock.patch.object(leases, "allocate", return_value=None), mock.patch.object(visits, "PATIENCE_SECONDS", 0):
            assert self.client_class().get("/writer/").status_code == 503
        for fault in ("disk.has_workspace", "sections.read"):
            with mock.patch(f"studio.apps.visitors.{fault}", no(errno.EMFILE)):
                assert self.client_class().get("/writer/").status_code == 503
        assert not Session.objects.exists()
        browser, _ = self.visit()
        self.expire(1)
        with mock.patch.object(disk, "has_workspace", no(errno.EMFILE)):
            assert browser.get("/writer/").status_code == 503
        assert Session.objects.get().session_key == browser.session.session_key

    def test_without_a_template_slots_that_are_whole_are_lent_all_the_same(self) -> None:
        with override_settings(VISITOR_TEMPLATE=self.root / "nowhere"):
            assert self.visit()[1] == 1
            assert self.run_command("create_visitor_pool", "--status")[0]
            for words, well in (([], False), (["--at-start"], True)):
                done, said = self.run_command("create_visitor_pool", *words)
                assert (done, "nowhere" in said, "ready" in said) == (well, True, False), said
            VisitorAllocation.objects.all().delete()
            assert not self.run_command("create_visitor_pool", "--at-start")[0]

    def test_one_run_of_the_upkeep_quarantines_one_slot_at_most(self) -> None:
        for number in [self.visit()[1] for _ in range(4)]:
            self.expire(number)
        with mock.patch.object(disk, "replace", no(errno.EIO)):
            self.assertRaises(disk.StorageError, pool.renew_expired)
        assert self.states() == ["quarantined", "resetting", "expired", "expired"]
        pool.renew_expired()
        assert self.states() == ["quarantined", "free", "free", "free"]

    def test_a_template_that_is_broken_keeps_no_half_built_tree(self) -> None:
        with mock.patch.object(disk.shutil, "copyfile", no(errno.EIO)), self.assertRaises(OSError):
            disk.build("visitor-001")
        assert not (self.root / ".visitor-pool").exists()


class Saving(PoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.seed()
        self.browser, _ = self.visit()
        self.save(self.browser, "old")

    def post(self) -> HttpResponse:
        return self.browser.post("/writer/save", {"section:abstract": "new", "section:methods": "precious"})

    def test_what_a_killed_save_has_left_goes_with_a_later_one(self) -> None:
        folder = (self.root / "visitor-001" / ABSTRACT).parent
        (folder / ".new-dead").write_text("half")
        (folder / ".new-living").write_text("half")
        os.utime(folder / ".new-dead", (0, 0))
        assert self.save(self.browser, "whole") == 302
        assert [path.name for path in folder.glob(".*")] == [".new-living"]
        assert self.abstract("visitor-001") == "whole"

    def test_a_full_disk_saves_nothing_and_gives_the_text_back(self) -> None:
        before, write, calls = self.files(), sections._write_beside, []

        def second_fails(*arguments: Any) -> None:
            write(*arguments)
            calls.append(1)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")

        with mock.patch.object(sections, "_write_beside", second_fails):
            response = self.post()
        self.assertContains(response, "precious", status_code=503)
        self.assertContains(response, "Nothing could be saved", status_code=503)
        assert response.headers["Retry-After"]
        assert self.files() == before

    def files(self) -> dict[str, str]:
        return {name: digest for name, (_, digest) in self.snapshot().items()}

    def test_what_was_saved_in_part_is_said(self) -> None:
        rename, calls = os.rename, []

        def second_fails(*arguments: Any, **more: Any) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise OSError(errno.EIO, "Input/output error")
            rename(*arguments, **more)

        with mock.patch.object(sections.os, "rename", second_fails):
            response = self.post()
        self.assertContains(response, "Saved: abstract.", status_code=503)
        self.assertContains(response, "precious", status_code=503)
        assert self.abstract("visitor-001") == "new"

    def test_without_a_database_the_text_comes_back_too(self) -> None:
        for error in (OperationalError("down"), InterfaceError("connection already closed")):
            with mock.patch(CURSOR, side_effect=error):
                response = self.post()
            self.assertContains(response, "precious", status_code=503)

    def test_all_that_the_page_allows_arrives(self) -> None:
        names = ("abstract", "introduction", "methods", "results", "discussion")
        body = urlencode({f"section:{name}": "\U0001f6a2" * 200_000 for name in names})
        kind = "application/x-www-form-urlencoded"
        assert self.browser.post("/writer/save", body, content_type=kind).status_code == 302
        assert len(self.abstract("visitor-001")) == 200_000


class Pages(PoolCase):
    def test_without_a_database_every_page_says_when_to_come_again(self) -> None:
        self.seed()
        known, _ = self.visit()
        for browser in (self.client_class(), known):
            with mock.patch(CURSOR, side_effect=OperationalError("down")):
                for path in ("/writer/", "/", "/writer/signup"):
                    response = browser.get(path)
                    if path == "/writer/signup" and browser is not known:
                        continue  # a form that needs no database
                    assert (response.status_code, response.headers.get("Retry-After")) == (503, "30"), path

    def test_a_database_that_is_lost_when_the_view_has_ended_is_no_bad_request(self) -> None:
        save = SessionStore.save
        for name, error, status in (("ann", OperationalError("lost"), 503), ("bob", DatabaseError("no row"), 400)):

            def late(session: SessionStore, must_create: bool = False, error: Exception = error) -> None:
                if must_create:
                    save(session, must_create)
                    return
                try:
                    raise error
                except DatabaseError:
                    raise UpdateError  # noqa: B904 as the real one does

            browser, form = self.client_class(), {**FORM, "username": name}
            with mock.patch.object(SessionStore, "save", late):
                response = browser.post("/writer/signup", form)
            assert (response.status_code, "Retry-After" in response.headers) == (status, status == 503)
            assert browser.post("/writer/signup", form).status_code == 302, "the answer was lost, and not the account"

    def test_without_a_database_the_commands_say_so_and_what_to_do(self) -> None:
        for command in ("create_visitor_pool", "reset_visitor_pool", "check_visitor_pool_health"):
            for error in (OperationalError("down"), ProgrammingError("no such relation")):
                with mock.patch(CURSOR, side_effect=error):
                    well, said = self.run_command(command)
                assert (well, str(error) in said, "manage.py migrate" in said) == (False, True, True), said

    def test_a_page_that_fails_keeps_no_slot(self) -> None:
        self.seed()
        self.client.raise_request_exception = False
        with mock.patch("studio.apps.visitors.views._page", side_effect=RuntimeError("a template is broken")):
            for _ in range(self.size + 1):
                assert self.client.get("/writer/").status_code == 500
        assert not VisitorAllocation.objects.filter(is_active=True).exists()
        browser, number = self.visit()
        self.save(browser, "kept")
        browser.raise_request_exception = False
        with mock.patch("studio.apps.visitors.views._page", side_effect=RuntimeError("a template is broken")):
            browser.get("/writer/")
        assert self.visit(browser)[1] == number
        assert self.abstract("visitor-001") == "kept"

    def test_who_is_lent_nothing_gets_no_session(self) -> None:
        self.seed()
        for _ in range(self.size):
            self.visit()
        before = Session.objects.count()
        for _ in range(3):
            response = self.client_class().get("/writer/")
            assert (response.status_code, len(response.cookies)) == (503, 0)
        assert Session.objects.count() == before

    def test_a_session_that_is_deleted_this_very_moment_is_begun_anew(self) -> None:
        self.seed()
        browser, _ = self.visit()
        key, exists = browser.session.session_key, Session.objects.filter(session_key=browser.session.session_key)
        self.run_command("reset_visitor_pool")

        def then_deleted(store: Any, name: str) -> bool:
            found = type(store).get_model_class().objects.filter(session_key=name).exists()
            if name == key:
                exists.delete()
            return found

        with mock.patch("django.contrib.sessions.backends.db.SessionStore.exists", then_deleted):
            assert browser.get("/writer/").status_code == 200
        assert browser.session.session_key != key

    def test_the_cause_is_what_most_slots_suffer_from(self) -> None:
        self.seed()
        rows = VisitorAllocation.objects.order_by("visitor_number")
        for words, cause in (
            (["free", "free", "free", "free"], "saturated"),  # others have locked them
            (["free", "free", "free", "quarantined"], "saturated"),
            (["leased", "quarantined", "quarantined", "quarantined"], "quarantined"),
            (["leased", "leased", "quarantined", "quarantined"], "quarantined"),
            (["leased", "leased", "leased", "quarantined"], "saturated"),
            (["resetting", "resetting", "resetting", "quarantined"], "saturated"),
            (["resetting", "resetting", "resetting", "resetting"], "saturated"),
            (["leased", "leased", "leased"], "saturated"),
            (["leased", "leased"], "unprovisioned"),  # two of four are not there
            (["leased"], "unprovisioned"),
            ([], "unprovisioned"),
        ):
            for row, word in zip(rows, words, strict=False):
                key = {"leased": "somebody", "free": ""}.get(word, f"shipshape:{word}")
                here = VisitorAllocation.objects.filter(pk=row.pk)
                here.update(is_active=word != "free", session_key=key, expires_at=slots.FAR)
            with self.subTest(words):
                assert visits._exhausted(list(rows.all()[: len(words)])).cause == cause


class Unmigrated(PoolMixin, TransactionTestCase):
    def test_without_its_table_a_page_says_when_to_come_again_and_the_log_why(self) -> None:
        table = VisitorAllocation._meta.db_table
        self.seed()
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO gone")
        try:
            with self.assertLogs("studio.apps.core.middleware", "ERROR") as said:
                response = self.client.get("/writer/")
        finally:
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER TABLE gone RENAME TO {table}")
        assert (response.status_code, response.headers.get("Retry-After")) == (503, "30")
        assert table in said.output[0]
        assert self.client.get("/writer/").status_code == 200
