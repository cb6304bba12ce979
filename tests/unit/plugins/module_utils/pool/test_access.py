# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mode of a file or directory lets a process do, as tables."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import access
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.access import ENTER, READ, WRITE, Access, Worker
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.walk import HostPath

ALL = READ | WRITE | ENTER
HERE = ((0, 4294967295),)
REMAPPED = ((100000, 65536),)
OVERRIDE, SEARCH, SETUID = 1 << 1, 1 << 2, 1 << 7


def about(uid: int, gid: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFDIR | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


def worker(uid: int = 1000, *groups: int, capabilities: int = 0, ids: access.Ranges = HERE) -> Worker:
    return Worker(uid, frozenset(groups or (uid,)), capabilities, ids, ids)


LACKS = [
    (worker(), (1000, 1000, 0o700), ALL, False),
    (worker(), (1000, 1000, 0o500), ALL, True),
    (worker(), (1000, 1000, 0o500), READ | ENTER, False),
    (worker(), (0, 0, 0o755), ALL, True),
    (worker(), (0, 0, 0o755), ENTER, False),
    (worker(), (0, 0, 0o750), ENTER, True),
    (worker(), (0, 1000, 0o770), ALL, False),
    (worker(1000, 1000, 33), (0, 33, 0o770), ALL, False),
    (worker(), (0, 0, 0o777), ALL, False),
    # The first of owner, group and others that fits counts, even if the next would allow more.
    (worker(), (1000, 1000, 0o077), READ, True),
    (worker(), (0, 1000, 0o707), READ, True),
    # Root is nobody special; what it may do are its capabilities, and a container can drop them.
    (worker(0), (1000, 1000, 0o700), ENTER, True),
    (worker(0, capabilities=OVERRIDE), (1000, 1000, 0o000), ALL, False),
    (worker(0, capabilities=SEARCH), (1000, 1000, 0o000), READ | ENTER, False),
    (worker(0, capabilities=SEARCH), (1000, 1000, 0o000), ALL, True),
    # In a user namespace of its own they reach no further than its files.
    (worker(100000, capabilities=OVERRIDE, ids=REMAPPED), (100999, 100999, 0o700), ALL, False),
    (worker(100000, capabilities=OVERRIDE, ids=REMAPPED), (0, 0, 0o700), ENTER, True),
    (worker(100000, capabilities=OVERRIDE, ids=REMAPPED), (100999, 0, 0o700), ENTER, True),
    (worker(100000, capabilities=OVERRIDE, ids=REMAPPED), (165536, 165536, 0o700), ENTER, True),
]


@pytest.mark.parametrize(("who", "what", "wanted", "expected"), LACKS)
def test_what_a_mode_refuses(who: Worker, what: tuple[int, int, int], wanted: int, expected: bool) -> None:
    assert who.lacks(about(*what), wanted) is expected


STATUS = """Name:\tgunicorn
Uid:\t1000\t1000\t1000\t1001
Gid:\t1000\t1000\t1000\t1002
Groups:\t33 44
CapEff:\t00000000a80425fb
"""


def test_a_process_is_what_the_kernel_says() -> None:
    found = access.parsed(STATUS, "         0     100000      65536\n", "0 100000 1000\n 2000 200000 7\n")
    assert found == Worker(
        1001, frozenset({33, 44, 1002}), 0xA80425FB, ((100000, 65536),), ((100000, 1000), (200000, 7))
    )


def test_without_further_groups() -> None:
    assert access.parsed(STATUS.replace("33 44", ""), "", "").groups == {1002}


def test_a_process_that_is_not_the_containers_is_nobody() -> None:
    assert access.worker(os.getpid(), "f" * 64) is None
    assert access.worker(2**22 + 1, "") is None


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    """visitor-001/default-project/work/marker, of somebody who is nobody here."""
    (tmp_path / "visitor-001/default-project/work/marker").mkdir(parents=True)
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755)
        os.chown(path, 4321, 4321)
    return tmp_path


NAMES = ("visitor-001", "default-project", "work", "marker")
PLACES = [
    ("visitor-001", 0o600, True),
    ("visitor-001", 0o100, False),
    ("visitor-001/default-project", 0o600, True),
    ("visitor-001/default-project", 0o100, False),
    ("visitor-001/default-project/work", 0o500, True),
    ("visitor-001/default-project/work", 0o300, True),
    ("visitor-001/default-project/work/marker", 0o300, True),
    ("visitor-001/default-project/work/marker", 0o400, False),
]


