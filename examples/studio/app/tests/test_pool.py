# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool as a whole, judged by rows and directories: made, counted, repaired, grown, shrunk, reset."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from unittest import mock

from django.contrib.auth.models import User
from django.db.models import Q
from django.test import override_settings
from django.utils import timezone

from studio.apps.visitors import slots
from studio.apps.visitors.limits import QUARANTINED
from studio.apps.visitors.models import Project, VisitorAllocation

from .visitors import WRITER, KilledError, PoolCase

EMPTY = "\n=== Visitor Pool Status ===\nTotal slots: 0\nAllocated: 0\nFree: 0\nExpired: 0\n"


class Seeding(PoolCase):
    def test_every_slot_is_whole_and_a_second_run_changes_nothing(self) -> None:
        assert self.run_command("create_visitor_pool") == (True, "Initializing visitor pool...\nVisitor pool ready\n")
        assert all(self.whole(number) for number in range(1, self.size + 1))
        assert User.objects.count() == Project.objects.count() == VisitorAllocation.objects.count() == self.size
        files, rows = self.snapshot(), self.rows()
        self.seed()
        assert (self.snapshot(), self.rows()) == (files, rows)
        assert sorted(os.listdir(self.root)) == [f"visitor-{n:03d}" for n in range(1, self.size + 1)]

    def rows(self) -> list[object]:
        return [list(model.objects.order_by("pk").values()) for model in (User, Project, VisitorAllocation)]

    def test_new_entries_have_the_owner_and_the_mode_of_the_data_root(self) -> None:
        self.root.chmod(0o750)
        self.seed()
        for path in self.root.rglob("*"):
            assert path.stat().st_uid == self.root.stat().st_uid
            assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path

    def test_the_status_is_counted(self) -> None:
        well, said = self.run_command("create_visitor_pool", "--status")
        assert (well, said.startswith(EMPTY)) == (False, True)
        assert not User.objects.exists()
        self.seed()
        self.visit()
        _, two = self.visit()
        self.expire(two)
        well, said = self.run_command("create_visitor_pool", "--status")
        assert (well, said) == (
            True,
            "\n=== Visitor Pool Status ===\nTotal slots: 4\nAllocated: 1\nFree: 2\nExpired: 1\n",
        )

    def test_one_visit_before_the_pool_is_made_spoils_nothing(self) -> None:
        assert self.client.get("/writer/").status_code == 503
        self.seed()
        assert self.visit()[1] == 1
        assert self.status() == {"Total slots": 4, "Allocated": 1, "Free": 3, "Expired": 0}

    def test_a_slot_that_cannot_be_made_is_named_and_leaves_nothing_and_the_others_are_made(self) -> None:
        replace = slots.disk.replace

        def third_fails(name: str) -> None:
            if name == "visitor-003":
                raise OSError("no space left")
            replace(name)

        with mock.patch.object(slots.disk, "replace", third_fails):
            well, said = self.run_command("create_visitor_pool")
            assert (well, "visitor-003" in said) == (False, True)
            well, said = self.run_command("create_visitor_pool", "--at-start")
        assert well, "one broken slot keeps the site from starting"
        assert "visitor-003" in said
        assert "Visitor pool ready" not in said
        assert [number for number in (1, 2, 4) if self.whole(number)] == [1, 2, 4]
        assert not User.objects.filter(username="visitor-003").exists()
        assert not VisitorAllocation.objects.filter(visitor_number=3).exists()
        assert not (self.root / "visitor-003").exists()
        self.seed()
        assert self.whole(3)

    def test_without_any_usable_slot_the_site_does_not_start(self) -> None:
        with mock.patch.object(slots.disk, "replace", mock.Mock(side_effect=OSError("no space left"))):
            well, said = self.run_command("create_visitor_pool", "--at-start")
        assert not well
        assert "visitor-001" in said

    def test_a_file_or_a_symlink_in_a_slots_place_is_replaced_and_not_followed(self) -> None:
        outside = self.root / "outside"
        outside.mkdir()
        (outside / "precious").write_text("precious")
        (self.root / "visitor-001").write_text("a file")
        (self.root / "visitor-002").symlink_to(outside)
        self.seed()
        assert self.whole(1)
        assert self.whole(2)
        assert not (self.root / "visitor-002").is_symlink()
        (self.root / "visitor-002" / "default-project/link").symlink_to(outside)
        self.run_command("reset_visitor_pool")
        assert (outside / "precious").read_text() == "precious"

    def test_real_accounts_are_never_touched(self) -> None:
        User.objects.create_superuser("visitor-002", password="operator")
        User.objects.create_user("visitor-77", password="x")
        mine = self.root / "visitor-002"
        mine.mkdir()
        (mine / "file").write_text("the operator's")
        before = list(User.objects.order_by("pk").values())
        for command in (["create_visitor_pool"], ["reset_visitor_pool"], ["check_visitor_pool_health", "--fix"]):
            well, said = self.run_command(*command)
            assert (well, "visitor-002" in said) == (False, True), said
        assert [*User.objects.filter(pk__in=[row["id"] for row in before]).order_by("pk").values()] == before
        assert (mine / "file").read_text() == "the operator's"
        assert [self.whole(number) for number in (1, 3, 4)] == [True] * 3
        assert [self.visit()[1] for _ in range(3)] == [1, 3, 4]

    def test_a_slot_whose_account_became_an_operators_is_lent_to_nobody_and_kept(self) -> None:
        self.seed()
        browser, _ = self.visit()
        self.save(browser, "the operator's now")
        User.objects.filter(username="visitor-001").update(is_superuser=True)
        User.objects.filter(username="visitor-003").update(is_staff=True)  # no password fits either of them
        before = self.snapshot("visitor-001", "visitor-003")
        assert self.save(browser, "stolen") == 403
        assert [self.visit()[1] for _ in range(2)] == [2, 4]
        assert self.client.get("/writer/").status_code == 503
        for words in (["reset_visitor_pool", "--visitor", "3"], ["create_visitor_pool", "--size", "2"]):
            assert not self.run_command(*words)[0]
        assert self.snapshot("visitor-001", "visitor-003") == before
        assert self.row(1).state == "quarantined"  # for whoever lends slots by their rows alone
        assert User.objects.filter(Q(is_superuser=True) | Q(is_staff=True)).count() == 2

    def test_killed_while_making_or_cleaning_one_more_run_heals(self) -> None:
        for step in ("disk.build", "disk.put_away", "disk.sweep", "leases.free", "disk.has_workspace"):
            for call, when in ((1, "before"), (1, "after"), (3, "after")):
                for command in ("create_visitor_pool", "reset_visitor_pool"):
                    with self.subTest(step=step, call=call, when=when, command=command):
                        if command == "create_visitor_pool":
                            User.objects.all().delete()
                            VisitorAllocation.objects.all().delete()
                        with self.killed(f"studio.apps.visitors.{step}", call, when):
                            self.assertRaises(KilledError, self.run_command, command)
                        self.seed()
                        assert all(self.whole(number) for number in range(1, self.size + 1))
                        assert self.status()["Free"] == self.size
                        assert not (self.root / ".visitor-pool").exists()


