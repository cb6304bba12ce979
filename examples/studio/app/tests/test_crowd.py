# SPDX-License-Identifier: GPL-3.0-or-later
"""Many visitors at the same moment. STUDIO_TEST_LEASES says how many leases in all; 6400 is the long pass."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest import mock, skipUnless

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import OperationalError, connection, transaction
from django.test import TransactionTestCase
from django.utils import timezone

from studio.apps.visitors import handover, leases, visits
from studio.apps.visitors.limits import PROJECT, username
from studio.apps.visitors.models import Project, VisitorAllocation

from .visitors import PoolMixin

CLIENTS = 32
LEASES = int(os.environ.get("STUDIO_TEST_LEASES", "640"))
ROUNDS = 3 if LEASES > 640 else 1
# The best of the peers' ways to do it (PEERS: 32 clients): look for a row that nobody has locked, then take it.
PEER_LOOK = """SELECT id, visitor_number FROM project_app_visitorallocation WHERE NOT is_active
    ORDER BY visitor_number LIMIT 1 FOR UPDATE SKIP LOCKED"""
PEER_TAKE = """UPDATE project_app_visitorallocation
    SET is_active = true, session_key = %s, allocation_token = %s, allocated_at = %s, expires_at = %s WHERE id = %s"""


def peer(client: str) -> int | None:
    token, now = secrets.token_hex(32), timezone.now()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(PEER_LOOK)
        row = cursor.fetchone()
        if row is None:
            return None
        cursor.execute(PEER_TAKE, [client, leases.digest(token), now, now + settings.VISITOR_LIFETIME, row[0]])
        return int(row[1])


def ours(client: str) -> int | None:
    lease = leases.allocate(client)
    return lease.number if lease else None


def patient(client: str) -> int:
    while (number := ours(client)) is None:
        visits.make_room(patient=True)  # says ExhaustedError when there is none, and there always is one: an error
    return number


@skipUnless(connection.vendor == "postgresql", "SQLite lets one writer in at a time")
class Crowd(PoolMixin, TransactionTestCase):
    size = CLIENTS

    def setUp(self) -> None:
        super().setUp()
        self.seed()
        self.has: dict[int, str] = {}
        self.double: list[int] = []
        self.errors: list[str] = []
        self.guard = threading.Lock()

    def guest(self, name: str, barrier: threading.Barrier) -> None:
        """Takes a slot and gives it back, again and again."""
        try:
            barrier.wait()
            for _ in range(LEASES // CLIENTS):
                slot = patient(name)
                with self.guard:
                    if slot in self.has:
                        self.double.append(slot)
                    self.has[slot] = name
                with self.guard:
                    del self.has[slot]
                leases.free(slot)
        except Exception as error:
            self.errors.append(repr(error))
        finally:
            connection.close()

    def test_no_slot_twice_no_error_and_never_falsely_empty(self) -> None:
        barrier = threading.Barrier(CLIENTS)
        with ThreadPoolExecutor(CLIENTS) as threads:
            for done in [threads.submit(self.guest, f"client-{n}", barrier) for n in range(CLIENTS)]:
                done.result()
        assert (self.double, self.errors) == ([], [])
        assert not VisitorAllocation.objects.filter(is_active=True).exists()

    def test_visits_at_the_same_moment_get_each_a_slot_of_their_own(self) -> None:
        barrier = threading.Barrier(CLIENTS + 4)

        def visit() -> tuple[int, str]:
            try:
                browser = self.client_class()
                barrier.wait()
                response = browser.get("/writer/")
                return response.status_code, browser.session.get("visitor_allocation_token", "")
            finally:
                connection.close()

        with ThreadPoolExecutor(CLIENTS + 4) as threads:
            answers = [each.result() for each in [threads.submit(visit) for _ in range(CLIENTS + 4)]]
        assert sorted(code for code, _ in answers) == [200] * CLIENTS + [503] * 4
        tokens = {leases.digest(token) for code, token in answers if code == 200}
        assert tokens == set(VisitorAllocation.objects.values_list("allocation_token", flat=True))

    def test_expired_slots_are_cleaned_once_each_however_many_come(self) -> None:
        for number in range(1, CLIENTS + 1):
            assert leases.allocate("gone")
            (self.root / username(number) / "private").write_text("private")
            self.expire(number)
        barrier = threading.Barrier(8)

        def visit() -> int:
            try:
                browser = self.client_class()
                barrier.wait()
                assert browser.get("/writer/").status_code == 200
                return self.number(browser)
            finally:
                connection.close()

        with ThreadPoolExecutor(8) as threads:
            numbers = [each.result() for each in [threads.submit(visit) for _ in range(8)]]
        assert len(set(numbers)) == 8
        assert all(self.whole(number) for number in numbers)
        assert not [number for number in numbers if (self.root / username(number) / "private").exists()]

    def test_a_session_whose_first_requests_come_together_has_one_slot(self) -> None:
        session = self.client_class().session
        session["something"] = "so that it exists"
        session.save()
        barrier = threading.Barrier(6)

        def visit() -> int:
            try:
                mine = type(session)(session.session_key)
                barrier.wait()
                return visits.lease_for(mine).number
            finally:
                connection.close()

        with ThreadPoolExecutor(6) as threads:
            assert {each.result() for each in [threads.submit(visit) for _ in range(6)]} == {1}
        assert VisitorAllocation.objects.filter(is_active=True).count() == 1

    def test_a_slot_that_another_visit_is_just_taking_is_passed_by_and_not_waited_for(self) -> None:
        def lent() -> int | None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SET lock_timeout = '500ms'")
                return ours("next")
            finally:
                connection.close()

        with transaction.atomic(), ThreadPoolExecutor(1) as threads:
            assert ours("first") == 1
            assert threads.submit(lent).result() == 2

    def test_a_row_stays_as_it_is_while_its_project_is_handed_over(self) -> None:
        lease, said = visits.lease_for(self.client_class().session), []
        create = handover._create

        def freed() -> str:
            """Somebody who knows nothing of the slot's lock."""
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SET lock_timeout = '500ms'")
                VisitorAllocation.objects.filter(visitor_number=lease.number).update(is_active=False)
                return "freed"
            except OperationalError as error:
                return str(error)
            finally:
                connection.close()

        def slowly(name: str, password: str) -> User:
            with ThreadPoolExecutor(1) as threads:
                said.append(threads.submit(freed).result())
            return create(name, password)

        with mock.patch.object(handover, "_create", slowly):
            handover.sign_up("alice", "correct horse battery", lease)
        assert "lock timeout" in said[0]
        assert Project.objects.get(pk=lease.project_id).owner.username == "alice"

    def test_a_living_cleaner_is_left_alone_and_a_dead_ones_work_is_finished(self) -> None:
        from studio.apps.visitors import slots

        VisitorAllocation.objects.exclude(visitor_number=1).delete()
        locked, go_on = threading.Event(), threading.Event()

        def cleaner() -> None:
            try:
                with slots.lock(1, wait=True):
                    slots.take(1)
                    locked.set()
                    go_on.wait(20)
            finally:
                connection.close()

        thread = threading.Thread(target=cleaner)
        thread.start()
        locked.wait(20)
        assert not slots.renew(1, slots.UNFINISHED, wait=False)
        assert self.row(1).state == "resetting"
        go_on.set()
        thread.join()
        assert self.visit()[1] == 1


