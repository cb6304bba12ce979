# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Owner, group, mode and extended attributes of a file that takes another one's place."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from ..report.finding import failure

_ACL = "system.posix_acl_access"
_SELINUX = "security.selinux"
_SELINUX_MOUNT = "/sys/fs/selinux/enforce"
_NEW_FILE = 0o644
# `mode: 755` without quotes and zero is 0o1363, which nobody ever means.
_DECIMAL_MISTAKES = (400, 440, 444, 500, 550, 555, 600, 640, 644, 660, 664, 700, 711, 744, 750, 755, 770, 775, 777)


@dataclass(frozen=True)
class Attributes:
    """What a file shall have. None keeps what the existing destination has.

    For a new file None means: mode 0644 less the umask, the caller's uid, and the group that the directory gives.
    A name of digits is taken as a number when no account bears it.
    """

    mode: int | None = None
    owner: str | int | None = None
    group: str | int | None = None


KEEP = Attributes()


@dataclass(frozen=True)
class Resolved:
    """The same in numbers. None: as the kernel made it."""

    mode: int
    uid: int | None
    gid: int | None


def parse_mode(dest: str, mode: str | int | None) -> int | str | None:
    """A mode as people write it: octal in a string, or a YAML octal; symbolic ones ("u+x") come back as they are."""
    if mode is None or mode == "":
        return None
    if isinstance(mode, int):
        if mode in _DECIMAL_MISTAKES or not 0 <= mode <= 0o7777:
            raise failure(dest, "invalid-mode", f"mode {mode} is a decimal number", f'Write "0{mode}", in quotes')
        return mode
    try:
        number = int(mode, 8)
    except ValueError:
        return mode
    if not 0 <= number <= 0o7777:
        raise failure(dest, "invalid-mode", f"there is no mode {mode}", 'Write it as in "0755"')
    return number


def resolve(dest: str, attributes: Attributes, old: os.stat_result | None) -> Resolved:
    """What the new file gets, given what is there."""
    mode = attributes.mode
    if mode is None:
        mode = stat.S_IMODE(old.st_mode) if old else _NEW_FILE & ~_umask()
    uid = old.st_uid if old else None
    gid = old.st_gid if old else None
    if attributes.owner is not None:
        uid = _uid(dest, attributes.owner)
    if attributes.group is not None:
        gid = _gid(dest, attributes.group)
    return Resolved(mode, uid, gid)


def differences(dest: str, attributes: Attributes, old: os.stat_result) -> list[str]:
    """Which of mode, owner, group the existing file has otherwise than asked."""
    wanted = resolve(dest, attributes, old)
    return [
        name
        for name, differs in (
            ("mode", wanted.mode != stat.S_IMODE(old.st_mode)),
            ("owner", wanted.uid != old.st_uid),
            ("group", wanted.gid != old.st_gid),
        )
        if differs
    ]


def apply(file: int | str, wanted: Resolved, predecessor: str | None) -> None:
    """Dresses a file, open or by path: owner (which clears setuid bits), then what `predecessor` had, then mode."""
    info = os.stat(file)
    uid = -1 if wanted.uid is None or wanted.uid == info.st_uid else wanted.uid
    gid = -1 if wanted.gid is None or wanted.gid == info.st_gid else wanted.gid
    if (uid, gid) != (-1, -1):
        os.chown(file, uid, gid)
    if predecessor is not None and hasattr(os, "listxattr"):
        _copy_extended(predecessor, file)
    os.chmod(file, wanted.mode)


def label_new(fd: int, target: str) -> None:
    """The SELinux context that the policy has for a new file at `target`; nothing where SELinux is off."""
    if not os.path.exists(_SELINUX_MOUNT):
        return
    try:
        import selinux  # type: ignore[import-not-found]
    except ImportError:
        return  # the kernel then gives it the directory's type
    try:
        code, context = selinux.matchpathcon(os.path.realpath(target), stat.S_IFREG)
        if code == 0:
            selinux.fsetfilecon(fd, context)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise


def _copy_extended(source: str, file: int | str) -> None:
    """ACL, SELinux context and user.* attributes. Not capabilities and IMA hashes: those vouch for the old content."""
    try:
        has = set(os.listxattr(source))
        inherited = set(os.listxattr(file))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return
        raise
    for name in sorted(has):
        if name in (_ACL, _SELINUX) or name.startswith("user."):
            _set_extended(file, name, os.getxattr(source, name))
    if _ACL in inherited - has:
        os.removexattr(file, _ACL)  # the directory's default ACL, which the old file did not have


def _set_extended(file: int | str, name: str, value: bytes) -> None:
    try:
        os.setxattr(file, name, value)
    except OSError as error:
        # Inside a container a context can often be read but not written; the kernel's default is right there.
        if name != _SELINUX or error.errno not in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _uid(dest: str, owner: str | int) -> int:
    import pwd

    if isinstance(owner, int):
        return owner
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        if owner.isdecimal():
            return int(owner)
        raise failure(
            dest, "unknown-owner", f"there is no user {owner!r}", "Create it first, or correct owner"
        ) from None


def _gid(dest: str, group: str | int) -> int:
    import grp

    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isdecimal():
            return int(group)
        raise failure(
            dest, "unknown-group", f"there is no group {group!r}", "Create it first, or correct group"
        ) from None
