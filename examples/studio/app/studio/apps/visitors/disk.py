# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories below the data root. A slot's is built beside and renamed into place; nothing is reached by a symlink."""

from __future__ import annotations

import errno
import filecmp
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings

from .limits import ACCOUNT, MARKER, PROJECT, WORKSPACE

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What the system says of something that is not there. Whatever else it says means that it could not look.
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
FULL = (errno.ENOSPC, errno.EDQUOT)
# Faults that no single slot can have.
EVERYBODYS = (*FULL, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)


class StorageError(OSError):
    """The data root or the template is in trouble, so nothing is to be concluded about the slots."""


@contextmanager
def trouble() -> Iterator[None]:
    """A fault of the disk is nobody's mistake: the page says so, and that one may come again."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(str(error)) from error


def check() -> None:
    """Raises StorageError when no slot can be cleaned just now: without the data root, or without the template."""
    check_root()
    template = settings.VISITOR_TEMPLATE
    try:
        with _open(template) as folder:
            whole = _has_marker(folder)
    except OSError as error:
        raise StorageError(f"the template {template} cannot be read: {error.strerror or error}") from error
    if not whole:
        raise StorageError(f"the template {template} is not whole: its {MARKER} is empty")


def check_root() -> None:
    """Raises StorageError when the data root cannot be worked in. Nothing is written: on a full disk clearing helps."""
    root = Path(settings.VISITOR_DATA_ROOT)
    try:
        _look(root)
        with suppress(FileNotFoundError):
            _look(scratch())
    except OSError as error:
        raise StorageError(f"the data root {root} cannot be worked in: {error.strerror or error}") from error


def _look(folder: Path) -> None:
    with _open(folder):
        pass
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it is read-only, or somebody else's")


def write_test() -> None:
    """A file without a name is really written: a full volume shows only then."""
    check()
    with tempfile.TemporaryFile(dir=settings.VISITOR_DATA_ROOT) as file:
        file.write(b"studio")
        file.flush()
        os.fsync(file.fileno())


def everybodys(error: OSError) -> bool:
    """Whether a fault is the data root's or the template's, and not that of the one slot where it was met."""
    try:
        check()
    except StorageError:
        return True
    return error.errno in EVERYBODYS or isinstance(error, StorageError)


def home(name: str) -> Path:
    """An account's directory. The name has become a path here, so it is looked at here."""
    if not ACCOUNT.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a directory")
    return Path(settings.VISITOR_DATA_ROOT) / name


def scratch() -> Path:
    """Where directories are built and taken apart: on the data root's own file system, so that renames are possible."""
    return Path(settings.VISITOR_DATA_ROOT) / ".visitor-pool"


def aside(name: str) -> Path:
    """A new name in the scratch. Modules that look after the pool have entries there, too, by other names."""
    return scratch() / f"app-{name}.{secrets.token_hex(4)}"


@contextmanager
def opened(name: str, *below: str) -> Iterator[int]:
    """A descriptor of a directory below an account's own. It stays with the directory when that is moved away."""
    folder = os.open(home(name), FOLDER)
    try:
        for part in below:
            deeper = os.open(part, FOLDER, dir_fd=folder)
            os.close(folder)
            folder = deeper
        yield folder
    finally:
        os.close(folder)


def has_project(name: str) -> bool:
    try:
        with opened(name, PROJECT):
            return True
    except OSError as error:
        return _missing(error)


def has_workspace(name: str) -> bool:
    """Whether the marker is there, and not empty. Raises OSError when that cannot be seen."""
    try:
        with opened(name, PROJECT, *WORKSPACE) as folder:
            return _has_marker(folder)
    except OSError as error:
        return _missing(error)


