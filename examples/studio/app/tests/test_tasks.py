# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.test import TestCase
from django.utils import timezone

from studio.apps.tasks import queue
from studio.apps.tasks.limits import MAX_ATTEMPTS
from studio.apps.tasks.management.commands.worker import Command
from studio.apps.tasks.models import Task


def worker() -> Command:
    command = Command()
    command.prepare("w1")
    return command


class Page(TestCase):
    def test_a_task_goes_from_the_form_to_the_page(self) -> None:
        self.assertRedirects(self.client.post("/tasks/", {"kind": "checksum", "payload": "hello"}), "/")
        task = queue.claim("w1")
        assert task is not None
        worker().work(task)
        self.assertContains(self.client.get("/"), "2cf24dba5fb0")

    def test_wrong_input_is_explained_and_not_queued(self) -> None:
        for payload in ("999", "0", "-1", "²", "soon", ""):
            with self.subTest(payload=payload):
                response = self.client.post("/tasks/", {"kind": "countdown", "payload": payload})
                assert response.status_code == 422
        assert not Task.objects.exists()

    def test_what_was_pasted_is_shown_as_text(self) -> None:
        task = queue.enqueue("chart", "<script>alert(1)</script>")
        self.assertNotContains(self.client.get(f"/tasks/{task.pk}"), "<script>alert")


class Queue(TestCase):
    def test_oldest_first_each_once(self) -> None:
        first, second = queue.enqueue("checksum", "a"), queue.enqueue("checksum", "b")
        assert [queue.claim("w1"), queue.claim("w2"), queue.claim("w3")] == [first, second, None]

    def test_a_dead_workers_task_is_taken_over_then_given_up(self) -> None:
        task = queue.enqueue("checksum", "a")
        for _ in range(MAX_ATTEMPTS):
            assert queue.claim("w1") == task
            Task.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
        assert queue.claim("w1") is None
        task.refresh_from_db()
        assert task.state == Task.State.FAILED

    def test_a_stopping_worker_gives_its_task_back(self) -> None:
        queue.enqueue("countdown", "5")
        command, task = worker(), queue.claim("w1")
        assert task is not None
        command.stopping.set()
        command.work(task)
        task.refresh_from_db()
        assert (task.state, task.attempts) == (Task.State.QUEUED, 0)

    def test_a_chart_is_a_file_that_names_the_words(self) -> None:
        queue.enqueue("chart", "ship ship shape")
        task = queue.claim("w1")
        assert task is not None
        worker().work(task)
        assert ">ship<" in (settings.MEDIA_ROOT / task.artifact).read_text()

    def test_a_text_without_words_fails_with_a_reason(self) -> None:
        queue.enqueue("chart", "1 2 3")
        task = queue.claim("w1")
        assert task is not None
        worker().work(task)
        assert (task.state, task.result) == ("failed", "the text has no word of three letters or more")
