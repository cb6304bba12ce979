# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes a PostgreSQL role's password in the server, the env files and the containers, and can be killed at any step.

In order: the new password is tried in a transaction that is rolled back; old and new are written to a journal beside
the env file; the role gets the new one; a login proves it; the env files are rewritten; the services that use it are
recreated by the converger of `stack`; every login is verified and the old password refused; the journal goes. Each step
looks first whether it is still to be done, so a second run finishes what a first has begun. When the services do not
come up with the new password, the old one is put back everywhere.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..engine.lock import locked
from ..engine.model import Project, project_from
from ..engine.order import Order
from ..engine.resolve import resolved
from ..engine.stack import Stack
from ..report.finding import CRITICAL, Finding, ShipshapeError, failure
from ..report.result import Report
from . import journal
from .journal import Journal
from .login import OK, REFUSED, UNREACHABLE, Login, log_in, need, postgresql
from .rotate_plan import (
    Target,
    Wish,
    Work,
    acceptable,
    account,
    changes,
    journal_place,
    not_one,
    password_in,
    reaches,
    refused,
    texts,
    users,
)
from .sight import Seen
from .url import POSTGRESQL, Url
from .verify import Credential, Verifier

_PAUSE = 0.3
# (path, content, mode; None keeps the mode that the file has): whole or not at all, and durable.
Write = Callable[[str, bytes, "int | None"], None]


