# SPDX-License-Identifier: GPL-3.0-or-later
"""`reset_visitor_pool`: what it clears is really gone, what it is not asked for stays, and a whole pool is left."""

from __future__ import annotations

from unittest import mock

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import override_settings

from studio.apps.visitors import slots
from studio.apps.visitors.models import VisitorAllocation

from .visitors import ABSTRACT, PoolCase


class Reset(PoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.seed()
        self.browsers = [self.visit()[0] for _ in range(3)]
        for browser in self.browsers:
            self.save(browser, "private")
        (self.root / "visitor-002" / "leftover.txt").write_text("private")

    def test_it_really_clears_and_leaves_a_whole_pool(self) -> None:
        person = User.objects.create_superuser("admin", password="x")
        well, said = self.run_command("reset_visitor_pool")
        assert well, said
        assert all(self.whole(number) for number in range(1, self.size + 1))
        assert self.status() == {"Total slots": 4, "Allocated": 0, "Free": 4, "Expired": 0}
        assert not [path for path in self.root.rglob("*") if path.is_file() and "private" in path.read_text()]
        assert [self.save(browser, "late") for browser in self.browsers] == [403] * 3
        assert User.objects.get(pk=person.pk).is_superuser

    def test_one_slot_or_the_expired_ones_and_no_other(self) -> None:
        kept = self.snapshot("visitor-001", "visitor-003", "visitor-004")
        assert self.run_command("reset_visitor_pool", "--visitor", "2")[0]
        assert self.snapshot("visitor-001", "visitor-003", "visitor-004") == kept
        assert not (self.root / "visitor-002" / "leftover.txt").exists()
        self.expire(3)
        kept = self.snapshot("visitor-001", "visitor-002", "visitor-004")
        well, said = self.run_command("reset_visitor_pool", "--expired")
        assert (well, "cleared: 1" in said) == (True, True)
        assert self.snapshot("visitor-001", "visitor-002", "visitor-004") == kept
        assert "private" not in self.abstract("visitor-003")
        assert "cleared: 0" in self.run_command("reset_visitor_pool", "--expired")[1]

    def test_a_bad_number_fails_and_changes_nothing(self) -> None:
        before = self.snapshot()
        for number in ("99", "0", "-1", "x", "2.5", ""):
            with self.subTest(number):
                assert not self.run_command("reset_visitor_pool", f"--visitor={number}")[0]
        for number in ("0", "-1", "x", "2.5", "", str(2**31)):
            with self.subTest(size=number):
                well, said = self.run_command("create_visitor_pool", f"--size={number}")
                assert (well, "is no number" in said) == (False, True)
        assert self.snapshot() == before

    @override_settings(PRODUCTION=True)
    def test_production_is_refused_without_force(self) -> None:
        before = self.snapshot()
        for words in ([], ["--visitor", "1"]):
            well, said = self.run_command("reset_visitor_pool", *words)
            assert (well, "--force" in said) == (False, True)
        assert self.snapshot() == before
        assert self.run_command("reset_visitor_pool", "--expired")[0]
        assert self.snapshot() == before
        assert self.run_command("reset_visitor_pool", "--force")[0]
        assert "private" not in self.abstract("visitor-001")

    @override_settings(PRODUCTION=True)
    def test_a_dry_run_says_what_would_be_cleared_and_changes_nothing(self) -> None:
        self.expire(3)
        Session.objects.get(session_key=self.row(2).session_key).delete()
        for words, meant in (
            ([], ["001: leased", "002: leased", "003: expired", "004: free"]),
            (["--visitor", "2"], ["002: leased"]),
            (["--expired"], ["002: leased", "003: expired"]),
        ):
            before = (self.snapshot(), list(VisitorAllocation.objects.order_by("pk").values()))
            well, said = self.run_command("reset_visitor_pool", "--dry-run", *words)
            assert (self.snapshot(), list(VisitorAllocation.objects.order_by("pk").values())) == before
            told = [line for line in said.splitlines() if line.startswith("would clear")]
            assert (well, told) == (True, [f"would clear  visitor-{each}" for each in meant])
        assert "cleared: 2" in self.run_command("reset_visitor_pool", "--expired")[1], "what was foretold"
        assert not self.run_command("reset_visitor_pool", "--dry-run", "--visitor", "99")[0]

    def test_after_all_was_deleted_it_ends_with_a_pool(self) -> None:
        User.objects.all().delete()
        VisitorAllocation.objects.all().delete()
        assert self.run_command("reset_visitor_pool")[0]
        assert self.status()["Free"] == self.size
        assert "private" not in (self.root / "visitor-001" / ABSTRACT).read_text()

    def test_a_slot_that_cannot_be_cleared_is_kept_back_and_said(self) -> None:
        with mock.patch.object(slots.disk, "put_away", side_effect=OSError("busy")):
            well, said = self.run_command("reset_visitor_pool", "--visitor", "1")
        assert (well, "visitor-001" in said) == (False, True)
        assert self.row(1).state == "quarantined"
        assert self.visit()[1] == 4
        assert self.run_command("check_visitor_pool_health", "--fix")[0]
        assert self.row(1).state == "free"