@skipUnless(connection.vendor == "postgresql", "SQLite lets one writer in at a time")
class Rush(TransactionTestCase):
    """As many slots as leases, and 32 processes, as gunicorn's workers are, that take one after the other."""

    def setUp(self) -> None:
        names = {number: username(number) for number in range(1, LEASES + 1)}
        User.objects.bulk_create(User(username=name, password=make_password(None)) for name in names.values())
        owners = User.objects.filter(username__in=names.values())
        Project.objects.bulk_create(Project(owner=owner, name=PROJECT, slug=PROJECT) for owner in owners)
        now = timezone.now()
        VisitorAllocation.objects.bulk_create(
            VisitorAllocation(visitor_number=n, allocation_token=leases.no_token(), allocated_at=now, expires_at=now)
            for n in names
        )

    def rush(self, take: Callable[[str], int | None]) -> float:
        """Leases a second, until there is no free slot."""
        VisitorAllocation.objects.update(is_active=False, session_key="")
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")  # what one rush leaves behind would slow the next down
        connection.close()  # no process may use another's
        fork = multiprocessing.get_context("fork")
        barrier, got = fork.Barrier(CLIENTS + 1), fork.Queue()

        def client(name: str) -> None:
            numbers = []
            connection.ensure_connection()
            barrier.wait()
            while (number := take(name)) is not None:
                numbers.append(number)
            got.put(numbers)
            connection.close()

        clients = [fork.Process(target=client, args=(f"client-{n}",)) for n in range(CLIENTS)]
        for each in clients:
            each.start()
        barrier.wait()
        began = time.perf_counter()
        taken = [number for _ in clients for number in got.get(timeout=120)]
        took = time.perf_counter() - began
        for each in clients:
            each.join()
        assert sorted(taken) == list(
            range(1, LEASES + 1)
        )  # none twice, and nobody was told too early that all are taken
        assert not VisitorAllocation.objects.filter(is_active=False).exists()
        return LEASES / took

    def test_every_slot_is_taken_once(self) -> None:
        rates = {ours: 0.0, peer: 0.0}
        for take in (peer, ours) * ROUNDS:  # by turns: the machine is not equally fast all the time
            rates[take] = max(rates[take], self.rush(take))
        print(f"{LEASES} leases, {CLIENTS} clients: {rates[ours]:.0f} a second; peer: {rates[peer]:.0f} a second")