class Repair(PoolCase):
    size = 3

    def setUp(self) -> None:
        super().setUp()
        self.seed()

    def parts(self, name: str) -> dict[str, Callable[[], object]]:
        marker = self.root / name / WRITER / "01_manuscript"
        number = int(name[-3:])
        return {
            "account": lambda: User.objects.filter(username=name).delete(),
            "project": lambda: Project.objects.filter(owner__username=name).delete(),
            "row": lambda: VisitorAllocation.objects.filter(visitor_number=number).delete(),
            "directory": lambda: shutil.rmtree(self.root / name, ignore_errors=True),
            "workspace": lambda: shutil.rmtree(self.root / name / WRITER, ignore_errors=True),
            "marker": lambda: shutil.rmtree(marker, ignore_errors=True),
            "flag": lambda: Project.objects.filter(owner__username=name).update(writer_initialized=False),
        }

    def test_whatever_is_missing_alone_or_in_pairs_is_found_named_and_made(self) -> None:
        others = ("visitor-001", "visitor-003")
        names = list(self.parts("visitor-002"))
        before = self.snapshot(*others)
        rows = list(VisitorAllocation.objects.exclude(visitor_number=2).order_by("pk").values())
        for missing in [(name,) for name in names] + list(itertools.combinations(names, 2)):
            with self.subTest(missing=missing):
                for name in missing:
                    self.parts("visitor-002")[name]()
                well, said = self.run_command("check_visitor_pool_health")
                assert (well, "visitor-002" in said) == (False, True)
                assert not any(other in said for other in others)
                well, said = self.run_command("check_visitor_pool_health", "--fix")
                assert well, said
                assert self.whole(2)
                assert self.status()["Free"] == 3
        assert self.snapshot(*others) == before
        assert list(VisitorAllocation.objects.exclude(visitor_number=2).order_by("pk").values()) == rows

    def test_checking_changes_nothing(self) -> None:
        self.parts("visitor-002")["workspace"]()
        before = self.snapshot()
        for command in (["check_visitor_pool_health"], ["create_visitor_pool", "--status"]):
            assert not self.run_command(*command)[0]
        assert self.snapshot() == before

    def test_only_what_a_visitor_lacks_is_made_while_the_lease_goes_on(self) -> None:
        browser, _ = self.visit()
        self.save(browser, "mine")
        self.parts("visitor-001")["marker"]()
        self.seed()
        assert self.whole(1)
        assert self.abstract("visitor-001") == "mine"
        self.parts("visitor-001")["directory"]()
        self.seed()
        assert self.whole(1)
        assert self.save(browser, "again") == 302

    def test_a_lease_without_an_account_is_nobodys(self) -> None:
        self.visit()
        self.parts("visitor-001")["account"]()
        assert self.status()["Allocated"] == 0
        self.seed()
        assert self.status() == {"Total slots": 3, "Allocated": 0, "Free": 3, "Expired": 0}

    def test_a_directory_of_unknown_contents_is_not_lent(self) -> None:
        left = self.root / "visitor-002/default-project/leftover.txt"
        left.write_text("whose?")
        self.parts("visitor-002")["row"]()
        self.seed()
        assert self.whole(2)
        assert not left.exists()


