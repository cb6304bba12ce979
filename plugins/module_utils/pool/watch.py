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
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
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
        def wait(self, steps: Generator[Any, Any, Any], *words: Any, **options: Any) -> Any:
            with _Watch(self.fileno(), lambda: lets_in(self.info)):
                return super().wait(steps, *words, **options)

    return Watched


class _Watch:
    """Looks after PATIENCE whether the server lives, again and again; hangs up when it does not."""

    def __init__(self, descriptor: int, lives: Callable[[], bool]) -> None:
        self._descriptor, self._lives = descriptor, lives
        self._over, self._turn = threading.Event(), threading.Lock()
        self._timer = threading.Timer(PATIENCE, self._look)
        self._timer.daemon = True

    def __enter__(self) -> None:
        with suppress(RuntimeError):  # where no thread can be had it is waited without end, as it always was
            self._timer.start()

    def __exit__(self, *_error: object) -> None:
        with self._turn:  # afterwards the descriptor may be another connection's
            self._over.set()
        self._timer.cancel()

    def _look(self) -> None:
        while not self._over.is_set():
            if self._lives():
                self._over.wait(PATIENCE)
                continue
            with self._turn:
                if not self._over.is_set():
                    self._hang_up()
            return

    def _hang_up(self) -> None:
        """Whoever waits on it is told that the connection has ended."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as ended:
            ended.shutdown(socket.SHUT_RDWR)
