# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the example's images come from: a registry when one answers in time, Debian packages otherwise."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.engine import Engine

IMAGES = Path(__file__).resolve().parents[2] / "examples/studio/images"
NO_CA = {"SSL_CERT_FILE": "", "REQUESTS_CA_BUNDLE": "", "PIP_CERT": "", "CURL_CA_BUNDLE": ""}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nbm90IGEgcmVhbCBvbmU=\n-----END CERTIFICATE-----\n"
# Stands in for mmdebstrap, which takes most of a minute: what is tested here is the choice, not Debian.
QUICK_BASE = """
def make_base(tag, recipe, certificates, work, lock):
    import tarfile
    tarfile.open(work / "base.tar", "w").close()
    change = f"LABEL {LABEL}={recipe} made.from=debian"
    docker("import", "--change", change, str(work / "base.tar"), tag, doing="docker import")
"""


@dataclass
class Registry:
    """A registry that knows one image under every name, and counts what it is asked."""

    rootfs: bytes
    hangs: bool = False
    broken_blobs: bool = False
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        layer = gzip.compress(self.rootfs, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": ["PATH=/bin:/usr/sbin"], "Cmd": ["sh"], "Labels": {"made.from": "registry"}},
                "rootfs": {"type": "layers", "diff_ids": [self.digest(self.rootfs)]},
            }
        ).encode()
        docker = "application/vnd.docker."
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{docker}distribution.manifest.v2+json",
            "config": self.entry(f"{docker}container.image.v1+json", config),
            "layers": [self.entry(f"{docker}image.rootfs.diff.tar.gzip", layer)],
        }
        self.manifest = json.dumps(manifest).encode()
        self.blobs = {self.digest(blob): blob for blob in (layer, config)}

    @staticmethod
    def digest(data: bytes) -> str:
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def entry(self, kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "size": len(data), "digest": self.digest(data)}

    def answer(self, path: str) -> tuple[int, str, bytes]:
        self.asked.append(path)
        if path == "/v2/":
            return 200, "application/json", b"{}"
        if "/manifests/" in path:
            if self.hangs:
                time.sleep(60)
            return 200, "application/vnd.docker.distribution.manifest.v2+json", self.manifest
        blob = self.blobs.get(path.rpartition("/")[2])
        if blob is None or self.broken_blobs:
            return 404, "application/json", b'{"errors": [{"code": "BLOB_UNKNOWN"}]}'
        return 200, "application/octet-stream", blob


def handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, kind, body = registry.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", Registry.digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    return Handler


@pytest.fixture(scope="module")
def rootfs(engine: Engine, busybox: str) -> bytes:
    """A small system that has update-ca-certificates, as the official Python image has."""
    script = "#!/bin/sh\ncat /usr/local/share/ca-certificates/*.crt >/trusted\n"
    make = f"mkdir -p usr/sbin && printf '%s' '{script}' >usr/sbin/update-ca-certificates && chmod 755 usr/sbin/*"
    made = engine.docker("run", "-d", busybox, "sh", "-c", make).stdout.strip()
    try:
        engine.docker("wait", made)
        exported = subprocess.run(["docker", "export", made], capture_output=True)
        return exported.stdout
    finally:
        engine.docker("rm", "-f", made)


@pytest.fixture
def registry(rootfs: bytes) -> Iterator[Registry]:
    found = Registry(rootfs)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(found))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.host = f"127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Build:
    """A copy of images/ with tags of one test's own, which takes official images from the test's registry."""

    engine: Engine
    folder: Path
    prefix: str
    cache: Path

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **NO_CA, "XDG_CACHE_HOME": str(self.cache), **environment}
        return subprocess.run([self.folder / "build", *words], capture_output=True, text=True, env=variables)

    def labels(self, name: str) -> dict[str, str]:
        return dict(self.engine.inspect(f"{self.prefix}-{name}")[0]["Config"]["Labels"])

    def leftovers(self) -> list[str]:
        return [path.name for path in (self.cache / "shipshape-images").iterdir() if path.name != "lock"]


