# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tree in places of every sort: a full disk, a limit of open files, another user, another machine, a vault."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.transports import sshd
from tests.support.trees import Project, same_but_for_time, snapshot, write


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_full_disk_changes_nothing(project: Project) -> None:
    """A small file system of its own: neither what is known not to fit nor what turns out not to leaves a trace."""
    project.write("a", "old")
    project.write("b/c", "old")
    project.dest.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", project.dest], check=True)
    try:
        project.shipped()
        before = snapshot(project.dest)
        project.write("a", "new")
        project.write("big", os.urandom(300_000))
        result = project.refused()
        assert [finding["code"] for finding in result["findings"]] == ["disk-full"]
        assert not result["changed"]
        assert snapshot(project.dest) == before
        # 40 files of one block each: their sizes fit, their blocks and those of the directory do not.
        (project.src / "big").unlink()
        for number in range(80):
            project.write(f"new/{number}", os.urandom(3000))
        result = project.refused()
        assert [finding["code"] for finding in result["findings"]] == ["disk-full"]
        assert not result["changed"], result
        assert snapshot(project.dest) == before
        subprocess.run(["mount", "-o", "remount,size=4m", project.dest], check=True)
        project.shipped()
        assert snapshot(project.dest) == snapshot(project.src)
    finally:
        subprocess.run(["umount", project.dest], check=True)


def test_more_files_than_may_be_open(project: Project) -> None:
    for number in range(150):
        project.write(f"d{number % 3}/f{number}", str(number))
    project.shipped(prefix=["prlimit", "--nofile=100:100"])
    assert snapshot(project.dest) == snapshot(project.src)


def test_two_at_once(project: Project) -> None:
    project.write("a", "1")
    project.shipped()
    project.write("a", "2")
    with open(project.dest / ".shipshape" / "lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"process 4711, since yesterday")
        lock.flush()
        started = time.monotonic()
        result = project.refused(lock_timeout=1)
        assert time.monotonic() - started < 20
        assert [finding["code"] for finding in result["findings"]] == ["deploy-running"]
        assert "4711" in result["msg"]
        assert (project.dest / "a").read_text() == "1"
    project.shipped()
    assert (project.dest / "a").read_text() == "2"


def test_vault(project: Project) -> None:
    """An encrypted file arrives decrypted, and its content is in no output."""
    password = write(project.folder / "password", "pw\n")
    write(project.src / "key.pem", "planted-secret-content\n")
    vault = str(Path(sys.executable).parent / "ansible-vault")
    words = [vault, "encrypt", "--vault-password-file", str(password), str(project.src / "key.pem")]
    subprocess.run(words, check=True, capture_output=True)
    os.chmod(project.src / "key.pem", 0o644)
    assert [finding["code"] for finding in project.refused_play()["findings"]] == ["vault-locked"]
    done = project.play("--vault-password-file", str(password), "--diff", "-vvv")
    assert done.rc == 0, done.output
    assert (project.dest / "key.pem").read_text() == "planted-secret-content\n"
    assert "planted-secret" not in done.output
    assert not project.played("--vault-password-file", str(password))["changed"]


def test_another_user() -> None:
    """become without rights of root, with the group and owner that come of it, without pipelining and with."""
    # Not below pytest's directory, which is closed to others.
    with tempfile.TemporaryDirectory(prefix="shipshape-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        _as_nobody(Project(Path(folder)))


def _as_nobody(project: Project) -> None:
    project.dest.parent.mkdir()
    os.chown(project.dest.parent, 65534, 65534)
    before = set(os.listdir("/var/tmp"))  # a play that was killed may have left something
    become = {
        # The environment's own interpreter may lie where nobody has access.
        "vars": {"ansible_python_interpreter": "/usr/bin/python3"},
        "become": True,
        "become_user": "nobody",
        "become_method": "ansible.builtin.su",
        "become_flags": "-s /bin/sh",
    }
    for number, pipelining in enumerate(("false", "true")):
        project.write("conf/a", str(number))
        env = {"ANSIBLE_PIPELINING": pipelining}
        done = project.play(env=env, keywords=become)
        assert done.rc == 0, done.output
        assert snapshot(project.dest) == snapshot(project.src)
        assert (project.dest / "conf" / "a").stat().st_uid == 65534
    assert [f["code"] for f in project.refused_play(dest="/root/x", keywords=become, env=env)["findings"]] == [
        "no-rights"
    ]
    left = [name for name in os.listdir("/var/tmp") if name.startswith("ansible-tmp")]
    assert set(left) <= before


def test_owner_and_group(project: Project) -> None:
    project.write("conf/a", "1")
    (project.src / "conf" / "l").symlink_to("a")
    project.shipped()
    predicted = project.shipped(check=True, diff=True, owner="nobody", group="nogroup")
    result = project.shipped(diff=True, owner="nobody", group="nogroup")
    same_but_for_time(predicted, result)
    for path in ("conf", "conf/a", "conf/l"):
        info = os.lstat(project.dest / path)
        assert (info.st_uid, info.st_gid) == (65534, 65534), path
    assert not project.shipped(owner="nobody", group="nogroup")["changed"]
    assert not project.shipped()["changed"]


def test_no_docker(project: Project) -> None:
    project.write("compose.yml", "services: {}")
    result = project.shipped(env={"PATH": "/nowhere"}, files=["compose.yml"])
    assert {finding["code"] for finding in result["findings"]} <= {"bind-mounts-unknown"}


def test_over_ssh(project: Project) -> None:
    """With pipelining and without, a large manifest as a file, and nothing left in the remote's temporary directory."""
    with sshd() as server:
        for number in range(4500):
            project.write(f"d{number % 9}/{number}-{'x' * 60}", os.urandom(8))
        remote_tmp = project.folder / "remote-tmp"
        inventory = {
            "vars": {
                "ansible_connection": "ssh",
                "ansible_host": "127.0.0.1",
                "ansible_port": server.port,
                "ansible_ssh_private_key_file": f"{server.folder}/user",
                "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
                "ansible_remote_tmp": str(remote_tmp),
            }
        }
        for number, pipelining in enumerate(("true", "false")):
            project.write("changes", str(number))
            result = project.played(keywords=inventory, env={"ANSIBLE_PIPELINING": pipelining})
            assert result["changed"]
            assert snapshot(project.dest) == snapshot(project.src)
            again = project.played(keywords=inventory, env={"ANSIBLE_PIPELINING": pipelining})
            assert not again["changed"]
        assert os.listdir(remote_tmp) == []