def refusal(root: Path, *who: Worker, depth: int = 4) -> str:
    fd = os.open(root, os.O_RDONLY)
    try:
        return Access(HostPath(str(root)), who).refusal(fd, NAMES, depth)
    finally:
        os.close(fd)


@pytest.mark.parametrize(("place", "mode", "refused"), PLACES)
def test_what_is_needed_of_each_directory(slot: Path, place: str, mode: int, refused: bool) -> None:
    assert refusal(slot, worker(4321)) == ""
    (slot / place).chmod(mode)
    found = refusal(slot, worker(4321))
    assert bool(found) is refused
    assert not found or found == f"the application runs as user 4321, and {place} is 4321:4321, mode {mode:04o}"
    assert refusal(slot) == ""


def test_what_is_not_there_is_not_judged(slot: Path) -> None:
    (slot / "visitor-001/default-project/work").chmod(0)
    assert refusal(slot, worker(4321), depth=2) == ""
    assert refusal(slot, worker(4321), depth=3)


def test_whom_a_list_lets_in_is_let_in(slot: Path) -> None:
    """user::rwx, user:1000:rwx, group::---, mask::rwx, other::---"""
    place = slot / "visitor-001"
    place.chmod(0o700)
    assert refusal(slot, worker())
    everybody = 0xFFFFFFFF
    entries = [(1, 7, everybody), (2, 7, 1000), (4, 0, everybody), (16, 7, everybody), (32, 0, everybody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(place, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"this file system has no access control lists: {error}")
    (place / "default-project/work").chmod(0o777)
    assert refusal(slot, worker()) == ""


def test_the_way_to_the_slots_is_looked_at_first(slot: Path) -> None:
    place = HostPath(str(slot), "visitor-001/default-project")
    who = replace(worker(), mount=str(slot))
    assert Access(place, [who]).denied == ""
    (slot / "visitor-001").chmod(0o700)
    found = Access(place, [who])
    assert found.denied.endswith(f"and {slot}/visitor-001 is 4321:4321, mode 0700")
    assert Access(place, []).denied == ""
    assert Access(place, [worker()]).denied == "", "it begins where the application's mount does"
    assert Access(place, [who, worker()]).denied == "", "one comes in"


def test_what_one_may_is_open(slot: Path) -> None:
    (slot / "visitor-001").chmod(0o700)
    assert refusal(slot, worker(), worker(1001)).startswith("the application runs as user 1000")
    assert refusal(slot, worker(), worker(4321)) == ""


def test_each_must_come_all_the_way(slot: Path) -> None:
    (slot / "visitor-001").chmod(0o700)
    os.chown(slot / "visitor-001/default-project/work", 1000, 1000)
    assert refusal(slot, worker(), worker(4321))


def test_who_may_become_another_is_not_who_works(slot: Path) -> None:
    (slot / "visitor-001").chmod(0o700)
    assert refusal(slot, worker(0))
    assert refusal(slot, worker(0, capabilities=SETUID)) == ""
    assert refusal(slot, worker(1000), worker(0, capabilities=SETUID)) == ""


MOUNTS = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
122 22 0:40 / /nfs rw shared:1 master:2 - nfs4 server:/data rw,vers=4.2
23 22 0:41 / /fuse rw - fuse.s3fs s3fs rw,user_id=0,allow_other
24 22 8:1 /data /mapped rw,idmapped - ext4 /dev/sda1 rw
25 22 0:42 / /memory rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("number", "expected"), [("22", True), ("122", False), ("23", False), ("24", False), ("25", True), ("2", False)]
)
def test_whether_modes_decide_is_the_file_systems(number: str, expected: bool) -> None:
    assert access.decided(MOUNTS, number) is expected


def test_nothing_is_refused_where_modes_do_not_decide(slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot.chmod(0o700)
    assert Access(HostPath(str(slot)), [worker()]).denied
    monkeypatch.setattr(access, "_DECIDING", {"nothing"})
    assert Access(HostPath(str(slot)), [worker()]).denied == ""
