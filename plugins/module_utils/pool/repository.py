# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A branch or tag of a git repository, kept on this machine: what was there last is used when its server is down.

In its directory of the cache are `git`, which has the commits, and a directory of files for each commit. The file
`current` names the one to use, so that a fetch or checkout that ends half-way changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..engine.lock import directory_locked
from ..report.finding import failure
from ..report.result import Report
from .origin import Run, Source

_PATIENCE = 300.0  # seconds for another run to fetch the same
_NO_SUCH_REF = 2  # of git ls-remote
_FETCHED = "refs/shipshape"
# What git asks for a login. The arguments of a process can be read by everybody, its environment cannot.
_HELPER = (
    '!f() { test "$1" = get && printf \'username=%s\\npassword=%s\\n\' "$POOL_GIT_USER" "$POOL_GIT_PASSWORD"; }; f'
)


class Repository:
    def __init__(self, origin: Source, run: Run, cache: str, report: Report) -> None:
        key = hashlib.sha256(f"{origin.place} {origin.ref}".encode()).hexdigest()[:16]
        self._source, self._run, self._report = origin, run, report
        self._folder = os.path.join(cache, key)

    @property
    def settled(self) -> bool:
        """Whether it is here and stays as it is: a tag is fetched once."""
        return bool(self._source.tag and self._current())

    def check(self) -> None:
        """Writes nothing: asks whether the server has the branch or tag. Raises when it has not and none is here."""
        ref = self._source.ref
        code, _out, err = self._git(["ls-remote", "--quiet", "--exit-code", "--", self._source.place, ref])
        if code:
            self._not_fetched(err or ("there is none" if code == _NO_SUCH_REF else ""))

    @contextmanager
    def checkout(self) -> Iterator[str]:
        """The directory of its files, which stays while the body runs. A branch is fetched each time, unless its server
        is down and an older state of it is here."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with directory_locked(descriptor, self._folder, _PATIENCE):
                if not self.settled:
                    err = self._fetch()
                    if err is not None:
                        self._not_fetched(err)
                yield self._current()
        finally:
            os.close(descriptor)

    def _fetch(self) -> str | None:
        """Makes what the server has the current one; None, or why that did not work."""
        bare, new = os.path.join(self._folder, "git"), os.path.join(self._folder, "new")
        there, ref = f"--git-dir={bare}", f"+{self._source.ref}:{_FETCHED}"
        commit, err = self._all(
            ["init", "--quiet", "--bare", bare],
            [there, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", self._source.place, ref],
            [there, "rev-parse", "--verify", "--quiet", f"{_FETCHED}^{{commit}}"],
        )
        if err is not None:
            return err
        place = os.path.join(self._folder, commit.strip())
        if place == self._current():
            return None
        for left in (new, place):  # by who was killed
            shutil.rmtree(left, ignore_errors=True)
        os.mkdir(new)
        _out, err = self._all(
            [there, "read-tree", _FETCHED],
            [there, f"--work-tree={new}", "checkout-index", "--quiet", "--all", "--force"],
        )
        if err is None:
            os.rename(new, place)
            self._use(os.path.basename(place))
        return err

    def _use(self, commit: str) -> None:
        entry = os.path.join(self._folder, "current.new")
        with open(entry, "w", encoding="ascii") as stream:
            stream.write(commit)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(entry, os.path.join(self._folder, "current"))
        for name in os.listdir(self._folder):
            if name not in ("git", "current", commit):
                shutil.rmtree(os.path.join(self._folder, name), ignore_errors=True)

    def _all(self, *steps: Sequence[str]) -> tuple[str, str | None]:
        """What the last one says; and what went wrong, or None."""
        out = ""
        for step in steps:
            code, out, err = self._git(step, self._folder)
            if code:
                return out, err
        return out, None

    def _current(self) -> str:
        """The directory of what was fetched last; '' when there is none."""
        try:
            with open(os.path.join(self._folder, "current"), encoding="ascii") as stream:
                place = os.path.join(self._folder, stream.read().strip())
        except FileNotFoundError:
            return ""
        return place if os.path.isdir(place) else ""

    def _git(self, step: Sequence[str], folder: str = "/") -> tuple[int, str, str]:
        options = ["-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null"]
        environment = {}
        if self._source.login is not None:
            # Only that host is told, also when it sends us to another one.
            options += ["-c", "credential.helper=", "-c", f"credential.{self._source.host}.helper={_HELPER}"]
            environment = dict(zip(("POOL_GIT_USER", "POOL_GIT_PASSWORD"), self._source.login))
        try:
            return self._run(["git", "-C", folder, *options, *step], environment)
        except OSError as error:
            return 1, "", f"git cannot be run: {error.strerror or error}"

    def _not_fetched(self, err: str) -> None:
        """Raises, unless an older state of it is here, which then is used."""
        words = " ".join(err.split()) or "git said nothing"
        what = f"{self._source.ref} could not be fetched: {words}"
        problem = failure(self._source.place, "template-not-fetched", what, "Check URL, branch or tag, and the login")
        if not self._current():
            raise problem
        self._report.warn(problem)
