# SPDX-License-Identifier: GPL-3.0-or-later
"""The atomic writer and its neighbours on a real file system; under fire it is in tests/faults/test_script.py."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import resource
import socket
import subprocess
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files import atomic, backups, busy, leftovers
from ansible_collections.shipshape.deploy.plugins.module_utils.files.attributes import Attributes, parse_mode
from ansible_collections.shipshape.deploy.plugins.module_utils.files.problems import explain
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


def code(error: pytest.ExceptionInfo[ShipshapeError]) -> str:
    return error.value.findings[0].code


def mode(path) -> int:
    return os.stat(path).st_mode & 0o7777


def test_a_new_file(tmp_path):
    dest = tmp_path / "new"
    old_mask = os.umask(0o027)
    try:
        atomic.write(str(dest), b"content")
    finally:
        os.umask(old_mask)
    assert dest.read_bytes() == b"content"
    assert mode(dest) == 0o640
    assert atomic.checksum(str(dest)) == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    assert atomic.checksum(str(tmp_path / "absent")) is None


def test_a_stream_larger_than_one_piece_and_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = os.urandom(3 * 1024 * 1024 + 17)
    atomic.write("large", io.BytesIO(content))
    assert (tmp_path / "large").read_bytes() == content
    assert os.listdir() == ["large"]


def test_an_existing_file_keeps_what_is_not_asked_for(tmp_path):
    dest = tmp_path / "file"
    dest.write_bytes(b"old")
    dest.chmod(0o4711)
    os.setxattr(dest, "user.note", b"keep me")
    atomic.write(str(dest), b"new")
    assert (mode(dest), os.getxattr(dest, "user.note")) == (0o4711, b"keep me")
    atomic.write(str(dest), b"new", Attributes(mode=0o600))
    assert mode(dest) == 0o600


@needs_root
def test_owner_and_group_are_kept_set_and_resolved(tmp_path):
    dest = tmp_path / "file"
    dest.write_bytes(b"old")
    os.chown(dest, 1234, 4321)
    atomic.write(str(dest), b"new", Attributes(mode=0o6755))
    info = dest.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (1234, 4321, 0o6755)
    atomic.write(str(dest), b"new", Attributes(owner="root", group="99"))
    assert (dest.stat().st_uid, dest.stat().st_gid) == (0, 99)
    for attributes, expected in (
        (Attributes(owner="nobody!"), "unknown-owner"),
        (Attributes(group="!"), "unknown-group"),
    ):
        with pytest.raises(ShipshapeError) as caught:
            atomic.write(str(dest), b"newer", attributes)
        assert code(caught) == expected
    assert dest.read_bytes() == b"new"


def test_nothing_is_there_before_the_commit_and_nothing_remains_after_a_discard(tmp_path):
    dest = tmp_path / "file"
    dest.write_bytes(b"old")
    pending = atomic.prepare(str(dest), b"new")
    assert dest.read_bytes() == b"old"
    assert os.path.dirname(pending.path) == str(tmp_path)
    pending.discard()
    pending.discard()
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(RuntimeError), atomic.prepare(str(dest), b"new"):
        raise RuntimeError
    with atomic.prepare(str(dest), b"new") as pending:
        pending.commit()
    assert os.listdir(tmp_path) == ["file"]
    assert dest.read_bytes() == b"new"


def test_a_temporary_is_nobody_elses_business_until_it_is_complete(tmp_path):
    seen = []

    class Watching(io.BytesIO):
        def read(self, size=-1):
            seen.extend(mode(tmp_path / name) for name in os.listdir(tmp_path))
            return super().read(size)

    atomic.write(str(tmp_path / "file"), Watching(b"x"), Attributes(mode=0o777))
    assert set(seen) == {0o600}


def test_other_content_than_expected_is_refused(tmp_path):
    dest = tmp_path / "file"
    dest.write_bytes(b"old")
    with pytest.raises(ShipshapeError) as caught:
        atomic.write(str(dest), b"new", expected_sha256="0" * 64)
    assert code(caught) == "content-corrupt"
    assert (dest.read_bytes(), os.listdir(tmp_path)) == (b"old", ["file"])


def test_a_disk_that_gives_back_something_else_is_noticed(tmp_path, monkeypatch):
    dest = tmp_path / "file"
    monkeypatch.setattr(atomic, "_read_back", lambda fd: "0" * 64)
    with pytest.raises(ShipshapeError) as caught:
        atomic.write(str(dest), b"new")
    assert code(caught) == "disk-corrupt"
    assert os.listdir(tmp_path) == []


def test_a_source_that_fails_leaves_nothing(tmp_path):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.write(str(tmp_path / "file"), Broken())
    assert os.listdir(tmp_path) == []


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_bytes(b"old")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("real/file")
    atomic.write(str(tmp_path / "one"), b"new")
    assert (tmp_path / "one").is_symlink()
    assert (tmp_path / "real/file").read_bytes() == b"new"
    assert os.listdir(tmp_path / "real") == ["file"]


def test_another_hard_link_keeps_the_old_content(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    os.link(tmp_path / "file", tmp_path / "other")
    atomic.write(str(tmp_path / "file"), b"new")
    assert (tmp_path / "other").read_bytes() == b"old"


def _make_dangling(path):
    path.symlink_to("nowhere")


def _make_loop(path):
    path.symlink_to(path.name)


def _make_link_to_directory(path):
    (path.parent / "directory").mkdir()
    path.symlink_to("directory")


def _make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (_make_dangling, "dangling-link"),
        (_make_loop, "symlink-loop"),
        (lambda path: path.mkdir(), "destination-is-directory"),
        (_make_link_to_directory, "destination-is-directory"),
        (os.mkfifo, "destination-not-a-file"),
        (_make_socket, "destination-not-a-file"),
    ],
)
def test_destinations_that_are_no_file(tmp_path, make, expected):
    make(tmp_path / "dest")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ShipshapeError) as caught:
        atomic.write(str(tmp_path / "dest"), b"new")
    assert code(caught) == expected
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("missing/file", "missing-parent"),
        ("file/file", "not-a-directory"),
        ("n" * 256, "name-too-long"),
        ("a/" * 3000 + "file", "name-too-long"),
        ("directory/", "invalid-name"),
        ("..", "invalid-name"),
        ("nul\0", "invalid-name"),
    ],
)
def test_paths_that_cannot_be(tmp_path, path, expected):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ShipshapeError) as caught:
        atomic.write(f"{tmp_path}/{path}", b"new")
    assert code(caught) == expected
    assert caught.value.findings[0].remedy


@pytest.mark.parametrize(
    "name", ["n" * 255, "ü" * 127, "with space\nand newline", "\udcff\udcfe", "-rf", "*", ".hidden"]
)
def test_unusual_names(tmp_path, name):
    dest = f"{tmp_path}/{name}"
    atomic.write(dest, b"one")
    atomic.write(dest, b"two")
    assert os.listdir(tmp_path) == [name]
    pending = atomic.prepare(dest, b"three")
    assert leftovers.is_ours(os.path.basename(pending.path))
    pending.discard()


@needs_root
def test_an_immutable_file_is_named_before_anything_is_written(tmp_path):
    dest = tmp_path / "file"
    dest.write_bytes(b"old")
    if subprocess.run(["chattr", "+i", dest], capture_output=True).returncode:
        pytest.skip("this file system has no such attribute")
    try:
        with pytest.raises(ShipshapeError, match=r"chattr -ia") as caught:
            atomic.write(str(dest), b"new")
    finally:
        subprocess.run(["chattr", "-i", dest], check=True)
    assert code(caught) == "immutable"


def test_more_files_at_once_than_the_soft_limit_allows(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        pendings = [atomic.prepare(str(tmp_path / str(number)), b"x") for number in range(60)]
        for pending in pendings:
            pending.commit(sync=False)
        atomic.sync_directories(pending.target for pending in pendings)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir(tmp_path)) == 60


def test_the_sweep_takes_abandoned_temporaries_of_ours_and_nothing_else(tmp_path):
    abandoned = leftovers.temporary_name("script.sh")
    (tmp_path / abandoned).write_bytes(b"half")
    others = [".shipshape-manifest.json", ".shipshape-x-0123.tmp", "x-0123456789abcdef.tmp", "script.sh"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    linked = leftovers.temporary_name("link")
    (tmp_path / linked).symlink_to("script.sh")
    with atomic.prepare(str(tmp_path / "script.sh"), b"new") as living:
        assert atomic.sweep(str(tmp_path)) == [abandoned]
        assert os.path.exists(living.path)
        living.commit()
    assert sorted(os.listdir(tmp_path)) == sorted([*others, linked])
    assert atomic.sweep(str(tmp_path / "missing")) == []


def test_a_temporary_swept_before_it_was_locked_is_made_anew(tmp_path, monkeypatch):
    real, swept = leftovers.claim, []

    def slow(path, writer):
        if not swept:
            swept.extend(leftovers.sweep(str(tmp_path)))
        return real(path, writer)

    monkeypatch.setattr(atomic, "claim", slow)
    atomic.write(str(tmp_path / "file"), b"new")
    assert len(swept) == 1
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_temporary_swept_while_it_was_about_to_be_locked_is_made_anew(tmp_path, monkeypatch):
    real, swept = leftovers._lock, []

    def slow(fd, *, wait):
        if wait and not swept:
            swept.append("now")  # the sweep takes the lock itself
            swept.extend(leftovers.sweep(str(tmp_path)))
        return real(fd, wait=wait)

    monkeypatch.setattr(leftovers, "_lock", slow)
    atomic.write(str(tmp_path / "file"), b"new")
    assert len(swept) == 2
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_the_sweep_never_makes_a_file_unexecutable_by_opening_it_to_write(tmp_path, monkeypatch):
    real, busy_meanwhile = leftovers._abandoned, []

    def watched(fd, info):
        busy_meanwhile.extend(busy.open_for_writing(str(path)) for path in tmp_path.iterdir())
        return real(fd, info)

    monkeypatch.setattr(leftovers, "_abandoned", watched)
    with atomic.prepare(str(tmp_path / "file"), b"new"):
        assert leftovers.sweep(str(tmp_path)) == []
    assert busy_meanwhile == [False]


def test_a_pending_file_is_not_open_for_writing(tmp_path):
    with atomic.prepare(str(tmp_path / "file"), b"#!/bin/sh\n", Attributes(mode=0o755)) as pending:
        assert not busy.open_for_writing(pending.path)
        subprocess.run([pending.path], check=True)


def test_open_for_writing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"")
    holder = subprocess.Popen(["sh", "-c", 'exec 3>>"$1"; echo; read x', "sh", path], stdin=-1, stdout=-1)
    reader = path.open("rb")
    try:
        holder.stdout.readline()
        assert busy.open_for_writing(str(path))
        assert [writer.pid for writer in busy.writers(str(path))] == [holder.pid]

        def no_leases(*arguments):
            raise OSError(errno.EINVAL, "no leases here")

        monkeypatch.setattr(fcntl, "fcntl", no_leases)
        assert busy.open_for_writing(str(path))
    finally:
        holder.communicate(b"\n")
    assert not busy.open_for_writing(str(path))
    monkeypatch.undo()
    assert not busy.open_for_writing(str(path))
    assert not busy.open_for_writing(str(tmp_path / "absent"))
    reader.close()


def test_backups_are_whole_kept_in_order_and_found_again(tmp_path):
    target = tmp_path / "script.sh"
    made = []
    for version in (b"1", b"2", b"3"):
        atomic.write(str(target), version, Attributes(mode=0o750))
        made.append(backups.make(str(target)))
    (tmp_path / "script.sh.bak~").write_bytes(b"somebody else's")
    (tmp_path / "script.sh2.20260101T000000000000Z~").write_bytes(b"another script's")
    assert backups.existing(str(target)) == made
    assert [Path(path).read_bytes() for path in made] == [b"1", b"2", b"3"]
    assert all(mode(path) == 0o750 for path in made)
    assert re.fullmatch(r"script\.sh\.\d{8}T\d{12}Z~", os.path.basename(made[0]))
    assert backups.make(str(target)) == made[-1], "killed before the rename: the same backup is used again"


def test_backups_without_hard_links_are_copies(tmp_path, monkeypatch):
    def no_links(*arguments):
        raise OSError(errno.EPERM, "no hard links here")

    target = tmp_path / ("n" * 255)
    target.write_bytes(b"old")
    target.chmod(0o711)
    monkeypatch.setattr(os, "link", no_links)
    path = backups.make(str(target))
    assert (Path(path).read_bytes(), mode(path)) == (b"old", 0o711)
    assert backups.existing(str(target)) == [path]


@pytest.mark.parametrize(
    ("given", "parsed"),
    [(None, None), ("", None), ("0755", 0o755), ("755", 0o755), (0o755, 0o755), (0o4755, 0o4755), ("u+x", "u+x")],
)
def test_modes(given, parsed):
    assert parse_mode("/x", given) == parsed


@pytest.mark.parametrize("given", [755, 644, 700, "77777", 99999])
def test_modes_nobody_means(given):
    with pytest.raises(ShipshapeError) as caught:
        parse_mode("/x", given)
    assert code(caught) == "invalid-mode"


def test_an_error_nobody_thought_of_still_says_what_and_where():
    finding = explain(OSError(errno.ENOTRECOVERABLE, "State not recoverable"), "/srv/x", "write the new file").findings[
        0
    ]
    assert (finding.subject, finding.code) == ("/srv/x", "write-failed")
    assert "cannot write the new file: State not recoverable" in finding.message
