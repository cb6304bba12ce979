# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the visitor pool share: a data root of each test's own, and what rows and disk really hold."""

from __future__ import annotations

import hashlib
import io
import pkgutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client, TestCase, override_settings
from django.utils import timezone

from studio.apps.visitors.models import Project, VisitorAllocation

WRITER = "default-project/scitex/writer"
ABSTRACT = f"{WRITER}/sections/manuscript/abstract.tex"
FORM = {"username": "alice", "password": "correct horse battery"}


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of the code under test catches it."""


class PoolMixin:
    size = 4

    def setUp(self) -> None:
        super().setUp()
        folder = self.enterContext(tempfile.TemporaryDirectory(prefix="studio-users-"))
        self.root = Path(folder)
        self.enterContext(override_settings(VISITOR_DATA_ROOT=self.root, VISITOR_POOL_SIZE=self.size))

    def run_command(self, name: str, *words: str) -> tuple[bool, str]:
        """Whether it ended well, and all that it said."""
        said = io.StringIO()
        try:
            call_command(name, *words, stdout=said, stderr=said)
        except CommandError as error:
            return False, f"{said.getvalue()}{error}"
        return True, said.getvalue()

    def seed(self, *words: str) -> None:
        well, said = self.run_command("create_visitor_pool", *words)
        assert well, said

    def status(self) -> dict[str, int]:
        _, said = self.run_command("create_visitor_pool", "--status")
        return {
            name: int(number) for name, _, number in (line.partition(": ") for line in said.splitlines()[2:6]) if number
        }

    def row(self, number: int) -> VisitorAllocation:
        return VisitorAllocation.objects.get(visitor_number=number)

    def expire(self, number: int, seconds: float = 1) -> None:
        end = timezone.now() - timedelta(seconds=seconds)
        VisitorAllocation.objects.filter(visitor_number=number).update(expires_at=end)

    def visit(self, client: Client | None = None) -> tuple[Client, int]:
        """A browser, and the number of the slot that it was given."""
        client = client or self.client_class()
        response = client.get("/writer/")
        assert response.status_code == 200, response.content.decode()
        return client, self.number(client)

    def number(self, client: Client) -> int:
        return int(User.objects.get(pk=client.session["visitor_user_id"]).username.removeprefix("visitor-"))

    def save(self, client: Client, text: str, name: str = "abstract") -> int:
        return client.post("/writer/save", {f"section:{name}": text}).status_code

    def abstract(self, owner: str) -> str:
        return (self.root / owner / ABSTRACT).read_text()

    def whole(self, number: int) -> bool:
        """Every part of the slot, looked at one by one."""
        name = f"visitor-{number:03d}"
        marker = self.root / name / WRITER / "01_manuscript"
        return (
            Project.objects.filter(owner__username=name, slug="default-project", writer_initialized=True).count() == 1
            and not User.objects.get(username=name).has_usable_password()
            and VisitorAllocation.objects.filter(visitor_number=number).count() == 1
            and marker.is_dir()
            and any(marker.iterdir())
        )

    def snapshot(self, *names: str) -> dict[str, tuple[int, str]]:
        """Every file's time and content, below all of the data root or some of its directories."""
        tops = [self.root / name for name in names] or [self.root]
        return {
            str(path.relative_to(self.root)): (path.lstat().st_mtime_ns, _digest(path))
            for top in tops
            for path in sorted(top.rglob("*"))
        }

    def killed(self, target: str, call: int = 1, when: str = "before") -> Any:
        """SIGKILL just before or after the n-th call of a function."""
        module, _, name = target.rpartition(".")
        real, calls = getattr(pkgutil.resolve_name(module), name), []

        def counted(*arguments: Any, **more: Any) -> Any:
            calls.append(name)
            if len(calls) == call and when == "before":
                raise KilledError
            result = real(*arguments, **more)
            if len(calls) == call:
                raise KilledError
            return result

        return mock.patch(target, counted)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""


class PoolCase(PoolMixin, TestCase):
    pass


class Written(PoolCase):
    """A visitor has slot 1, and has written in it."""

    def setUp(self) -> None:
        super().setUp()
        self.seed()
        self.browser, _ = self.visit()
        self.save(self.browser, "my life's work")
        self.project = self.browser.session["visitor_project_id"]

    def sign_up(self) -> int:
        return self.browser.post("/writer/signup", FORM).status_code

    def bytes_of(self, owner: str) -> dict[str, tuple[int, int, bytes]]:
        top = self.root / owner / "default-project"
        return {
            str(path.relative_to(top)): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
            for path in top.rglob("*")
            if path.is_file()
        }
