# SPDX-License-Identifier: GPL-3.0-or-later
"""A real image registry on the loopback: Debian's docker-registry, with TLS and a login, filled by plain HTTP requests.

`registry` asks for a name and a password (Basic), `token_registry` sends to a token server (Bearer). Both listen on
127.0.0.1, which the engine trusts whatever certificate answers, and on [::1], whose certificate it checks.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import http.server
import json
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.debs import unpacked

USER, PASSWORD = "deploy", "pass:w0rd/@x"
# bcrypt of PASSWORD: the only form that the registry takes.
_HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuuJXiGKexOeIYeFit8J8CPNrvnZ8/itce\n"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


def basic(user: str = USER, password: str = PASSWORD) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass
class Certificate:
    """A self-signed certificate for both loopback addresses: its own authority."""

    cert: Path
    key: Path

    @classmethod
    def made(cls, folder: Path) -> Certificate:
        cert, key = folder / "registry.crt", folder / "registry.key"
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=registry"]
        words += ["-addext", "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost", "-keyout", str(key), "-out", str(cert)]
        subprocess.run(words, check=True, capture_output=True)
        return cls(cert, key)

    def der(self) -> str:
        return "".join(line for line in self.cert.read_text().splitlines() if "-----" not in line)


def free_port() -> int:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Registry:
    """One running registry. `host` is how images are named, `secure_host` the same where certificates count."""

    folder: Path
    port: int
    certificate: Certificate | None
    process: subprocess.Popen[bytes]
    tokens: TokenServer | None = None
    layers: list[str] = field(default_factory=list)  # digests of all layers that were pushed

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def secure_host(self) -> str:
        return f"[::1]:{self.port}"

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def served_layers(self) -> list[str]:
        """Layers that somebody has downloaded."""
        asked = [line for line in self.log().splitlines() if '"GET /v2/' in line]
        return [digest for digest in self.layers if any(f"/blobs/{digest}" in line for line in asked)]

    # -- filling it -------------------------------------------------------------------------------------------------

    def push(
        self, name: str, tag: str, platforms: Sequence[str] = ("linux/amd64",), *, layer: int = 64, **config: Any
    ) -> str:
        """An image for each platform, one layer of random bytes in it; an index of them where there are several."""
        entries = []
        for platform in platforms:
            system, machine, *variant = platform.split("/")
            described = {"os": system, "architecture": machine, **({"variant": variant[0]} if variant else {})}
            body = secrets.token_bytes(layer)
            layer_digest = self._blob(name, body)
            self.layers.append(layer_digest)
            document = {**described, "config": config, "rootfs": {"type": "layers", "diff_ids": [layer_digest]}}
            text = json.dumps(document).encode()
            manifest = {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": self._blob(name, text),
                    "size": len(text),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                        "digest": layer_digest,
                        "size": len(body),
                    }
                ],
            }
            alone = len(platforms) == 1
            entries.append((described, *self._manifest(name, tag if alone else "", _MANIFEST, manifest)))
        if len(entries) == 1:
            return entries[0][1]
        listed = [
            {"mediaType": _MANIFEST, "digest": digest, "size": size, "platform": platform}
            for platform, digest, size in entries
        ]
        return self._manifest(name, tag, _INDEX, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": listed})[0]

    def _manifest(self, name: str, tag: str, kind: str, document: dict[str, Any]) -> tuple[str, int]:
        text = json.dumps(document).encode()
        digest = "sha256:" + hashlib.sha256(text).hexdigest()
        self._request(name, "PUT", f"/v2/{name}/manifests/{tag or digest}", text, {"Content-Type": kind})
        return digest, len(text)

    def _blob(self, name: str, body: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        started = self._request(name, "POST", f"/v2/{name}/blobs/uploads/", b"", {})
        place = urlsplit(started["Location"])
        query = f"{place.query}&digest={digest}" if place.query else f"digest={digest}"
        kind = {"Content-Type": "application/octet-stream"}
        self._request(name, "PUT", f"{place.path}?{query}", body, kind)
        return digest

    def _request(self, name: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> dict[str, str]:
        token = self.tokens.token(name, ["pull", "push"]) if self.tokens else ""
        known = f"Bearer {token}" if token else f"Basic {basic()}"
        if self.certificate is None:
            stream = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        else:
            context = ssl.create_default_context(cafile=str(self.certificate.cert))
            stream = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        try:
            stream.request(method, path, body, {**headers, "Authorization": known})
            answer = stream.getresponse()
            said = answer.read()
            assert answer.status in (201, 202), (answer.status, said)
            return {key.title(): value for key, value in answer.getheaders()}
        finally:
            stream.close()


class TokenServer:
    """Gives tokens that the registry believes, to whoever has the right password. `asked` keeps what was wanted."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self.asked: list[tuple[str, str]] = []  # (Authorization or form, scope)
        self.refresh = secrets.token_hex(12)
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                scope = parse_qs(urlsplit(self.path).query).get("scope", [""])[0]
                known = self.headers.get("Authorization", "")
                owner.asked.append((known, scope))
                self._give(scope, known in ("", f"Basic {basic()}"), allowed=bool(known) or "/public" in scope)

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                scope = form["scope"][0]
                owner.asked.append((form["grant_type"][0], scope))
                self._give(scope, form["refresh_token"] == [owner.refresh], allowed=True)

            def _give(self, scope: str, good: bool, *, allowed: bool) -> None:
                _kind, name, _wanted = scope.split(":")
                body = {"token": owner.token(name, ["pull"] if allowed else [])} if good else {"errors": []}
                text = json.dumps(body).encode()
                self.send_response(200 if good else 401)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_words: Any) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def realm(self) -> str:
        return f"https://127.0.0.1:{self.server.server_address[1]}/token"

    def token(self, name: str, actions: list[str]) -> str:
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self.certificate.der()]}
        access = [{"type": "repository", "name": name, "actions": actions}]
        claims = {"iss": "tests", "sub": USER, "aud": "registry", "exp": now + 300, "nbf": now - 5, "iat": now}
        parts = [_packed(json.dumps(header)), _packed(json.dumps({**claims, "jti": "1", "access": access}))]
        words = ["openssl", "dgst", "-sha256", "-sign", str(self.certificate.key)]
        signed = subprocess.run(words, input=".".join(parts).encode(), capture_output=True, check=True).stdout
        return ".".join([*parts, base64.urlsafe_b64encode(signed).decode().rstrip("=")])


