# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks registries what they hold: a manifest and at most an image's configuration, never a layer.

The protocol is the OCI Distribution Specification's; logging in follows the challenge that a registry answers with
(Basic, or Bearer with a token from the server that it names).
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from ..report.finding import ShipshapeError
from .image_name import ImageName, Platform, suits
from .registry_login import Login, Logins
from .registry_net import Ways, connect, trust
from .registry_words import certificate, refused, silent, unreachable

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_ACCEPT = ", ".join((*_INDEXES, *_MANIFESTS))
_CHALLENGE = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 4
# No manifest or configuration comes near: what is larger is something else.
_LARGEST = 8 << 20
# More than these only make a registry limit us.
_ASKED_AT_ONCE = 8


@dataclass(frozen=True)
class Held:
    """What a registry holds under a name. `size` is what a pull for the wanted platform transfers, in bytes;
    `config` the image's own configuration, where it was read."""

    digest: str
    platforms: tuple[Platform, ...]
    size: int = 0
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Said:
    """One answer of a registry."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def document(self) -> dict[str, Any]:
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Registries:
    """Every registry that a project's images come from; usable from several threads."""

    def __init__(self, ways: Ways, logins: Logins) -> None:
        self._ways = ways
        self._logins = logins
        self._local = threading.local()
        self._lock = threading.Lock()
        self._trust: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._challenges: dict[str, dict[str, str]] = {}  # by host: how it asks who we are
        self._plain: set[str] = set()  # hosts that do not speak TLS, and need not
        self._dead: dict[str, ShipshapeError] = {}  # hosts that cannot be reached: nobody waits for one twice

    def ask(self, wanted: Mapping[ImageName, Platform], with_config: Iterable[ImageName] = ()) -> dict[ImageName, Any]:
        """What the registries hold of each name, a Held or the ShipshapeError that says why it cannot be had."""
        configured = frozenset(with_config)

        def one(name: ImageName) -> Held | ShipshapeError:
            try:
                return self.held(name, wanted[name], with_config=name in configured)
            except ShipshapeError as error:
                return error

        with ThreadPoolExecutor(_ASKED_AT_ONCE) as askers:
            return dict(zip(wanted, askers.map(one, wanted)))

    def held(self, name: ImageName, platform: Platform, *, with_config: bool = False) -> Held:
        """What its registry holds of `name`. Raises ShipshapeError, with a code of its own for each reason."""
        *mirrors, own = self._ways.addresses(name.host)
        for mirror in mirrors:
            with suppress(ShipshapeError):  # what a mirror lacks, the registry itself may have
                return _Repository(self, mirror, name).held(platform, with_config)
        return _Repository(self, own, name).held(platform, with_config)

    # -- requests ---------------------------------------------------------------------------------------------------

    def get(self, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Said:
        """One request, redirections followed; what was meant for one host is not shown to another."""
        for _round in range(_MOST_REDIRECTS):
            said = self._once(url, headers, body)
            if said.status not in _REDIRECTS or "location" not in said.headers:
                return said
            onward = urljoin(url, said.headers["location"])
            if urlsplit(onward).netloc != urlsplit(url).netloc:
                headers = {key: value for key, value in headers.items() if key != "Authorization"}
            url = onward
        return said

    def _once(self, url: str, headers: Mapping[str, str], body: bytes | None) -> Said:
        parts = urlsplit(url)
        host = parts.netloc
        dead = self._dead.get(host)
        if dead is not None:
            raise dead
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        insecure = self._ways.insecure(host)
        scheme = "http" if host in self._plain else parts.scheme
        try:
            try:
                return self._exchange(scheme, host, target, headers, body, verify=not insecure)
            except (ssl.SSLError, ConnectionRefusedError, http.client.BadStatusLine) as error:
                if scheme == "http" or not insecure or isinstance(error, ssl.SSLCertVerificationError):
                    raise
                said = self._exchange("http", host, target, headers, body, verify=False)
                self._plain.add(host)
                return said
        except (OSError, http.client.HTTPException) as error:
            raise self._dead.setdefault(host, _unanswered(host, error)) from error

    def _exchange(
        self, scheme: str, host: str, target: str, headers: Mapping[str, str], body: bytes | None, *, verify: bool
    ) -> Said:
        streams: dict[tuple[str, str], http.client.HTTPConnection] = self._local.__dict__.setdefault("streams", {})
        kept = streams.pop((scheme, host), None)
        stream = kept or connect(self._ways, scheme, host, self._trusted(host, verify) if scheme == "https" else None)
        try:
            stream.request("POST" if body is not None else "GET", target, body, dict(headers))
            answer = stream.getresponse()
            content = answer.read(_LARGEST)
        except (OSError, http.client.HTTPException) as error:
            stream.close()
            # A connection that was kept open may have been closed by the other side meanwhile.
            if kept is not None and not isinstance(error, TimeoutError):
                return self._exchange(scheme, host, target, headers, body, verify=verify)
            raise
        if answer.isclosed():
            streams[(scheme, host)] = stream
        else:
            stream.close()
        return Said(answer.status, {key.lower(): value for key, value in answer.getheaders()}, content)

    def _trusted(self, host: str, verify: bool) -> ssl.SSLContext:
        with self._lock:  # reading the system's authorities takes long enough to do it only once
            if (host, verify) not in self._trust:
                self._trust[(host, verify)] = trust(host, verify)
            return self._trust[(host, verify)]

    # -- logging in -------------------------------------------------------------------------------------------------

    def login(self, name: ImageName) -> Login | None:
        return self._logins.of(name.host)

    def challenge(self, address: str) -> dict[str, str]:
        return self._challenges.get(address, {})

    def challenged(self, address: str, header: str) -> dict[str, str]:
        """Remembers how a registry asks who we are: scheme, realm, service."""
        scheme, _space, rest = header.partition(" ")
        asked = {"scheme": scheme.lower(), **{key.lower(): value for key, value in _CHALLENGE.findall(rest)}}
        self._challenges[address] = asked
        return asked


@dataclass
class _Repository:
    """One repository of a registry (or of a mirror of it), for as long as one image is asked for."""

    registries: Registries
    address: str
    name: ImageName
    _authorization: str = field(default="", repr=False)

    def held(self, platform: Platform, with_config: bool) -> Held:
        said = self._get(f"manifests/{self.name.reference}")
        document = said.document()
        digest = said.headers.get("docker-content-digest", self.name.digest)
        listed = document.get("manifests")
        if not isinstance(listed, list):
            return self._single(digest, document)
        entries = [(Platform.of(entry.get("platform") or {}), entry) for entry in listed if isinstance(entry, Mapping)]
        # An index also lists what is no image: attestations, for an unknown machine.
        platforms = tuple(found for found, _entry in entries if found.architecture not in ("", "unknown"))
        if not suits(platform, platforms):
            return Held(digest, platforms)
        ours = next(entry for found, entry in entries if platform.runs(found))
        single = self._get(f"manifests/{ours['digest']}").document()
        config = self._config(single) if with_config else {}
        return Held(digest, platforms, _size(single), config.get("config") or {})

    def _single(self, digest: str, document: Mapping[str, Any]) -> Held:
        """A manifest for one platform, which only the image's configuration names."""
        config = self._config(document)
        return Held(digest, (Platform.of(config),), _size(document), config.get("config") or {})

    def _config(self, document: Mapping[str, Any]) -> dict[str, Any]:
        digest = (document.get("config") or {}).get("digest")
        return self._get(f"blobs/{digest}").document() if digest else {}

    def _get(self, path: str) -> Said:
        url = self.address if "://" in self.address else f"https://{self.address}"
        url = f"{url}/v2/{self.name.repository}/{path}"
        if not self._authorization:
            self._authorization = self._known()
        said = self._asked(url)
        if said.status == 401:
            header = said.headers.get("www-authenticate", "")
            self._authorization = self._answer(self.registries.challenged(self.address, header))
            if self._authorization:
                said = self._asked(url)
        if said.status != 200:
            raise refused(self.name, said, self.registries.login(self.name))
        return said

    def _asked(self, url: str) -> Said:
        known = {"Authorization": self._authorization} if self._authorization else {}
        return self.registries.get(url, {"Accept": _ACCEPT, "User-Agent": "shipshape.deploy", **known})

    def _known(self) -> str:
        """The header for a registry that has asked before, so that it need not ask again."""
        asked = self.registries.challenge(self.address)
        return self._answer(asked) if asked else ""

    def _answer(self, asked: Mapping[str, str]) -> str:
        login = self.registries.login(self.name)
        if asked.get("scheme") == "basic":
            return login.basic if login else ""
        if asked.get("scheme") == "bearer" and asked.get("realm"):
            return f"Bearer {self._token(asked, login)}"
        return ""

    def _token(self, asked: Mapping[str, str], login: Login | None) -> str:
        """From the server that the registry names; without a login it may give one for what is public."""
        wanted = {"service": asked.get("service", ""), "scope": f"repository:{self.name.repository}:pull"}
        wanted = {key: value for key, value in wanted.items() if value}
        realm = asked["realm"]
        if login is not None and login.token:
            form = {**wanted, "grant_type": "refresh_token", "refresh_token": login.token, "client_id": "shipshape"}
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            said = self.registries.get(realm, kind, urlencode(form).encode())
        else:
            known = {"Authorization": login.basic} if login else {}
            said = self.registries.get(f"{realm}{'&' if '?' in realm else '?'}{urlencode(wanted)}", known)
        document = said.document()
        token = document.get("token") or document.get("access_token")
        if said.status != 200 or not token:
            raise refused(self.name, said, login)
        return str(token)


def _unanswered(host: str, error: Exception) -> ShipshapeError:
    if isinstance(error, ssl.SSLError):
        return certificate(host, error)
    return silent(host) if isinstance(error, TimeoutError) else unreachable(host, error)


def _size(document: Mapping[str, Any]) -> int:
    return sum(int(layer.get("size") or 0) for layer in document.get("layers") or [])
