# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from unittest import mock

from django.contrib.auth.models import User
from django.db import OperationalError
from django.db.migrations.recorder import MigrationRecorder

from studio.apps.core import health
from studio.apps.tasks import queue
from studio.apps.visitors.models import VisitorAllocation

from .visitors import PoolCase


class Healthz(PoolCase):
    def checks(self, status: int) -> dict[str, dict[str, object]]:
        response = self.client.get("/healthz")
        assert response.status_code == status
        return {check["name"]: check for check in response.json()["checks"]} | {"": response.json()}

    def test_ok_when_everything_answers(self) -> None:
        queue.beat("w1")
        self.seed()
        assert self.checks(200)[""]["status"] == "ok"

    def test_a_missing_worker_degrades_and_is_named(self) -> None:
        seen = self.checks(200)
        assert seen[""]["status"] == "degraded"
        assert not seen["worker"]["ok"]

    def test_an_unapplied_migration_is_critical(self) -> None:
        MigrationRecorder.Migration.objects.filter(app="tasks", name="0001_initial").delete()
        seen = self.checks(503)
        assert "tasks.0001_initial" in str(seen["migrations"]["detail"])

    def test_a_lost_database_is_down_and_tells_no_secret(self) -> None:
        error = OperationalError("password hunter2 refused")
        with mock.patch.object(health.connection, "cursor", side_effect=error):
            response = self.client.get("/healthz")
        assert (response.status_code, response.json()["status"]) == (503, "down")
        assert "hunter2" not in response.content.decode()

    def test_plain_text_begins_with_the_verdict(self) -> None:
        response = self.client.get("/healthz", headers={"Accept": "text/plain"})
        assert response.content.decode().splitlines()[0] == "degraded"


class Visitors(PoolCase):
    def seen(self) -> tuple[bool, str]:
        check = next(check for check in health.look()[1] if check.name == "visitors")
        assert not check.critical
        assert check.ok == (self.client_class().get("/writer/").status_code == 200), check
        return check.ok, check.detail

    def test_without_any_slot_the_pool_is_unprovisioned(self) -> None:
        well, said = self.seen()
        assert (well, "unprovisioned" in said) == (False, True)

    def test_the_figures_are_those_of_the_rows(self) -> None:
        self.seed()
        browser, _ = self.visit()
        for _ in range(2):
            self.visit()
        assert next(c.detail for c in health.look()[1] if c.name == "visitors") == "3 lent, 1 free, 0 quarantined"
        self.expire(2)
        VisitorAllocation.objects.filter(visitor_number__in=(3, 4)).update(
            is_active=True, session_key="shipshape:quarantined"
        )
        said = "1 lent, 0 free, 2 quarantined, 1 to be cleaned"
        assert next(c.detail for c in health.look()[1] if c.name == "visitors") == said
        assert browser.get("/writer/").status_code == 200

    def test_rows_without_accounts_let_nobody_in(self) -> None:
        self.seed()
        assert self.seen() == (True, "0 lent, 4 free, 0 quarantined")
        self.run_command("reset_visitor_pool")
        User.objects.all().delete()
        well, said = self.seen()
        assert (well, "0 lent, 0 free, 0 quarantined" in said) == (False, True)