@pytest.fixture
def build(engine: Engine, prefix: str, tmp_path: Path, registry: Registry) -> Iterator[Build]:
    folder = tmp_path / "images"
    shutil.copytree(IMAGES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    program = folder / "build.py"
    text = program.read_text().replace('"shipshape-', f'"{prefix}-')
    host = registry.host  # type: ignore[attr-defined]
    for name in ("python:3.11-slim-bookworm", "postgres:15-bookworm", "caddy:2"):
        text = text.replace(f'"{name}"', f'"{host}/{name}"')
    program.write_text(text)
    debian = folder / "debian.py"
    debian.write_text(debian.read_text() + QUICK_BASE)
    yield Build(engine, folder, prefix, tmp_path / "cache")
    engine.sweep(host)


def test_when_a_registry_answers_the_images_are_the_official_ones(build: Build, registry: Registry) -> None:
    done = build()
    assert done.returncode == 0, done.stderr
    assert "source: official images (registry: it answered)" in done.stdout
    for name in ("base:bookworm", "postgres:15", "caddy:2"):
        assert build.labels(name)["made.from"] == "registry"
    assert build.leftovers() == []

    registry.asked.clear()
    again = build()
    assert again.stdout.count("up to date") == 3
    assert registry.asked == [], "what is up to date needs no registry"


def test_the_ca_bundle_goes_into_an_official_base(build: Build, tmp_path: Path) -> None:
    bundle = tmp_path / "corporate.pem"
    bundle.write_text(f"# Our own\n{CERTIFICATE}")
    done = build("--only", "base", SSL_CERT_FILE=str(bundle))
    assert done.returncode == 0, done.stderr
    assert f"1 CA certificates of {bundle} go into the images" in done.stdout
    base = f"{build.prefix}-base:bookworm"
    assert build.engine.docker("run", "--rm", base, "cat", "/trusted").stdout == CERTIFICATE
    assert "PIP_CERT=/etc/ssl/certs/ca-certificates.crt" in build.engine.inspect(base)[0]["Config"]["Env"]

    bundle.write_text("no certificate at all\n")
    assert "there is no PEM certificate in this file" in build("--ca-bundle", str(bundle)).stderr


def test_a_registry_that_hangs_costs_three_seconds(build: Build, registry: Registry) -> None:
    registry.hangs = True
    began = time.monotonic()
    done = build("--only", "base")
    assert done.returncode == 0, done.stderr
    assert "source: Debian packages (registry: no answer within 3 s)" in done.stdout
    assert time.monotonic() - began < 45, "it waited for the answer"
    assert build.labels("base:bookworm")["made.from"] == "debian"
    assert len(registry.asked) <= 3, "no storm of tries"


def test_a_registry_that_fails_after_its_answer_is_done_without(build: Build, registry: Registry) -> None:
    registry.broken_blobs = True
    done = build("--only", "base")
    assert done.returncode == 0, done.stderr
    assert "the registry answered, yet pulling" in done.stdout
    assert build.labels("base:bookworm")["made.from"] == "debian"


def test_asked_for_official_images_it_takes_no_others(build: Build, registry: Registry) -> None:
    registry.broken_blobs = True
    done = build("--only", "base", "--source", "official")
    assert done.returncode == 1
    assert done.stderr.startswith("images: error: pulling ")
    assert build.engine.docker("image", "inspect", f"{build.prefix}-base:bookworm", check=False).returncode != 0


def test_an_image_of_either_source_stays_when_the_registry_comes_or_goes(build: Build, registry: Registry) -> None:
    registry.hangs = True
    assert build("--only", "base").returncode == 0
    registry.hangs = False
    assert "up to date" in build("--only", "base").stdout
    assert build.labels("base:bookworm")["made.from"] == "debian"
    assert build("--only", "base", "--source", "official").returncode == 0
    assert build.labels("base:bookworm")["made.from"] == "registry"


def test_a_changed_recipe_makes_the_image_again_and_leaves_no_old_one(build: Build) -> None:
    first = build("--only", "base", "--source", "debian")
    assert first.returncode == 0, first.stderr
    before = build.engine.inspect(f"{build.prefix}-base:bookworm")[0]["Id"]
    debian = build.folder / "debian.py"
    debian.write_text(debian.read_text().replace('"python3",', '"python3", "procps",'))
    assert "made in" in build("--only", "base", "--source", "debian").stdout
    after = build.engine.inspect(f"{build.prefix}-base:bookworm")[0]["Id"]
    assert after != before
    assert build.engine.docker("image", "inspect", before, check=False).returncode != 0


def test_two_at_once_wait_for_each_other_and_make_it_once(build: Build) -> None:
    with (build.folder / "debian.py").open("a") as program:
        program.write(
            "\n_quick = make_base\ndef make_base(*words):\n    import time\n    time.sleep(2)\n    _quick(*words)\n"
        )
    results: list[subprocess.CompletedProcess[str]] = []
    runs = [
        threading.Thread(target=lambda: results.append(build("--only", "base", "--source", "debian"))) for _ in range(2)
    ]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert [done.returncode for done in results] == [0, 0]
    output = "".join(done.stdout for done in results)
    assert output.count("made in") == 1
    assert "another run is at work; waiting" in output


def test_what_a_killed_run_left_is_swept(build: Build) -> None:
    left = build.cache / "shipshape-images/work-killed"
    (left / "chroot/etc").mkdir(parents=True)
    done = build("--only", "base", "--source", "debian")
    assert "sweeping what a killed run left: work-killed" in done.stdout
    assert build.leftovers() == []


def test_nothing_is_swept_through_a_mount(build: Build) -> None:
    """A chroot's /dev may be the machine's own: rather an error than rm -rf on it."""
    left = build.cache / "shipshape-images/work-killed"
    (left / "dev").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", left / "dev"], check=True)
    try:
        (left / "dev/precious").touch()
        done = build("--only", "base", "--source", "debian")
        assert done.returncode == 1
        assert "umount it, then run this again" in done.stderr
        assert (left / "dev/precious").exists()
    finally:
        subprocess.run(["umount", left / "dev"], check=True)


@pytest.fixture(scope="module")
def debian() -> Iterator[ModuleType]:
    sys.path.insert(0, str(IMAGES))
    try:
        import debian  # type: ignore[import-not-found]

        yield debian
    finally:
        sys.path.remove(str(IMAGES))
        for name in ("debian", "common"):
            sys.modules.pop(name, None)


DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: {0} {0}-updates {0}-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


@pytest.mark.parametrize(
    ("text", "codename", "wanted"),
    [
        pytest.param(
            DEB822.format("bookworm"),
            "bookworm",
            [
                "deb http://mirror.example/debian bookworm main",
                "deb http://mirror.example/debian bookworm-updates main",
            ],
            id="deb822, without backports",
        ),
        pytest.param(
            DEB822.format("trixie"),
            "trixie",
            [
                "deb http://mirror.example/debian bookworm main",
                "deb http://mirror.example/debian bookworm-updates main",
            ],
            id="the mirror of a newer Debian carries ours, too",
        ),
        pytest.param(DEB822.format("trixie"), "bookworm", [], id="another release's packages only"),
        pytest.param(
            "deb http://a.example/debian/ bookworm main contrib\ndeb-src http://a.example/debian/ bookworm main\n"
            "# deb http://b.example/debian bookworm main\n"
            "deb [arch=amd64] http://a.example/debian-security bookworm-security main\n",
            "bookworm",
            [
                "deb http://a.example/debian/ bookworm main contrib",
                "deb http://a.example/debian-security bookworm-security main",
            ],
            id="one-line style",
        ),
        pytest.param(
            "deb [signed-by=/etc/apt/keyrings/docker.gpg] https://c.example/linux/debian bookworm stable main\n",
            "bookworm",
            [],
            id="somebody else's packages for this Debian",
        ),
        pytest.param("Enabled: no\n" + DEB822.format("bookworm"), "bookworm", [], id="switched off"),
        pytest.param("deb http://d.example/ubuntu jammy main\n", "jammy", [], id="Ubuntu"),
        pytest.param("", "bookworm", [], id="nothing"),
    ],
)
def test_debian_mirrors_of_the_machine(debian: ModuleType, text: str, codename: str, wanted: list[str]) -> None:
    assert debian.debian_sources(text, codename).splitlines() == wanted
