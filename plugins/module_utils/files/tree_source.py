# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of `tree`: reads the source directory, and packs what the target asks for."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, BinaryIO

from ..report.finding import INFO, WARNING, Finding, ShipshapeError, failure
from .envfile import render
from .ignore import Ignore
from .leftovers import is_ours
from .manifest import DIRECTORY, FILE, LINK, Entry, is_env_name, safe, shown

IGNORE_FILE = ".shipshapeignore"
_STATE = ".shipshape"
_CHUNK = 1024 * 1024
_VAULT = b"$ANSIBLE_VAULT;"
_IMPLIED_DIRECTORY = 0o755


@dataclass
class Source:
    """What the target shall hold.

    `locations` says where a file's content can be read, `rendered` holds the env files.
    """

    entries: list[Entry] = field(default_factory=list)
    locations: dict[str, str] = field(default_factory=dict)
    rendered: dict[str, bytes] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def read(
    root: str,
    ignore: Iterable[str],
    env_files: Mapping[str, Mapping[str, object]],
    decrypt: Callable[[str], str],
) -> Source:
    """Walks `root`. `decrypt` gives for a vault-encrypted file the path of its plain content."""
    source = Source()
    reader = _Reader(root, Ignore([*_patterns(root), *(os.fsencode(pattern) for pattern in ignore)]), decrypt, source)
    reader.directory("")
    entries = {entry.path: entry for entry in reader.source.entries}
    for name in sorted(env_files):
        _add_rendered(source, entries, name, render(name, env_files[name]))
    source.entries = [entries[path] for path in sorted(entries)]
    return source


def pack_archive(source: Source, needed: Iterable[Entry], stream: BinaryIO) -> None:
    """Writes each content that `needed` names once into a tar, under its SHA-256: no name can disturb it there.

    Not compressed: Ansible's SSH connection does that already, and a local one would only lose time.
    """
    done: set[str] = set()
    with tarfile.open(fileobj=stream, mode="w|", bufsize=_CHUNK) as archive:
        for entry in needed:
            if entry.content in done:
                continue
            done.add(entry.content)
            member = tarfile.TarInfo(entry.content)
            member.size = entry.size
            with _opened(source.locations[entry.path], entry.path) as content:
                if os.fstat(content.fileno()).st_size != entry.size:
                    raise _changed(entry.path)
                archive.addfile(member, content)
            archive.members = []  # type: ignore[attr-defined]  # or it remembers every one


class _Reader:
    def __init__(self, root: str, ignore: Ignore, decrypt: Callable[[str], str], source: Source) -> None:
        self.root = root
        self.ignore = ignore
        self.decrypt = decrypt
        self.source = source

    def directory(self, path: str) -> None:
        for item in self._listed(path):
            name = f"{path}/{item.name}" if path else item.name
            try:
                info = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since it was listed
            is_directory = stat.S_ISDIR(info.st_mode)
            if _never(name) or self.ignore.ignores(os.fsencode(name), is_directory):
                continue
            if is_directory:
                self.source.entries.append(Entry(name, DIRECTORY, stat.S_IMODE(info.st_mode)))
                self.directory(name)
            elif stat.S_ISLNK(info.st_mode):
                self._link(name)
            elif stat.S_ISREG(info.st_mode):
                self._file(name, stat.S_IMODE(info.st_mode))
            else:
                message = "is neither file, directory nor symbolic link (a socket, a pipe, a device): not shipped"
                self._note(WARNING, name, "special-file-skipped", message, f"Remove it, or name it in {IGNORE_FILE}")

    def _listed(self, path: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(os.path.join(self.root, path)) as items:
                return sorted(items, key=lambda item: item.name)
        except OSError as error:
            raise _unreadable(path or self.root, error) from error

    def _link(self, name: str) -> None:
        text = os.readlink(os.path.join(self.root, name))
        self.source.entries.append(Entry(name, LINK, content=text))
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(name), text))
        if text.startswith("/") or inside == ".." or inside.startswith("../"):
            message = f"is a symbolic link that leaves the directory ({shown(text)}): shipped as it is"
            self._note(WARNING, name, "link-leaves-tree", message, "Make sure that the target has what it points to")

    def _file(self, name: str, mode: int) -> None:
        location = os.path.join(self.root, name)
        size, digest, encrypted = _measured(location, name)
        if encrypted:
            location = self.decrypt(location)
            size, digest = _measured(location, name)[:2]
        private = encrypted or is_env_name(name) or not mode & 0o044
        self.source.entries.append(Entry(name, FILE, mode, size, digest, private))
        self.source.locations[name] = location

    def _note(self, severity: str, name: str, code: str, message: str, remedy: str) -> None:
        self.source.findings.append(Finding(severity, shown(name), code, message, remedy))


def _patterns(root: str) -> list[bytes]:
    try:
        with open(os.path.join(root, IGNORE_FILE), "rb") as stream:
            return stream.read().replace(b"\r\n", b"\n").split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(IGNORE_FILE, error) from error


def _never(path: str) -> bool:
    """What is not part of the project whatever the patterns say: history, our own files, our temporaries."""
    name = posixpath.basename(path)
    return name == ".git" or path in (_STATE, IGNORE_FILE) or is_ours(name)


def _measured(location: str, name: str) -> tuple[int, str, bool]:
    """Size, SHA-256, and whether the content is encrypted with Ansible Vault."""
    digest = hashlib.sha256()
    size = 0
    encrypted = False
    with _opened(location, name) as stream:
        while chunk := stream.read(_CHUNK):
            encrypted = encrypted or (size == 0 and chunk.startswith(_VAULT))
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest(), encrypted


def _opened(location: str, name: str) -> IO[bytes]:
    try:
        return open(location, "rb")
    except FileNotFoundError as error:
        raise _changed(name) from error
    except OSError as error:
        raise _unreadable(name, error) from error


def _add_rendered(source: Source, entries: dict[str, Entry], name: str, content: bytes) -> None:
    try:
        safe(name)
    except ValueError as error:
        message = "is not the path of a file inside the project"
        raise failure(shown(name), "env-file-name", message, "Give env_files relative names without ..") from error
    old = entries.get(name)
    if old is not None and old.kind == DIRECTORY:
        raise failure(shown(name), "env-file-name", "is a directory in src", "Give the env file another name")
    if old is not None:
        message = "is in src and in env_files: the rendered one is shipped"
        remedy = f"Remove it from src, or name it in {IGNORE_FILE}"
        source.findings.append(Finding(INFO, shown(name), "env-file-replaces-source", message, remedy))
        source.locations.pop(name, None)
    for parent in _parents(name):
        above = entries.setdefault(parent, Entry(parent, DIRECTORY, _IMPLIED_DIRECTORY))
        if above.kind != DIRECTORY:
            message = f"{shown(parent)} is not a directory in src"
            raise failure(shown(name), "env-file-name", message, "Give the env file another name")
    digest = hashlib.sha256(content).hexdigest()
    entries[name] = Entry(name, FILE, 0o600, len(content), digest, private=True)
    source.rendered[name] = content


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts)))


def _changed(name: str) -> ShipshapeError:
    message = "changed on the controller while it was being read"
    return failure(shown(name), "source-changed", message, "Run again when nothing writes to src")


def _unreadable(name: str, error: OSError) -> ShipshapeError:
    message = f"cannot be read on the controller: {error.strerror or error}"
    return failure(shown(name), "source-unreadable", message, f"Make it readable, or name it in {IGNORE_FILE}")