class Size(PoolCase):
    def visits(self, count: int) -> list[int]:
        answers = [self.client_class().get("/writer/").status_code for _ in range(count)]
        return [answers.count(200), answers.count(503)]

    def test_an_undersized_pool_serves_no_more_than_it_has(self) -> None:
        with override_settings(VISITOR_POOL_SIZE=3):
            self.seed()
            assert self.visits(5) == [3, 2]
        assert VisitorAllocation.objects.count() == 3

    def test_a_size_that_was_asked_for_goes_before_the_setting(self) -> None:
        self.seed("--size", "2")
        with self.assertLogs("studio.apps.visitors", "WARNING") as logs:
            assert self.visits(3) == [2, 1]
        assert "saturated" in logs.output[-1]
        assert self.run_command("create_visitor_pool", "--status")[0]
        assert self.run_command("check_visitor_pool_health")[0]
        self.seed()
        assert self.status() == {"Total slots": 2, "Allocated": 2, "Free": 0, "Expired": 0}
        assert VisitorAllocation.objects.count() == 2
        self.seed("--size", "3")
        assert self.visits(2) == [1, 1]

    def test_a_size_that_was_not_reached_is_reached_by_the_next_run(self) -> None:
        with self.killed("studio.apps.visitors.pool._enter"), self.assertRaises(KilledError):
            self.seed("--size", "6")
        assert not self.run_command("create_visitor_pool", "--status")[0]
        self.seed()
        assert self.status()["Free"] == 6

    def test_the_last_slot_that_is_gone_without_a_trace_is_missed(self) -> None:
        self.seed("--size", "6")
        VisitorAllocation.objects.filter(visitor_number=6).delete()
        User.objects.filter(username="visitor-006").delete()
        shutil.rmtree(self.root / "visitor-006")
        assert "visitor-006: nothing of it is there" in self.run_command("check_visitor_pool_health")[1]
        self.seed()
        assert self.whole(6)

    def test_growing_leaves_live_slots_alone_and_serves_the_next_visit(self) -> None:
        self.seed()
        for number in range(1, 5):
            assert self.save(self.visit()[0], f"visitor {number}") == 302
        before, rows = self.snapshot(), list(VisitorAllocation.objects.order_by("pk").values())
        self.seed("--size", "8")
        assert {name: seen for name, seen in self.snapshot().items() if name in before} == before
        assert list(VisitorAllocation.objects.order_by("pk").values())[:4] == rows
        assert self.visit()[1] == 5
        assert self.status() == {"Total slots": 8, "Allocated": 5, "Free": 3, "Expired": 0}
        self.seed()
        assert self.status()["Total slots"] == 8, "a restart has undone what an operator did"

    def test_shrinking_drains(self) -> None:
        self.seed("--size", "8")
        browsers = [self.visit()[0] for _ in range(7)]
        assert self.save(browsers[5], "still here") == 302
        VisitorAllocation.objects.filter(visitor_number=7).update(is_active=False)
        self.seed("--size", "4")
        assert self.status() == {"Total slots": 6, "Allocated": 6, "Free": 0, "Expired": 0}
        assert not (self.root / "visitor-007").exists()
        assert not (self.root / "visitor-008").exists()
        assert self.save(browsers[5], "and still") == 302
        self.expire(6)
        assert self.client.get("/writer/").status_code == 503
        assert not User.objects.filter(username="visitor-006").exists()
        assert not (self.root / "visitor-006").exists()
        assert self.status()["Total slots"] == 5
        self.seed("--size", "5")
        self.expire(5)
        assert self.visit()[1] == 5

    def test_a_slot_that_drains_is_not_lent_though_it_is_free(self) -> None:
        """As a module leaves it that has just shrunk the pool."""
        self.seed("--size", "2")
        User.objects.filter(username="visitor-001").update(is_active=False)
        assert self.visit()[1] == 2
        assert self.client.get("/writer/").status_code == 503

    def test_the_thousandth_slot_is_lent(self) -> None:
        self.seed("--size", "1")
        self.visit()
        account = User.objects.create_user("visitor-1000")
        Project.objects.create(owner=account, slug="default-project", name="default-project")
        now = timezone.now()
        VisitorAllocation.objects.create(
            visitor_number=1000, allocation_token="x", allocated_at=now, expires_at=now, is_active=False
        )
        assert self.visit()[1] == 1000

    def test_more_than_80_percent_is_crowded(self) -> None:
        self.seed("--size", "5")
        for _ in range(4):
            self.visit()
        assert "warning" not in self.run_command("check_visitor_pool_health")[1]
        self.visit()
        assert "warning" in self.run_command("check_visitor_pool_health")[1]

    def test_what_cannot_be_lent_makes_it_no_less_full(self) -> None:
        self.seed("--size", "5")
        VisitorAllocation.objects.filter(visitor_number=5).update(is_active=True, session_key=QUARANTINED)
        for _ in range(4):
            self.visit()
        assert "warning" in self.run_command("check_visitor_pool_health")[1]
