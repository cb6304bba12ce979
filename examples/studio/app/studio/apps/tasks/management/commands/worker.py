# SPDX-License-Identifier: GPL-3.0-or-later
"""`manage.py worker`: empties the queue until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import DatabaseError, connection

from studio.apps.tasks import queue
from studio.apps.tasks.handlers import HANDLERS, UnusableError
from studio.apps.tasks.limits import POLL_SECONDS
from studio.apps.tasks.models import Task
from studio.apps.visitors import pool

log = logging.getLogger("studio.worker")


class StoppingError(Exception):
    """The container is being stopped; what is unfinished goes back into the queue."""


class Command(BaseCommand):
    help = "Work on queued tasks until SIGTERM."
    # The migrate service has checked the schema before this starts; a second look would only delay it.
    requires_system_checks: list[str] = []

    def prepare(self, name: str) -> None:
        self.name = name
        self.beat_file = Path(os.environ.get("STUDIO_HEARTBEAT", "/tmp/worker-heartbeat"))
        self.stopping = threading.Event()
        self.beaten = self.kept_up = float("-inf")

    def handle(self, *_args: Any, **_options: Any) -> None:
        self.prepare(socket.gethostname())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        log.info("worker %s started", self.name)
        while not self.stopping.is_set():
            try:
                self.beat()
                task = queue.claim(self.name)
                if task is not None:
                    self.work(task)
                    continue
                self.keep_up()
            except DatabaseError as error:
                # Not fatal: the database may be restarting. The heartbeat grows old meanwhile, and health says so.
                log.warning("database: %s", error)
                connection.close()
            self.stopping.wait(POLL_SECONDS)
        log.info("worker %s stopped", self.name)

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping.set()

    def beat(self) -> None:
        """The row tells the site, the file tells the container's healthcheck; the file only after the row."""
        if time.monotonic() - self.beaten < 2 * POLL_SECONDS:
            return
        queue.beat(self.name)
        self.beat_file.touch()
        self.beaten = time.monotonic()

    def keep_up(self) -> None:
        """Visitors' work whose time is over goes by itself, also while nobody visits."""
        if time.monotonic() - self.kept_up < settings.VISITOR_UPKEEP.total_seconds():
            return
        self.kept_up = time.monotonic()

        def between() -> None:
            if self.stopping.is_set():
                raise StoppingError
            self.beat()

        try:
            pool.keep_up(between)
        except StoppingError:
            log.info("upkeep left unfinished, this worker is stopping")
        except OSError as error:
            log.error("upkeep: %s", error)

    def work(self, task: Task) -> None:
        def tick() -> None:
            if self.stopping.is_set():
                raise StoppingError
            queue.renew(task)
            self.beat()

        log.info("%s: started (attempt %d)", task, task.attempts)
        try:
            outcome = HANDLERS[task.kind](task, tick)
        except StoppingError:
            queue.give_back(task)
            log.info("%s: given back, this worker is stopping", task)
        except UnusableError as reason:
            queue.finish(task, Task.State.FAILED, str(reason))
            log.info("%s: failed: %s", task, reason)
        except DatabaseError:
            raise  # the lease runs out, and a worker with a database takes the task again
        except Exception as error:
            queue.finish(task, Task.State.FAILED, f"{type(error).__name__}: {error}")
            log.exception("%s: failed", task)
        else:
            queue.finish(task, Task.State.DONE, outcome.result, outcome.artifact)
            log.info("%s: done", task)