def _has_marker(folder: int) -> bool:
    seen = os.stat(MARKER, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISREG(seen.st_mode):
        return seen.st_size > 0
    with _open(MARKER, os.O_NOFOLLOW, folder) as marker:
        return bool(os.listdir(marker))


@contextmanager
def _open(path: str | Path, flags: int = 0, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _missing(error: OSError) -> bool:
    """The answer no, if that is what the error says."""
    if error.errno not in MISSING:
        raise error
    return False


def build(name: str) -> Path:
    """A fresh directory for an account, in the scratch; it is nobody's until it is renamed."""
    while True:
        new = aside(name)
        scratch().mkdir(mode=0o700, exist_ok=True)
        # Whoever found the scratch empty has removed it in between: once more.
        with suppress(FileNotFoundError):
            new.mkdir()
            break
    try:
        _fill(new)
    except Exception:
        with suppress(OSError):
            delete(new)
        raise
    return new


def _fill(new: Path) -> None:
    writer = new.joinpath(PROJECT, *WORKSPACE)
    writer.parent.mkdir(parents=True)
    _copy(Path(settings.VISITOR_TEMPLATE), writer)
    owner = os.stat(settings.VISITOR_DATA_ROOT)
    for folder, _, files in os.walk(new):
        own(Path(folder), owner, 0o7777)
        for file in files:
            own(Path(folder, file), owner, 0o666)


def _copy(template: Path, place: Path) -> None:
    """What shutil.copytree does, whose one error for all files does not say any longer that the disk is full."""
    place.mkdir()
    for entry in sorted(template.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            _copy(entry, place / entry.name)
        else:
            shutil.copyfile(entry, place / entry.name, follow_symlinks=False)


def untouched(project: Path) -> bool:
    """Whether nothing was written in a project: it is what the template says, no more and no less."""
    template, writer = Path(settings.VISITOR_TEMPLATE), project.joinpath(*WORKSPACE)
    names = _leaves(template)
    return _leaves(project) == {Path(*WORKSPACE, name) for name in names} and all(
        _same(template / name, writer / name) for name in names
    )


def _leaves(top: Path) -> set[Path]:
    """All that is no directory: those count by what is in them."""
    return {path.relative_to(top) for path in top.rglob("*") if path.is_symlink() or not path.is_dir()}


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    return filecmp.cmp(one, other, shallow=False)


def own(path: Path, like: os.stat_result | None = None, mask: int = 0o7777) -> None:
    """Gives a new entry the data root's owner and mode."""
    if path.is_symlink():
        return
    like = like or os.stat(settings.VISITOR_DATA_ROOT)
    path.chmod(stat.S_IMODE(like.st_mode) & mask)
    if os.geteuid() == 0:
        os.chown(path, like.st_uid, like.st_gid)


def replace(name: str) -> None:
    """Puts a fresh directory in the place of an account's, with all that lies in the old one."""
    used = os.path.lexists(home(name))
    try:
        new = build(name)
    except OSError as error:
        if error.errno not in FULL:
            raise
        remove(name)  # to clear is what makes room, and nobody is to see the old one again
        new = build(name)
    else:
        put_away(name)
    os.rename(new, home(name))
    if used:
        sync(Path(settings.VISITOR_DATA_ROOT))  # before the database, whose word is on the disk, offers it to the next
    if not has_workspace(name):
        raise OSError(
            f"{home(name)} was built anew, and has no workspace: is the template {settings.VISITOR_TEMPLATE} whole?"
        )
    sweep(name)


def sync(*folders: Path) -> None:
    """Has it on the disk which entry bears which name: who loses power finds what was synced."""
    for folder in folders:
        with _open(folder) as descriptor:
            os.fsync(descriptor)


def put_away(name: str) -> None:
    """Takes whatever bears the account's name out of its place; `sweep` deletes it."""
    _put_away(home(name), name)


def discard(path: Path, name: str) -> None:
    """Deletes something of a slot's, whose lock is held."""
    _put_away(path, name)
    sweep(name)


def _put_away(path: Path, name: str) -> None:
    while os.path.lexists(path):
        scratch().mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # the scratch: somebody found it empty in between
            os.rename(path, aside(name))


def remove(name: str) -> None:
    discard(home(name), name)


def mend(name: str) -> None:
    """Adds what is missing of an account's project and workspace, and touches nothing that is there."""
    if has_workspace(name):
        return
    new = build(name)
    try:
        _put_missing(new, name)
    except OSError:
        if not has_workspace(name):  # somebody else may have been faster
            raise
    finally:
        delete(new)
    if not has_workspace(name):
        raise OSError(f"{home(name)} could not be given a workspace: something else lies in its place")


def _put_missing(new: Path, name: str) -> None:
    """The outermost directory that is missing, whole; or else what the workspace lacks."""
    parts: tuple[str, ...] = ()
    for part in (None, PROJECT, *WORKSPACE):
        parts += (part,) if part else ()
        place = home(name).joinpath(*parts)
        if not os.path.lexists(place):
            os.rename(new.joinpath(*parts), place)
            return
        if place.is_symlink() or not place.is_dir():
            raise OSError(f"{place} is no directory, and nothing is put through it")
    _mend_workspace(new.joinpath(*parts), home(name).joinpath(*parts))


def _mend_workspace(new: Path, place: Path) -> None:
    for entry in sorted(new.iterdir()):
        target = place / entry.name
        # An empty marker counts as none, and a rename replaces it: an empty directory, or a file of no bytes.
        if not os.path.lexists(target) or (entry.name == MARKER and entry.is_dir() == target.is_dir()):
            os.rename(entry, target)


def delete(path: Path) -> None:
    """Deletes one entry of the scratch, and the scratch with its last one."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
    _leave()


def sweep(name: str) -> None:
    """Deletes what a slot has in the scratch. Only whoever holds the slot's lock may."""
    for entry in sorted(scratch().glob(f"app-{name}.*")):
        delete(entry)
    _leave()


def sweep_old(seconds: float = 3600) -> None:
    """Deletes what somebody was killed over: no living build is that old."""
    for entry in sorted(scratch().glob("app-*")):
        with suppress(OSError):
            if time.time() - entry.lstat().st_ctime > seconds:
                delete(entry)
    _leave()


def _leave() -> None:
    with suppress(OSError):
        scratch().rmdir()  # only if it is empty
