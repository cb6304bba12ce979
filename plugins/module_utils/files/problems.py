# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says in a sentence what an errno of a write means, where, and what to do about it."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from ..report.finding import ShipshapeError, failure

# errno -> (code, what is wrong, what to do). The codes are stable: they are part of the modules' documentation.
_KNOWN = {
    errno.ENOSPC: ("disk-full", "the file system is full", "Free space in {directory} (df -h, df -i), then run again"),
    errno.EDQUOT: ("disk-full", "the disk quota is used up", "Free space or raise the quota, then run again"),
    errno.EFBIG: (
        "file-too-large",
        "the file is larger than is allowed here",
        "Raise the limit (ulimit -f), then run again",
    ),
    errno.EROFS: (
        "read-only",
        "the file system is mounted read-only",
        "Mount {directory} writable (findmnt -T), then run again",
    ),
    errno.EACCES: (
        "no-rights",
        "access denied for user {user}",
        "Run with become, or give that user rights on {directory}",
    ),
    errno.EPERM: (
        "no-rights",
        "not permitted for user {user}",
        "Run with become, or give that user rights on {directory}",
    ),
    errno.ENOENT: (
        "missing-parent",
        "there is no directory {directory}",
        "Create it first: ansible.builtin.file, state=directory",
    ),
    errno.ENOTDIR: (
        "not-a-directory",
        "a part of {directory} is not a directory",
        "Correct the path, or remove what is in its way",
    ),
    errno.EISDIR: ("destination-is-directory", "the destination is a directory", "Name a file in dest"),
    errno.ENAMETOOLONG: ("name-too-long", "the file name or path is too long", "Use a name of at most 255 bytes"),
    errno.ELOOP: ("symlink-loop", "too many symbolic links on the way", "Correct the links (namei -l)"),
    errno.EBUSY: (
        "destination-mounted",
        "the destination is a mount point of its own",
        "Change the file that is mounted there instead",
    ),
    errno.EMFILE: (
        "too-many-open-files",
        "too many files are open",
        "Raise the limit (ulimit -n), or place fewer files at once",
    ),
    errno.ENFILE: (
        "too-many-open-files",
        "too many files are open on this machine",
        "Raise fs.file-max, then run again",
    ),
    errno.EIO: (
        "input-output-error",
        "the disk reports an error",
        "Look at the disk (dmesg, smartctl) before running again",
    ),
    errno.EILSEQ: ("invalid-name", "the file system does not accept this name", "Use another name in dest"),
}
_FS_IOC_GETFLAGS = 0x80086601 if struct.calcsize("l") == 8 else 0x80046601
_FS_IMMUTABLE_FL = 0x10
_FS_APPEND_FL = 0x20


def locked_by_attribute(path: str) -> bool:
    """Whether chattr +i or +a keeps `path` from being replaced."""
    import fcntl

    flags = bytearray(struct.calcsize("l"))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
    except OSError:
        return False  # this file system knows no such attributes
    finally:
        os.close(fd)
    return bool(int.from_bytes(flags[:4], "little") & (_FS_IMMUTABLE_FL | _FS_APPEND_FL))


def immutable(path: str) -> ShipshapeError:
    return failure(path, "immutable", "the attribute +i or +a forbids replacing it", f"Clear it: chattr -ia {path}")


def explain(error: OSError, dest: str, doing: str) -> ShipshapeError:
    """`error`, met while `doing` something for `dest`, as the error to show."""
    directory = os.path.dirname(dest) or "."
    if error.errno == errno.EPERM:
        for path in (dest, directory):
            if locked_by_attribute(path):
                return immutable(path)
    reason = error.strerror or str(error)
    unknown = ("write-failed", f"{reason} (errno {error.errno})", "Look at the file system and the kernel log")
    code, what, remedy = _KNOWN.get(error.errno or 0, unknown)
    names = {"directory": directory, "user": f"uid {os.geteuid()}"}
    return failure(dest, code, f"cannot {doing}: {what.format(**names)}", remedy.format(**names))


@contextmanager
def explained(dest: str, doing: str) -> Iterator[None]:
    """Turns an OSError of the body into the error to show."""
    try:
        yield
    except OSError as error:
        raise explain(error, dest, doing) from error
