# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts and repositories of the slots on a git server that speaks Gitea's API. The pool does without it."""

from __future__ import annotations

import http.client
import json
import secrets
import urllib.error
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from ansible.module_utils import urls

from ..report.finding import Finding, ShipshapeError, failure
from ..report.result import Report

_TIMEOUT = 10.0
_AT_ONCE = 4
REFUSED = "git-refused"
_REMEDY = "The slots work without it. Start or mend the git server, check git_url and git_token, then run this again"


class GitServer:
    def __init__(self, url: str, token: str, report: Report) -> None:
        self._url, self._token, self._report = url.rstrip("/"), token, report

    def provide(self, names: Sequence[str], repository: str, *, check: bool) -> list[Finding]:
        """Makes what is missing; gives what the server would not do. One that is not there, or does not know us, is
        asked no further."""
        refused: list[Finding] = []
        with ThreadPoolExecutor(_AT_ONCE) as workers:
            looks = {name: workers.submit(self._there, name, repository) for name in names}
            for name, there in looks.items():
                found = self._refusal(name, there, repository, check)
                refused += found
                if any(at.subject == self._url for at in found):
                    workers.shutdown(wait=False, cancel_futures=True)
                    break
        return _together(refused)

    def _refusal(self, name: str, there: Future[bool], repository: str, check: bool) -> Sequence[Finding]:
        try:
            if not there.result():
                self._make(name, repository, check)
        except ShipshapeError as error:
            return error.findings
        return ()

    def _make(self, name: str, repository: str, check: bool) -> None:
        has_account = self._ask("GET", f"/users/{quote(name)}")[0] == 200
        steps = [] if has_account else [("create-git-account", self._account)]
        for action, step in [*steps, ("create-git-repository", self._repository)]:
            if check:
                self._report.planned(action, name, "the git server has none")
                continue
            changed = self._report.changed
            try:
                with self._report.doing(action, name, "the git server has none"):
                    step(name, repository)
            except ShipshapeError:
                self._report.changed = changed
                raise

    def _there(self, name: str, repository: str) -> bool:
        status, said = self._ask("GET", f"/repos/{quote(name)}/{quote(repository)}")
        if status not in (200, 404):
            raise _refused(name, "look for its repository", status, said)
        return status == 200

    def _account(self, name: str, _repository: str) -> None:
        document = {
            "username": name,
            "email": f"{name}@visitors.invalid",
            "password": secrets.token_urlsafe(32),  # nobody is ever told
            "must_change_password": False,
        }
        status, said = self._ask("POST", "/admin/users", document)
        if status != 201:
            raise _refused(name, "create its account", status, said)

    def _repository(self, name: str, repository: str) -> None:
        document = {"name": repository, "private": True}
        status, said = self._ask("POST", f"/admin/users/{quote(name)}/repos", document)
        if status not in (201, 409):
            raise _refused(name, "create its repository", status, said)

    def _ask(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> tuple[int, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"token {self._token}"
        body = json.dumps(document).encode() if document is not None else None
        try:
            try:
                # Who follows a redirection takes the administrator's token along, wherever that leads.
                with urls.open_url(
                    f"{self._url}/api/v1{path}",
                    data=body,
                    headers=headers,
                    method=method,
                    timeout=_TIMEOUT,
                    follow_redirects="none",
                ) as answer:
                    return int(answer.status), ""
            except urllib.error.HTTPError as error:
                self._check(error)
                return error.code, error.read(2000).decode("utf-8", "replace")
        except http.client.HTTPException as error:
            words = " ".join(str(error).split()) or type(error).__name__
            what = f"what answers there does not speak HTTP: {words[:200]}"
            raise failure(self._url, "git-unreachable", what, _REMEDY) from error
        except (OSError, ValueError, urls.ConnectionError) as error:
            what = f"nothing answers there: {getattr(error, 'reason', error)}"
            raise failure(self._url, "git-unreachable", what, _REMEDY) from error

    def _check(self, error: urllib.error.HTTPError) -> None:
        """Raises for an answer that every question would get."""
        if error.code == 401:
            what = "the git server does not know the token: 401"
            raise failure(self._url, REFUSED, what, "Set git_token to one of an administrator, then run this again")
        if error.code in (301, 302, 303, 307, 308):
            what = f"the git server sends us to {error.headers.get('Location') or 'another place'}: {error.code}"
            raise failure(self._url, REFUSED, what, "Write in git_url where it really is, then run this again")


def _together(refused: Sequence[Finding]) -> list[Finding]:
    """One finding of those that say the same."""
    alike: dict[str, list[Finding]] = {}
    for finding in refused:
        alike.setdefault(finding.message, []).append(finding)
    return [
        replace(one, message=f"{one.message} (as for {len(others)} more)") if others else one
        for one, *others in alike.values()
    ]


def _refused(name: str, doing: str, status: int, said: str) -> ShipshapeError:
    try:
        words = str(json.loads(said).get("message") or "")
    except (ValueError, AttributeError):
        words = ""
    what = f"the git server would not {doing}: {status} {' '.join(words.split())}".rstrip()
    return failure(name, REFUSED, what, _REMEDY)