def _packed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@contextmanager
def running(folder: Path, *, login: str = "basic", tls: bool = True) -> Iterator[Registry]:
    """A registry; `login` is basic, token or none."""
    certificate = Certificate.made(folder)
    tokens = TokenServer(certificate) if login == "token" else None
    port = free_port()
    auth: dict[str, Any] = {}
    if login == "basic":
        (folder / "htpasswd").write_text(_HTPASSWD)
        auth = {"auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}}
    elif tokens is not None:
        kept = {"realm": tokens.realm, "service": "registry", "issuer": "tests"}
        auth = {"auth": {"token": {**kept, "rootcertbundle": str(certificate.cert)}}}
    pair = {"tls": {"certificate": str(certificate.cert), "key": str(certificate.key)}} if tls else {}
    settings = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f":{port}", "secret": "tests", **pair},
        **auth,
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    binary = unpacked("docker-registry", ["docker-registry"], ["bookworm"]) / "usr/bin/docker-registry"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([binary, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "the registry does not answer"
                time.sleep(0.05)
        yield Registry(folder, port, certificate if tls else None, process, tokens)
    finally:
        process.terminate()
        process.wait(10)
        if tokens is not None:
            tokens.server.shutdown()
            tokens.server.server_close()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """TLS and Basic auth, holding a multi-arch image, one of the wrong architecture, and not every tag."""
    with running(tmp_path_factory.mktemp("registry")) as found:
        found.push("studio/web", "1", ["linux/amd64", "linux/arm64"])
        found.push("studio/web", "arm", ["linux/arm64", "linux/arm/v7"])
        found.push("studio/board", "1", ["linux/s390x"])
        found.push("studio/plain", "1", ["linux/amd64"], Healthcheck={"Test": ["CMD", "true"]})
        yield found


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("registry"), login="token") as found:
        found.push("studio/web", "1", ["linux/amd64", "linux/arm64"])
        found.push("studio/public", "1")
        yield found
