# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages for the tests: downloaded and unpacked below .cache/, never installed.

The mirror is whatever this machine's own apt is configured with; only the suite is ours to choose. So the tests get
the engine of Debian 12 and the Compose of Debian's development branch wherever they run, and apt stays as it was.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time fills `name` in the cache; the others wait and then find it there."""
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f"{name}.lock", "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def mirror(texts: Sequence[str]) -> tuple[str, str]:
    """The main Debian mirror (not the security one) and its keyring out of apt's own source files."""
    for text in texts:
        for stanza in re.split(r"\n\s*\n", text):
            uri = re.search(r"^URIs:\s*(\S+)", stanza, re.MULTILINE)
            if uri and not uri.group(1).rstrip("/").endswith("-security"):
                key = re.search(r"^Signed-By:\s*(\S+)", stanza, re.MULTILINE)
                return uri.group(1), key.group(1) if key else ""
        line = re.search(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+?/debian)/?\s", text, re.MULTILINE)
        if line:
            return line.group(1), ""
    raise RuntimeError(f"no Debian mirror found in {', '.join(str(path) for path in SOURCES)}")


def unpacked(name: str, packages: Sequence[str], suites: Sequence[str]) -> Path:
    """`packages` out of `suites`, unpacked into one directory, which is returned."""
    target = CACHE / name
    if target.is_dir():
        return target
    with locked(name):
        if not target.is_dir():
            _download(target, packages, suites)
    return target


def _download(target: Path, packages: Sequence[str], suites: Sequence[str]) -> None:
    work = target.with_name(target.name + ".work")
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "parts", "debs", "root"):
        (work / folder).mkdir(parents=True)
    uri, key = mirror([path.read_text(encoding="utf-8") for path in SOURCES if path.is_file()])
    signed = f"Signed-By: {key}\n" if key else ""
    (work / "debian.sources").write_text(
        f"Types: deb\nURIs: {uri}\nSuites: {' '.join(suites)}\nComponents: main\n{signed}", encoding="utf-8"
    )
    (work / "status").touch()
    options = {
        "Dir::Etc::SourceList": work / "debian.sources",
        "Dir::Etc::SourceParts": work / "parts",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": work / "parts",
        "Dir::State": work,
        "Dir::State::Lists": work / "lists",
        "Dir::State::Status": work / "status",
        "Dir::Cache": work / "cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(word for key_, value in options.items() for word in ("-o", f"{key_}={value}"))]
    _call([*apt, "update"], work)
    _call([*apt, "download", *packages], work / "debs")
    for deb in sorted((work / "debs").glob("*.deb")):
        _call(["dpkg", "-x", str(deb), str(work / "root")], work)
    os.rename(work / "root", target)
    shutil.rmtree(work)


def _call(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
