# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, modes and links at the edges of a workspace, and slots that are somebody else's by the time of a change."""

from __future__ import annotations

import os
import pkgutil
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from django.conf import settings
from django.test import override_settings

from studio.apps.visitors import disk, handover, leases, sections, slots, visits
from studio.apps.visitors.limits import QUARANTINED
from studio.apps.visitors.models import VisitorAllocation

from .visitors import ABSTRACT, WRITER, KilledError, PoolCase, Written


class Names(PoolCase):
    def test_a_name_that_leads_elsewhere_is_no_directory_and_no_section(self) -> None:
        for name in ("../x", "..", ".", ".visitor-pool", "a/b", "/etc", "", "a\x00"):
            with self.subTest(name), self.assertRaises(ValueError):
                disk.home(name)
        with tempfile.TemporaryDirectory() as top:
            folder = os.open(top, os.O_RDONLY)
            for name in ("../passwd", "..", "a/b", "", "A"):
                with self.subTest(name), self.assertRaises(ValueError):
                    sections.read(folder, name)
                with self.subTest(name), self.assertRaises(ValueError):
                    sections.write(folder, {name: "x"}, [])
            os.close(folder)


class Links(Written):
    def test_what_a_section_links_to_is_not_shown(self) -> None:
        secret = self.root / "secret"
        secret.write_text("somebody else's")
        section = self.root / "visitor-001" / ABSTRACT
        section.unlink()
        section.symlink_to(secret)
        page = self.browser.get("/writer/")
        self.assertNotContains(page, "somebody else", status_code=503)

    def test_what_a_template_links_to_keeps_its_owner_and_mode(self) -> None:
        top = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (top / "outside").write_text("x")
        (top / "outside").chmod(0o400)
        shutil.copytree(settings.VISITOR_TEMPLATE, top / "template")
        (top / "template/link").symlink_to(top / "outside")
        with override_settings(VISITOR_TEMPLATE=top / "template"):
            well, said = self.run_command("reset_visitor_pool")
        assert well, said
        assert (self.root / "visitor-001/default-project/scitex/writer/link").is_symlink()
        assert (top / "outside").stat().st_mode & 0o777 == 0o400

    def test_nothing_is_settled_by_another_name_of_an_account(self) -> None:
        """Killed after the commit: the work is the account's, and the mark is still there."""
        mine, lease = self.bytes_of("visitor-001"), leases.held(self.browser.session)
        assert lease is not None
        with self.killed("studio.apps.visitors.slots.finish"), self.assertRaises(KilledError):
            handover.sign_up("alice", "x", lease)
        (self.root / "alias").symlink_to("alice")
        self.run_command("check_visitor_pool_health", "--fix")
        assert self.bytes_of("alice") == mine
        assert not (self.root / "alice/.from-visitor-001").exists()


class Files(Written):
    def test_a_section_keeps_its_mode_and_is_on_the_disk_before_it_has_its_name(self) -> None:
        section = self.root / "visitor-001" / ABSTRACT
        section.chmod(0o604)
        done: list[str] = []

        def noting(name: str) -> object:
            real = getattr(os, name)

            def note(*words: object, **more: object) -> object:
                done.append(name)
                return real(*words, **more)

            return mock.patch.object(os, name, note)

        with noting("fsync"), noting("rename"):
            assert self.save(self.browser, "kept") == 302
        assert done == ["fsync", "rename"]
        assert section.stat().st_mode & 0o777 == 0o604


class Left(PoolCase):
    def test_an_empty_file_where_the_marker_should_be_is_no_workspace(self) -> None:
        self.seed()
        marker = self.root / "visitor-001" / WRITER / "01_manuscript"
        shutil.rmtree(marker)
        marker.touch()
        well, said = self.run_command("check_visitor_pool_health")
        assert not well
        assert "visitor-001: its workspace is missing" in said

    def test_what_others_build_is_theirs_for_an_hour(self) -> None:
        self.seed()
        (self.root / ".visitor-pool/app-visitor-001.somebodys").mkdir(parents=True)
        with mock.patch.object(disk.time, "time", return_value=time.time() + 3500):
            self.seed()
            assert os.listdir(self.root / ".visitor-pool") == ["app-visitor-001.somebodys"]
        with mock.patch.object(disk.time, "time", return_value=time.time() + 3700):
            self.seed()
        assert not (self.root / ".visitor-pool").exists()


class Power(Written):
    """Who loses power finds what was synced, and a commit is."""

    def order(self, *, watched: str) -> list[str]:
        """What is done until `watched` tells the database: names that are given, and what is synced."""
        done: list[str] = []
        rename, fsync, tell = os.rename, os.fsync, pkgutil.resolve_name(watched)

        def renamed(old: object, new: object, **keys: Any) -> None:
            rename(old, new, **keys)
            done.append(f"now {Path(str(new)).relative_to(self.root)}")

        def synced(what: int) -> None:
            fsync(what)
            done.append(f"synced {Path(os.readlink(f'/proc/self/fd/{what}')).relative_to(self.root)}")

        def told(*words: Any, **keys: Any) -> Any:
            done.append("told")
            return tell(*words, **keys)

        self.enterContext(mock.patch.object(os, "rename", renamed))
        self.enterContext(mock.patch.object(os, "fsync", synced))
        self.enterContext(mock.patch(watched, told))
        return done

    def test_a_slot_is_cleared_on_the_disk_before_it_is_offered(self) -> None:
        done = self.order(watched="studio.apps.visitors.leases.free")
        assert slots.renew(1)
        assert done[done.index("now visitor-001") :] == ["now visitor-001", "synced .", "told"]

    def test_a_project_is_in_its_new_place_before_its_slot_is_cleared(self) -> None:
        done = self.order(watched="studio.apps.visitors.slots.finish")
        assert self.sign_up() == 302
        moved = ["now alice/default-project", "synced alice", "synced visitor-001", "told"]
        assert done[: len(moved)] == moved


class SomebodyElses(Written):
    """Between two looks the slot has been cleaned and lent again: what the first request does is not done to it."""

    def setUp(self) -> None:
        super().setUp()
        lease = leases.held(self.browser.session)
        assert lease is not None
        self.lease = lease
        self.rows = VisitorAllocation.objects.filter(visitor_number=1)

    def lent(self, *_words: object, **_more: object) -> None:
        self.rows.update(session_key="the next", allocation_token=leases.digest("theirs"))

    def test_it_is_not_given_back(self) -> None:
        self.lent()
        visits.give_back(self.lease)
        assert self.row(1).session_key == "the next"
        assert self.abstract("visitor-001") == "my life's work"

    def test_it_is_not_quarantined(self) -> None:
        def fails(*_words: object) -> None:
            self.lent()
            raise OSError("stuck")

        with (
            mock.patch.object(disk, "has_workspace", return_value=False),
            mock.patch("studio.apps.visitors.slots.mend", fails),
        ):
            assert not visits.usable(self.lease)
        assert (self.row(1).session_key, QUARANTINED in self.row(2).session_key) == ("the next", False)
