# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who somebody is at a registry: option `registry_auth`, the user's Docker configuration, or a credential helper."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from ..report.finding import ShipshapeError, failure
from .image_name import HUB

# The Docker Hub's entry in a configuration is older than its present address.
_HUB_KEY = "https://index.docker.io/v1/"
_BY_TOKEN = "<token>"  # what a helper gives as name of the user when the secret is a token

# (argv, standard input) -> (exit code, standard output, standard error)
RunHelper = Callable[[Sequence[str], str], "tuple[int, str, str]"]


@dataclass(frozen=True)
class Login:
    """A name and a password, or a token in their place. `source` says where they stand, for a message."""

    username: str
    password: str = field(repr=False)
    token: str = field(default="", repr=False)
    source: str = ""

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def secrets(self) -> set[str]:
        return {self.password, self.token, self.basic.partition(" ")[2]} - {""}


class Logins:
    """The logins that are at hand on the target, each looked up once."""

    def __init__(self, given: Sequence[Mapping[str, str]], configuration: Mapping[str, Any], run: RunHelper) -> None:
        self._given = {
            plain_host(entry["registry"]): Login(entry["username"], entry["password"], source="registry_auth")
            for entry in given
        }
        self._configuration = configuration
        self._run = run
        self._found: dict[str, Login | None] = {}
        self._lock = Lock()

    def of(self, host: str) -> Login | None:
        """The login for a registry; None where there is none. Raises when a credential helper fails."""
        with self._lock:
            if host not in self._found:
                self._found[host] = self._given.get(host) or self._configured(host)
            return self._found[host]

    def secrets(self) -> set[str]:
        """All that must not be shown of what was looked up."""
        return {secret for login in (*self._given.values(), *self._found.values()) if login for secret in login.secrets}

    def _configured(self, host: str) -> Login | None:
        helpers: Mapping[str, str] = self._configuration.get("credHelpers") or {}
        helper = next((name for key, name in helpers.items() if plain_host(key) == host), "")
        helper = helper or str(self._configuration.get("credsStore") or "")
        return (self._from_helper(helper, host) if helper else None) or stored_login(self._configuration, host)

    def _from_helper(self, helper: str, host: str) -> Login | None:
        command = f"docker-credential-{helper}"
        remedy = f"Run `echo {host} | {command} get` as the same user, or give registry_auth"
        try:
            code, out, err = self._run([command, "get"], _HUB_KEY if host == HUB else host)
        except OSError as error:
            what = f"the credential helper {command} of the Docker configuration cannot be run: {error.strerror}"
            raise failure(host, "credential-helper-failed", what, remedy) from error
        if code:
            # Helpers say on standard output that they know of no such login, each in its own words.
            if "not found" in out.lower() or "no credentials" in out.lower():
                return None
            said = " ".join((err or out).split())[:200]
            raise failure(host, "credential-helper-failed", f"{command} ended with code {code}: {said}", remedy)
        try:
            answer = json.loads(out)
            name, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError) as error:
            what = f"what {command} prints is no login"  # and may be a secret, so it is not shown
            raise failure(host, "credential-helper-failed", what, remedy) from error
        if name == _BY_TOKEN:
            return Login("", "", token=secret, source=command)
        return Login(name, secret, source=command)


def plain_host(key: str) -> str:
    """A registry as Docker's configuration may name it (https://HOST/v1/, HOST) as the host alone."""
    host = key.partition("://")[2] or key
    host = host.partition("/")[0]
    return HUB if host in ("index.docker.io", "registry-1.docker.io") else host


def stored_login(configuration: Mapping[str, Any], host: str) -> Login | None:
    """The login that stands in the configuration itself."""
    for key, entry in (configuration.get("auths") or {}).items():
        if plain_host(key) != host or not isinstance(entry, Mapping):
            continue
        source = "the Docker configuration"
        if entry.get("identitytoken"):
            return Login("", "", token=str(entry["identitytoken"]), source=source)
        if entry.get("username"):
            return Login(str(entry["username"]), str(entry.get("password") or ""), source=source)
        try:
            name, colon, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            continue
        if colon:
            return Login(name, password.rstrip("\0"), source=source)
    return None


def configuration() -> dict[str, Any]:
    """The user's Docker configuration; empty where there is none. Raises when it cannot be read."""
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    path = os.path.join(directory, "config.json")
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(document, dict):
        raise _unreadable(path, ValueError("it is no JSON object"))
    return document


def _unreadable(path: str, error: Exception) -> ShipshapeError:
    # A JSON error names the place only, never the text around it.
    what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return failure(path, "docker-configuration-unreadable", what, "Mend the file, or log in again (docker login)")
