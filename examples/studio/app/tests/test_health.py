# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from unittest import mock

from django.db import OperationalError
from django.db.migrations.recorder import MigrationRecorder
from django.test import TestCase

from studio.apps.core import health
from studio.apps.tasks import queue


class Healthz(TestCase):
    def checks(self, status: int) -> dict[str, dict[str, object]]:
        response = self.client.get("/healthz")
        assert response.status_code == status
        return {check["name"]: check for check in response.json()["checks"]} | {"": response.json()}

    def test_ok_when_everything_answers(self) -> None:
        queue.beat("w1")
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
