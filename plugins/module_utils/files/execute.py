# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program with an end to it: bounded in time, in output, and in how often a busy file is tried again."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from ..report.finding import failure
from .busy import busy

# Of each stream this much from its beginning and its end is kept.
_HEAD, _TAIL = 16 * 1024, 48 * 1024
_READ = 64 * 1024
_TERM_GRACE = 5.0
# A daemon that the program left in the background may keep the streams open for ever: its output is not waited for.
_DRAIN = 0.2


@dataclass(frozen=True)
class Outcome:
    rc: int
    stdout: str
    stderr: str
    timed_out: bool = False

    def last_lines(self, count: int = 10) -> list[str]:
        """What it said last: errors if it said any, otherwise its output."""
        return (self.stderr.strip() or self.stdout.strip()).splitlines()[-count:]


class _Bounded:
    """Keeps the beginning and the end of a stream."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self._dropped = 0

    def add(self, data: bytes) -> None:
        room = _HEAD - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room < len(data) else b""
        excess = len(self._tail) - _TAIL
        if excess > 0:
            self._dropped += excess
            self._tail = self._tail[excess:]

    def text(self) -> str:
        gap = f"\n[... {self._dropped} bytes left out ...]\n".encode() if self._dropped else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")


def execute(
    command: Sequence[str], *, timeout: float, cwd: str, stdin: IO[bytes] | None = None, busy_timeout: float = 0
) -> Outcome:
    """Runs `command` to its end. While its file is open for writing elsewhere (ETXTBSY) it is tried again."""
    process = _start(command, cwd, stdin, busy_timeout)
    outputs = [(stream, _Bounded()) for stream in (process.stdout, process.stderr) if stream is not None]
    deadline = time.monotonic() + timeout
    try:
        with selectors.DefaultSelector() as selector:
            for stream, output in outputs:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ, output)
            timed_out = not _pump(process, selector, deadline)
            if timed_out:
                _stop(process)
            _pump(process, selector, time.monotonic() + _DRAIN)
    except BaseException:
        _signal_group(process, signal.SIGKILL)
        process.wait()
        raise
    finally:
        for stream, _output in outputs:
            stream.close()
    stdout, stderr = (output.text() for _stream, output in outputs)
    return Outcome(process.returncode, stdout, stderr, timed_out)


def _start(command: Sequence[str], cwd: str, stdin: IO[bytes] | None, busy_timeout: float) -> subprocess.Popen[bytes]:
    deadline = time.monotonic() + busy_timeout
    pause = 0.01
    while True:
        try:
            return subprocess.Popen(
                command,
                bufsize=0,
                cwd=cwd,
                stdin=stdin or subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that a time-out reaches its children too
            )
        except OSError as error:
            if error.errno != errno.ETXTBSY:
                raise
            if time.monotonic() >= deadline:
                raise busy(command[0], busy_timeout) from error
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


def _pump(process: subprocess.Popen[bytes], selector: selectors.BaseSelector, deadline: float) -> bool:
    """Reads until the process has ended and its streams are read, or until the deadline: False."""
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        ready = selector.select(0 if ended else min(0.05, max(0.0, deadline - time.monotonic())))
        for key, _events in ready:
            data = os.read(key.fd, _READ)
            if data:
                key.data.add(data)
            else:
                selector.unregister(key.fileobj)
        if ended and not ready:
            return True
        if not selector.get_map():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            return process.poll() is not None
    return process.poll() is not None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the program and its children: politely first."""
    _signal_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_TERM_GRACE)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def explain_start(dest: str, error: OSError) -> Exception:
    """Why the kernel would not start the script that was just placed."""
    reasons = {
        errno.EACCES: ("not-executable", "it may not be executed", "Give it a mode with x, on a mount without noexec"),
        errno.EPERM: ("not-executable", "it may not be executed", "Give it a mode with x, on a mount without noexec"),
        errno.ENOENT: ("interpreter-missing", "its interpreter does not exist", "Install the interpreter"),
        errno.ENOEXEC: (
            "no-interpreter",
            "the kernel does not know this format",
            "Begin it with #! and an interpreter",
        ),
    }
    other = ("run-failed", f"the system says: {error.strerror}", "Look at the machine's limits and kernel log")
    code, what, remedy = reasons.get(error.errno or 0, other)
    return failure(dest, code, f"it was placed but could not be started: {what}", remedy)
