# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that is stopped while its machine goes on (`docker pause`, a frozen virtual disk) is waited for without end:
the kernel goes on answering for it. Whoever has waited long looks whether it lets anybody else in."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

PATIENCE = 30.0  # seconds that a statement may take before the server is looked at, and between two looks
LOGIN = 10  # seconds that it has for a login


def watched(base: type[Any], keywords: Mapping[str, Any]) -> type[Any]:
    """psycopg's class of connections `base`, made so that waiting ends when the server does not answer others either.
    A statement that only takes long, because somebody has locked a table, is not disturbed."""

    def lets_in(info: Any) -> bool:
        """Whether the server of a connection says anything at all within its time; a refusal is an answer, too. It is
        the very one that is asked: of several, another may have taken over."""
        begun = time.monotonic()
        try:
            same = {"host": info.host, "hostaddr": info.hostaddr, "port": info.port}
            base.connect(**{**keywords, **same, "connect_timeout": LOGIN}).close()
        except Exception:
            return time.monotonic() - begun < LOGIN - 1
        return True

    class Watched(base):  # type: ignore[misc]
        _watch: _Watch | None = None

        def wait(self, steps: Generator[Any, Any, Any], *words: Any, **options: Any) -> Any:
            if self._watch is None:
                self._watch = _Watch(lambda: lets_in(self.info))
            with self._watch.over(self.fileno()):
                return super().wait(steps, *words, **options)

        def close(self) -> None:
            if self._watch is not None:
                self._watch.end()
            super().close()

    return Watched


class _Watch:
    """Looks after PATIENCE whether the server lives, again and again; hangs up when it does not. One thread looks after
    all that a connection is waited for: to start one takes longer than most statements."""

    def __init__(self, lives: Callable[[], bool]) -> None:
        self._lives = lives
        self._turn, self._ended = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._waits = 0  # how often it was waited
        self._descriptor: int | None = None  # of what is waited for now
        self._next = 0.0  # when to look

    @contextmanager
    def over(self, descriptor: int) -> Iterator[None]:
        with self._turn:
            self._waits += 1
            self._descriptor, self._next = descriptor, time.monotonic() + PATIENCE
        if self._thread is None:
            with suppress(RuntimeError):  # where no thread can be had it is waited without end, as it always was
                thread = threading.Thread(target=self._look, daemon=True)
                thread.start()
                self._thread = thread
        try:
            yield
        finally:
            with self._turn:  # afterwards the descriptor may be another connection's
                self._descriptor = None

    def end(self) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(self._left()):
            with self._turn:
                waits = self._waits
                if self._descriptor is None or self._next > time.monotonic():
                    continue
            lives = self._lives()
            with self._turn:
                if self._waits != waits or self._descriptor is None:
                    continue
                if not lives:
                    self._hang_up(self._descriptor)
                    return
                self._next = time.monotonic() + PATIENCE

    def _left(self) -> float:
        """Until the next look; of what is begun meanwhile the look is later."""
        with self._turn:
            return PATIENCE if self._descriptor is None else max(0.0, self._next - time.monotonic())

    def _hang_up(self, descriptor: int) -> None:
        """Whoever waits on it is told that the connection has ended."""
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as ended:
            ended.shutdown(socket.SHUT_RDWR)
