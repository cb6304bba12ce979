# SPDX-License-Identifier: GPL-3.0-or-later
"""Running commands, and a directory to work in: what both sources of images need."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LABEL = "shipshape.recipe"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
TRUST_STORE = "/etc/ssl/certs/ca-certificates.crt"
# Python's own libraries look elsewhere unless they are told.
TRUST = f"ENV SSL_CERT_FILE={TRUST_STORE} REQUESTS_CA_BUNDLE={TRUST_STORE} PIP_CERT={TRUST_STORE}"


class BuildError(Exception):
    """Something that the reader has to know and can act on."""


def say(text: str) -> None:
    print(f"images: {text}", flush=True)


def run(argv: Sequence[str], doing: str, **options: Any) -> str:
    """Run one command; its output is shown only when it fails, and then the end of it."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    except FileNotFoundError:
        raise BuildError(f"{doing}: the command {argv[0]!r} is not installed") from None
    if done.returncode != 0:
        tail = "\n    ".join(done.stdout.strip().splitlines()[-15:])
        raise BuildError(f"{doing} failed ({argv[0]} exited {done.returncode}); its last lines:\n    {tail}")
    return str(done.stdout)


def docker(*words: str, doing: str, **options: Any) -> str:
    return run(["docker", *words], doing, **options).strip()


def inspect(tag: str, field: str) -> str:
    """One field of an image, or nothing when there is no such image."""
    words = ["docker", "image", "inspect", "--format", field, tag]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def recipe_of(tag: str) -> str:
    """The recipe that an image was made by; nothing when the image is missing or not ours."""
    labels = inspect(tag, "{{json .Config.Labels}}")
    return str((json.loads(labels) or {}).get(LABEL, "")) if labels else ""


def build(tag: str, context: Path, recipe: str, *arguments: str) -> None:
    """Build one image. The proxy arguments are Docker's predefined ones, which no image ever stores."""
    proxies = [word for name in PROXY_VARIABLES if os.environ.get(name) for word in ("--build-arg", name)]
    network = ["--network", os.environ.get("STUDIO_BUILD_NETWORK", "default")]
    words = ["build", "-q", *proxies, *network, *arguments, "--label", f"{LABEL}={recipe}", "-t", tag, str(context)]
    docker(*words, doing=f"building {tag}")


def write_certificates(directory: Path, certificates: Sequence[str]) -> None:
    directory.mkdir(exist_ok=True)
    for number, certificate in enumerate(certificates):
        (directory / f"host-{number:03d}.crt").write_text(certificate + "\n")


@contextmanager
def workspace() -> Iterator[tuple[Path, int]]:
    """A temporary directory that is ours alone, under a lock that our children hold, too.

    A child of a killed run keeps the lock until it ends, so nothing is swept from under it.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shipshape-images"
    home.mkdir(parents=True, exist_ok=True)
    handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is at work; waiting for it to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        for left in home.glob("work-*"):
            say(f"sweeping what a killed run left: {left.name}")
            sweep(left)
        work = Path(tempfile.mkdtemp(prefix="work-", dir=home))
        try:
            yield work, handle
        finally:
            sweep(work)
    finally:
        os.close(handle)


def sweep(directory: Path) -> None:
    """Remove a work directory, but never through a mount: a chroot's /dev may be the machine's own."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [mount for mount in mounts if mount.startswith(f"{directory}/")]
    if inside:
        raise BuildError(f"{directory} still has {inside[0]} mounted in it: umount it, then run this again")
    shutil.rmtree(directory)