class Rotation:
    def __init__(self, verifier: Verifier, wish: Wish, write: Write) -> None:
        self._verifier = verifier
        self._report = verifier.report
        self._wish = wish
        self._write = write

    def run(self) -> None:
        need(POSTGRESQL)
        host, source = self._verifier.connection.endpoint.host, self._verifier.compose.source
        name = f"{source.name or os.path.basename(source.directory or '')} (credentials)"
        if self._wish.check:
            self._foretell(self._work())
            return
        with locked(host, name, self._wish.wait_timeout):
            work = self._work()
            self._do(work)

    # -- deciding ---------------------------------------------------------------------------------------------------

    def _work(self) -> Work:
        seen = self._verifier.look()
        target = self._target(seen)
        left = journal.find(seen.texts.contents)
        if left is not None and left.user != target.url.user:
            what = f"a rotation of role {left.user} was not finished ({left.path})"
            raise failure(seen.project.name, "rotation-unfinished", what, "Finish that one first")
        new = self._wish.password or (left.new if left else secrets.token_urlsafe(24))
        candidates = list(dict.fromkeys([*([left.new, *left.old] if left else []), *sorted(target.account.known)]))
        self._verifier.hide([new, *candidates])
        acceptable(new, target)
        working = self._working(target, [new, *candidates])
        account_now = replace(target.account, known=target.account.known | set(candidates))
        changed, names = texts(seen.texts, account_now, new)
        after = replace(seen.texts, contents={**seen.texts.contents, **changed})
        reaches(target, after, new, seen)
        path = left.path if left else journal.beside(journal_place(changed, target, seen))
        old = tuple(word for word in dict.fromkeys([working, *candidates]) if word != new)
        recreated = users(seen, after, target, new)
        return Work(
            target, seen, working, new, changed, names, recreated, Journal(path, target.url.user, old, new), bool(left)
        )

    def _target(self, seen: Seen) -> Target:
        found = self._verifier.find(seen, ())
        missing = set(self._wish.variables) - {entry.facts.variable for entry in found}
        if missing:
            self._verifier.find(seen, sorted(missing))  # raises when nobody has it
            what = f"{', '.join(sorted(missing))} holds no PostgreSQL URL"
            raise failure(seen.project.name, "rotation-unsupported", what, "Name a variable with a postgresql:// URL")
        groups: dict[tuple[str, int, str], list[tuple[Credential, Url, str]]] = {}
        unreachable: dict[str, str] = {}
        for entry in found:
            reached = self._verifier.address(entry.facts.compose.value, seen, entry.facts.service)
            if reached is None or reached[0].family != POSTGRESQL:
                continue
            url, at = reached
            if not at.ip:
                unreachable[entry.facts.variable] = at.why
                continue
            groups.setdefault((at.ip, url.port, url.user), []).append((entry, url, at.container))
        wanted = set(self._wish.variables)
        chosen = [key for key, group in groups.items() if not wanted or wanted & {at[0].facts.variable for at in group}]
        if len(chosen) != 1:
            raise not_one(seen.project.name, len(chosen), sorted({key[2] for key in chosen}), unreachable)
        group = groups[chosen[0]]
        members = tuple(entry for entry, _url, _container in group)
        url, container = group[0][1], group[0][2]
        return Target(url, chosen[0][0], container or f"{url.host}:{url.port}", members, account(group))

    def _working(self, target: Target, candidates: list[str]) -> str:
        last = Login(REFUSED)
        for password in dict.fromkeys(candidates):
            last = log_in(target.with_password(password), target.ip)
            if last.outcome == OK and last.asked:
                return password
            if last.outcome == OK:
                what = "it lets anybody in without asking for a password, so no rotation could be verified"
                remedy = "Ask for passwords on TCP (pg_hba.conf: scram-sha-256 instead of trust)"
                raise failure(target.spoken, "password-not-asked", what, remedy)
            if last.outcome == UNREACHABLE:
                break
        what = f"no password that any place has logs in as {target.url.user} ({last.code or last.words}: {last.words})"
        remedy = "Set it by hand to what the env file says, as the server's administrator, then run this again"
        raise failure(target.spoken, "login-refused", what, remedy)

    # -- doing ------------------------------------------------------------------------------------------------------

    def _foretell(self, work: Work) -> None:
        role = f"{work.target.url.user} at {work.target.spoken}"
        if work.working != work.new:
            self._report.planned("alter-role", role, "a new password")
        for path, names in work.names.items():
            self._report.planned("rewrite", self._verifier.shown(path), ", ".join(names))
        self._tell_diff(work)
        if work.users:
            self._converge(work.users, _Check(work))

    def _do(self, work: Work) -> None:
        self._tell_diff(work)
        if work.working == work.new and not work.texts and not work.users:
            self._prove(work)
            if work.resumed:
                self._finish(work)
            return
        self._report.changed = True
        self._write(work.journal.path, work.journal.content(), 0o600)
        try:
            self._alter(work)
            for path, text in work.texts.items():
                with self._report.doing("rewrite", self._verifier.shown(path), ", ".join(work.names[path])):
                    self._write(path, text.encode("utf-8", "surrogateescape"), None)
            if work.users:
                self._converge(work.users, None)
            self._prove(work)
        except ShipshapeError as error:
            raise self._back(work, error) from error
        self._finish(work)

    def _finish(self, work: Work) -> None:
        """Every place has been seen to have the new password: nobody needs the old ones any more."""
        with self._report.doing("remove", self._verifier.shown(work.journal.path), "the rotation is finished"):
            work.journal.remove()

    def _alter(self, work: Work) -> None:
        """Gives the role its new password, unless it has it; proves it, or puts the old one back."""
        if work.working == work.new:
            return
        target = work.target
        with postgresql(target.with_password(work.working), target.ip) as session:
            if session.login.outcome != OK:
                raise refused(target, session.login, "the password that worked a moment ago is refused")
            statement = session.set_password(target.url.user, work.new)
            session.run("BEGIN")
            tried = session.run(statement)
            session.run("ROLLBACK")
            if tried.outcome != OK:
                raise refused(target, tried, "the server does not accept the new password")
            with self._report.doing("alter-role", f"{target.url.user} at {target.spoken}", "a new password"):
                done = session.run(statement)
            proof = log_in(target.with_password(work.new), target.ip) if done.outcome == OK else done
            if proof.outcome != OK:
                session.run(session.set_password(target.url.user, work.working))
                raise refused(target, proof, "the new password did not log in, the old one was put back")

    def _converge(self, users: tuple[str, ...], check: _Check | None) -> None:
        """Recreates what runs with another password, and nothing else: no image is built or pulled."""
        inner = Report()
        order = Order(
            pull="never",
            build="never",
            stability=self._wish.stability,
            wait_timeout=self._wish.wait_timeout,
            check=check is not None,
        )
        compose = self._verifier.compose.narrowed(users)
        stack = Stack(self._verifier.connection, compose, inner)
        try:
            if check is not None:
                stack.foretell(check.project(resolved(compose, inner)), order)
            else:
                stack.present(order)
        finally:
            self._report.actions += inner.actions
            self._report.add(*inner.findings)
            self._report.logs.update(inner.logs)
            self._report.changed = self._report.changed or inner.changed

    def _prove(self, work: Work) -> None:
        """Looks at everything again: each place has the new password, it logs in, and no old one does."""
        fresh = Verifier(
            self._verifier.connection,
            self._verifier.compose.narrowed(self._verifier.compose.source.services),
            self._verifier.report,
        )
        fresh.hide([work.new, *work.journal.old])
        seen = fresh.look()
        target = work.target
        names = {(entry.facts.service, entry.facts.variable) for entry in target.members}
        found = [entry for entry in fresh.find(seen, ()) if (entry.facts.service, entry.facts.variable) in names]
        deadline = time.monotonic() + self._wish.wait_timeout
        while True:
            entries = fresh.log_in(found, seen)
            down = [at for entry in entries for at in entry.facts.logins.values() if at.outcome == UNREACHABLE]
            if not down or time.monotonic() > deadline:
                break
            time.sleep(_PAUSE)
        fresh.tell(entries)
        for entry in entries:
            if any(password_in(value) != work.new for value in entry.values):
                what = "not every place has the new password"
                raise failure(entry.facts.subject, "rotation-incomplete", what, "Run this again")
        ip = next((fresh.address(at.facts.compose.value, seen, at.facts.service) for at in entries), None)
        where = ip[1].ip if ip is not None and ip[1].ip else target.ip
        for password in work.journal.old:
            if log_in(target.with_password(password), where).outcome == OK:
                what = f"an old password of {target.url.user} still logs in"
                raise failure(
                    target.spoken, "old-password-accepted", what, "Look at pg_hba.conf and what is in between"
                )

    def _back(self, work: Work, error: ShipshapeError) -> ShipshapeError:
        """Puts the old password back everywhere, so that what ran before runs again. Returns what to raise."""
        try:
            target = work.target
            if work.resumed or work.working == work.new:
                raise ShipshapeError(*error.findings)  # what was before is not known any more: going on is the way
            seen = self._verifier.look()
            at = self._verifier.address(target.members[0].facts.compose.value, seen, target.members[0].facts.service)
            ip = at[1].ip if at is not None and at[1].ip else target.ip
            with postgresql(target.with_password(work.new), ip) as session:
                if session.login.outcome == OK:
                    session.run(session.set_password(target.url.user, work.working))
            for path in work.texts:
                before = work.seen.texts.contents[path]
                self._write(path, before.encode("utf-8", "surrogateescape"), None)
            if log_in(target.with_password(work.working), ip).outcome != OK:
                raise ShipshapeError(*error.findings)
            if work.users:
                self._converge(work.users, None)
            work.journal.remove()
        except (ShipshapeError, OSError):
            what = f"the rotation is not finished; old and new password are in {work.journal.path}"
            extra = Finding(CRITICAL, target.spoken, "rotation-unfinished", what, "Mend the cause and run this again")
        else:
            what = "the old password was put back in the server and the env files"
            extra = Finding(CRITICAL, target.spoken, "rotation-undone", what, "Mend the cause and run this again")
        return ShipshapeError(*error.findings, extra, logs=error.logs)

    def _tell_diff(self, work: Work) -> None:
        sides = [[], []] if not work.names else [list[str](), list[str]()]
        for path, names in work.names.items():
            shown = self._verifier.shown(path)
            sides[0] += [f"{shown} {name}=<old value>" for name in names]
            sides[1] += [f"{shown} {name}=<new value>" for name in names]
        before, after = ("".join(f"{line}\n" for line in side) for side in sides)
        self._report.diff = {"before": before, "after": after}


@dataclass(frozen=True)
class _Check:
    """The project as it would be once the env files are rewritten."""

    work: Work

    def project(self, project: Project) -> Project:
        after = replace(self.work.seen.texts, contents={**self.work.seen.texts.contents, **self.work.texts})
        document: dict[str, Any] = {**project.document, "services": dict(project.document["services"])}
        for name in project.services:
            changed = changes(self.work.seen, after, name)
            entry = document["services"][name]
            values = {key: value.replace("$", "$$") for key, value in changed.items()}
            document["services"][name] = {**entry, "environment": {**(entry.get("environment") or {}), **values}}
        return replace(project, services=project_from(document).services, document=document)
