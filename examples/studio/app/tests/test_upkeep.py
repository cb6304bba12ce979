# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done beside the visits: cleaning what has ended, finding what has vanished, and saying how it is."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from unittest import mock

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.test import TransactionTestCase, override_settings
from django.utils import timezone

from studio.apps.core import health
from studio.apps.tasks.management.commands.worker import Command
from studio.apps.visitors import disk, handover, pool, slots, transfers
from studio.apps.visitors.limits import UPKEEP
from studio.apps.visitors.models import VisitorAllocation

from .visitors import FORM, KilledError, PoolCase, PoolMixin


class Seeded(PoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.seed()


class Ended(Seeded):
    def worker(self) -> Command:
        command = Command()
        command.prepare("w1")
        command.beat_file = self.root.with_name(f"{self.root.name}-beat")
        self.addCleanup(command.beat_file.unlink, missing_ok=True)
        return command

    def test_a_worker_removes_what_has_ended_now_and_then(self) -> None:
        worker = self.worker()
        worker.keep_up()
        browser, _ = self.visit()
        self.save(browser, "private")
        self.expire(1)
        Session.objects.create(session_key="old", session_data="", expire_date=timezone.now() - timedelta(days=1))
        worker.keep_up()
        assert self.row(1).state == "expired", "it has just been done"
        with override_settings(VISITOR_UPKEEP=timedelta(0)):
            worker.keep_up()
        assert self.row(1).state == "free"
        assert "private" not in self.abstract("visitor-001")
        assert not Session.objects.filter(session_key="old").exists()

    def test_a_worker_that_is_stopped_or_has_no_disk_goes_on(self) -> None:
        self.visit()
        self.visit()
        self.expire(1)
        self.expire(2)
        stopped = self.worker()
        stopped.stopping.set()
        stopped.keep_up()
        assert [self.row(number).state for number in (1, 2)] == ["free", "expired"]
        with override_settings(VISITOR_DATA_ROOT=self.root / "gone"):
            self.worker().keep_up()
        assert self.row(2).state == "expired"

    def test_a_lease_of_a_session_that_is_gone_blocks_no_slot(self) -> None:
        for clean in (self.seed, pool.renew_expired):
            browser, _ = self.visit()
            other, _ = self.visit()
            self.save(browser, "private")
            self.save(other, "kept")
            browser.post("/writer/logout")
            well, said = self.run_command("check_visitor_pool_health")
            assert (well, "visitor-001: its lease is no session's" in said, "visitor-002" in said) == (
                False,
                True,
                False,
            )
            clean()
            assert [self.row(number).state for number in (1, 2)] == ["free", "leased"]
            assert "private" not in self.abstract("visitor-001")
            assert self.save(other, "and more") == 302
            self.run_command("reset_visitor_pool")

    def test_a_slot_that_was_freed_uncleared_is_cleared_before_it_is_lent(self) -> None:
        """Somebody has set is_active and nothing else: the former visitor's session is still in the row."""
        for clean in (pool.renew_expired, self.seed, lambda: self.run_command("create_visitor_pool", "--size", "4")):
            browser, number = self.visit()
            assert (number, self.save(browser, "private")) == (1, 302)
            VisitorAllocation.objects.filter(visitor_number=1).update(is_active=False)
            assert (self.row(1).state, self.status()["Expired"], self.status()["Free"]) == ("expired", 1, 3)
            assert self.visit()[1] == 2
            clean()
            assert (self.row(1).state, self.row(1).session_key) == ("free", "")
            assert "private" not in self.abstract("visitor-001")
            self.run_command("reset_visitor_pool")

    def test_a_visit_that_finds_only_uncleared_slots_clears_one(self) -> None:
        for browser, _ in [self.visit() for _ in range(self.size)]:
            self.save(browser, "private")
        VisitorAllocation.objects.update(is_active=False)
        assert self.visit()[1] == 1
        assert "private" not in self.abstract("visitor-001")

    def test_the_upkeep_finishes_what_a_dead_cleaner_has_left(self) -> None:
        for again in (lambda: pool.keep_up(lambda: None), lambda: self.run_command("reset_visitor_pool", "--expired")):
            browser, _ = self.visit()
            self.save(browser, "private")
            self.expire(1)
            with self.killed("studio.apps.visitors.disk.replace"), self.assertRaises(KilledError):
                pool.keep_up(lambda: None)
            assert self.row(1).state == "resetting"
            well, said = self.run_command("check_visitor_pool_health")
            locks = connection.vendor == "postgresql"  # which tell that the cleaner is dead
            assert (well, "was begun and has not ended" in said) == (not locks, locks), said
            again()
            assert self.row(1).state == "free"
            assert "private" not in self.abstract("visitor-001")
            assert self.run_command("check_visitor_pool_health")[0]


class Overtaken(Seeded):
    """On SQLite nothing but the row itself says that somebody else was faster."""

    def test_a_slot_that_was_cleaned_and_lent_meanwhile_is_not_cleaned_again(self) -> None:
        for fault in (None, OSError("disk full")):
            with self.subTest(fault=fault):
                self.run_command("reset_visitor_pool")
                slots.take(1)
                assert slots.finish(1)
                browser, number = self.visit()
                assert (number, self.save(browser, "the next visitor's")) == (1, 302)
                with mock.patch.object(slots.disk, "replace", side_effect=fault):
                    assert not slots.finish(1)
                assert self.abstract("visitor-001") == "the next visitor's"
                assert self.row(1).state == "leased"

    def test_growing_removes_no_slot_that_somebody_has_got_meanwhile(self) -> None:
        for _ in range(self.size):
            self.visit()
        make, come = pool._make, []

        def overtaken(number: int, **more: bool) -> None:
            if not come:
                come.append(self.visit())
                assert self.save(come[0][0], "mine") == 302
            make(number, **more)

        with mock.patch.object(pool, "_make", overtaken):
            self.seed("--size", "6")
        browser, number = come[0]
        assert self.abstract(f"visitor-{number:03d}") == "mine"
        assert self.save(browser, "still mine") == 302


class Looking(Seeded):
    def test_slots_that_have_vanished_are_missed(self) -> None:
        for number in (2, 4):
            User.objects.filter(username=f"visitor-00{number}").delete()
            VisitorAllocation.objects.filter(visitor_number=number).delete()
            shutil.rmtree(self.root / f"visitor-00{number}")
        for words in (["check_visitor_pool_health"], ["create_visitor_pool", "--status"]):
            well, said = self.run_command(*words)
            assert (well, "visitor-002: nothing" in said, "visitor-004: nothing" in said) == (False, True, True)

    def test_accounts_are_looked_through_once_a_run_and_not_for_every_slot(self) -> None:
        with mock.patch.object(transfers, "_accounts", side_effect=transfers._accounts) as looked:
            self.seed("--size", "40")
        assert looked.call_count < 5

    def test_the_report_says_when_no_directory_can_be_made_or_no_slot_be_lent(self) -> None:
        def bad() -> list[str]:
            return [
                check.name for check in health.look()[1] if not check.ok and check.name in ("workspaces", "visitors")
            ]

        assert bad() == []
        VisitorAllocation.objects.filter(visitor_number__gt=1).update(session_key="shipshape:quarantined")
        assert bad() == []
        VisitorAllocation.objects.update(session_key="shipshape:quarantined", is_active=True)
        assert bad() == ["visitors"]
        with override_settings(VISITOR_DATA_ROOT=self.root / "gone"):
            assert bad() == ["workspaces", "visitors"]
        with mock.patch.object(disk.os, "fsync", side_effect=OSError(28, "No space left on device")):
            assert "workspaces" in bad()

    def test_an_operators_own_account_is_counted_nowhere(self) -> None:
        User.objects.create_superuser("visitor-009", password="x")
        assert self.status() == {"Total slots": 4, "Allocated": 0, "Free": 4, "Expired": 0}
        said = self.run_command("check_visitor_pool_health")[1]
        assert [line for line in said.splitlines() if "visitor-009" in line] == [
            "  visitor-009: the account is somebody's, and no slot's"
        ]


class AtWork(PoolMixin, TransactionTestCase):
    def elsewhere(self, *words: str) -> tuple[bool, str]:
        """Another process: the connection's own locks do not keep it out. SQLite's one connection has none."""

        def run() -> tuple[bool, str]:
            try:
                return self.run_command(*words)
            finally:
                connection.close()

        if connection.vendor != "postgresql":
            return self.run_command(*words)
        with ThreadPoolExecutor(1) as other:
            return other.submit(run).result()

    def test_a_living_cleaner_and_a_sign_up_are_no_findings(self) -> None:
        self.seed()
        browser, _ = self.visit()
        self.visit()
        self.expire(2)
        said: list[tuple[bool, str]] = []

        def watched(real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object) -> object:
                said.append(self.elsewhere("check_visitor_pool_health"))
                said.append(self.elsewhere("create_visitor_pool", "--status"))
                return real(*arguments)

            return call

        with (
            mock.patch.object(disk, "build", watched(disk.build)),
            mock.patch.object(transfers, "_settle", watched(transfers._settle)),
        ):
            pool.renew_expired()
            assert browser.post("/writer/signup", FORM).status_code == 302
        assert len(said) == 6
        assert all(well for well, _ in said), said
        assert "note: visitor-001: somebody is at work on it" in said[-1][1]


class Locks(PoolMixin, TransactionTestCase):
    def setUp(self) -> None:
        super().setUp()
        if connection.vendor != "postgresql":
            self.skipTest("only PostgreSQL has advisory locks")
        self.seed()

    def held(self) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
            return int(cursor.fetchone()[0])

    def test_a_transfer_that_cannot_be_settled_leaves_no_lock_behind(self) -> None:
        (self.root / "alice").mkdir()
        (self.root / "alice/.from-visitor-003").touch()

        def fails(*_arguments: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")

        with mock.patch.object(transfers, "_undo", fails), self.assertRaisesMessage(Exception, "division by zero"):
            handover.sign_up("alice", "x", None)
        assert self.held() == 0
        assert not User.objects.filter(username="alice").exists()

    @contextmanager
    def elsewhere(self, number: int) -> Iterator[None]:
        """Another process has the lock."""
        locked, go_on = threading.Event(), threading.Event()

        def other() -> None:
            with slots.lock(number, wait=True):
                locked.set()
                go_on.wait(20)
            connection.close()

        thread = threading.Thread(target=other)
        thread.start()
        locked.wait(20)
        try:
            yield
        finally:
            go_on.set()
            thread.join()

    def test_one_process_at_a_time_removes_what_has_ended(self) -> None:
        self.visit()
        self.expire(1)
        with self.elsewhere(UPKEEP):
            pool.keep_up(lambda: None)
            assert self.row(1).state == "expired"
        pool.keep_up(lambda: None)
        assert self.row(1).state == "free"
        assert self.held() == 0

    def test_what_a_module_at_work_on_the_pool_has_begun_is_left_to_it(self) -> None:
        """It has the pool's lock, and between its two looks not that of every slot that it cleans."""
        self.visit()
        slots.take(1)
        with self.elsewhere(0):
            pool.keep_up(lambda: None)
            assert self.row(1).state == "resetting"
        pool.keep_up(lambda: None)
        assert self.row(1).state == "free"
        assert self.held() == 0

    def test_a_sign_up_waits_for_nothing_that_another_transaction_keeps(self) -> None:
        """Locks are the connection's: none is taken inside a transaction that may fail."""
        taken: list[bool] = []
        lock = slots.lock

        def seen(*arguments: int, **more: bool) -> object:
            taken.append(transaction.get_connection().in_atomic_block)
            return lock(*arguments, **more)

        browser, _ = self.visit()
        with mock.patch.object(slots, "lock", seen):
            browser.post("/writer/signup", {"username": "alice", "password": "correct horse battery"})
        assert taken
        assert not any(taken)
