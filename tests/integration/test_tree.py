# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tree by real playbooks: what lies on the target afterwards is looked at, not what the task reports."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.engine import Engine
from tests.support.playbook import Played, environment, play
from tests.support.transports import sshd
from tests.support.trees import ship, snapshot, write


class Project:
    """A source, a destination, and what ships the one to the other: the module alone, or a whole playbook."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.src = folder / "files" / "shop"
        self.dest = folder / "target" / "shop"
        self.src.mkdir(parents=True)

    def write(self, path: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        return write(self.src / path, content, mode)

    def play(self, *flags: str, env: dict[str, str] | None = None, keywords: Any = None, **options: Any) -> Played:
        task = {"shipshape.deploy.tree": {"src": "shop", "dest": str(self.dest), **options}}
        return play(self.folder, task, options=list(flags), env=env, **(keywords or {}))

    def played(self, *flags: str, **options: Any) -> dict[str, Any]:
        done = self.play(*flags, **options)
        assert done.rc == 0, done.output
        return done.last

    def shipped(self, *, dest: str | None = None, **options: Any) -> dict[str, Any]:
        result = ship(self.src, dest or self.dest, **options)
        assert not result.get("failed"), result
        return result

    def refused(self, *, dest: str | None = None, **options: Any) -> dict[str, Any]:
        result = ship(self.src, dest or self.dest, **options)
        assert result.get("failed"), result
        assert "Traceback" not in str(result)
        return result

    def refused_play(self, *flags: str, **options: Any) -> dict[str, Any]:
        done = self.play(*flags, **options)
        assert done.rc != 0, done.output
        assert "Traceback" not in done.output
        return done.last


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_story(project: Project) -> None:
    """First time, nothing to do, changed and removed, with a check run before each that says the same."""
    project.write("compose.yml", "services: {}\n")
    project.write("bin/run", "#!/bin/sh\n", 0o755)
    project.write("conf/app.conf", "a=1\n", 0o640)
    (project.src / "conf" / "current").symlink_to("app.conf")
    (project.src / "empty").mkdir(mode=0o750)

    predicted = project.played("--check", "--diff")
    assert not project.dest.exists()
    first = project.played("--diff")
    assert snapshot(project.dest) == snapshot(project.src)
    assert first["changed"]
    assert first["files"]["added"] == ["bin/run", "compose.yml", "conf/app.conf", "conf/current"]
    same_but_for_time(predicted, first)
    assert [action["target"] for action in first["actions"]][-1] == "compose.yml"

    again = project.played("--diff")
    assert not again["changed"]
    assert again["actions"] == []

    write(project.dest / "uploads" / "cat.jpg", b"\0cat")
    write(project.dest / "conf" / "made-by-app", "x")
    project.write("conf/app.conf", "a=2\n", 0o640)
    (project.src / "bin" / "run").unlink()
    (project.src / "bin").rmdir()
    (project.src / "conf" / "current").unlink()
    (project.src / "conf" / "current").symlink_to("other.conf")
    predicted = project.played("--check", "--diff")
    second = project.played("--diff")
    same_but_for_time(predicted, second)
    assert second["files"] == {"added": [], "changed": ["conf/app.conf", "conf/current"], "removed": ["bin/run"]}
    expected = snapshot(project.src)
    expected["uploads"] = ("directory", 0o755)
    expected["uploads/cat.jpg"] = ("file", 0o644, b"\0cat")
    expected["conf/made-by-app"] = ("file", 0o644, b"x")
    assert snapshot(project.dest) == expected
    texts = {part["before_header"].rpartition("/")[2]: (part["before"], part["after"]) for part in second["diff"]}
    assert texts["app.conf"] == ("a=1\n", "a=2\n")
    assert texts["run"] == ("#!/bin/sh\n", "")
    assert not project.played()["changed"]


def same_but_for_time(predicted: dict[str, Any], done: dict[str, Any]) -> None:
    def told(result: dict[str, Any]) -> Any:
        actions = [(action["action"], action["target"], action["reason"]) for action in result["actions"]]
        return actions, result["files"], result["changed"], result.get("diff")

    assert told(predicted) == told(done)


def test_names(project: Project) -> None:
    """Spaces, line breaks, dashes, dots, unicode, bytes that are not UTF-8, long names."""
    names = [
        b"a b",
        b"new\nline",
        b"-rf",
        b"..x",
        b"\xc3\xa9t\xc3\xa9",
        b"caf\xe9",
        b"'\"$(x)`",
        b"x" * 255,
        b"\\n",
        b"*",
    ]
    for name in names:
        for folder in (b"", b"sub \xff/"):
            path = os.fsencode(project.src) + b"/" + folder + name
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as stream:
                stream.write(name)
    project.played()
    assert snapshot(project.dest) == snapshot(project.src)
    assert not project.played()["changed"]
    os.unlink(os.fsencode(project.src) + b"/caf\xe9")
    assert project.played("-vvv")["files"]["removed"] == ["caf\\xe9"]
    assert snapshot(project.dest) == snapshot(project.src)


def test_kinds_that_are_not_files(project: Project) -> None:
    project.write("a", "1")
    os.link(project.src / "a", project.src / "b")
    os.mkfifo(project.src / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(project.src / "socket"))
    (project.src / "outside").symlink_to("/etc/passwd")
    (project.src / "up").symlink_to("../../x")
    (project.src / "fine").symlink_to("./a")
    result = project.shipped()
    codes = {(finding["subject"], finding["code"]) for finding in result["findings"]}
    assert codes == {
        ("pipe", "special-file-skipped"),
        ("socket", "special-file-skipped"),
        ("outside", "link-leaves-tree"),
        ("up", "link-leaves-tree"),
    }
    assert sorted(os.listdir(project.dest)) == [".shipshape", "a", "b", "fine", "outside", "up"]
    assert os.readlink(project.dest / "outside") == "/etc/passwd"
    assert os.stat(project.dest / "a").st_nlink == 1


def test_ignore(project: Project) -> None:
    project.write(".shipshapeignore", "*.log\n/tests/\n!keep.log\n")
    for path in ("a.log", "keep.log", "tests/x", "sub/tests/x", ".git/config", "sub/.git", "README.md", "a.py"):
        project.write(path)
    project.shipped(ignore=["*.md"])
    assert {path for path, state in snapshot(project.dest).items() if state[0] == "file"} == {
        "keep.log",
        "sub/tests/x",
        "a.py",
    }
    assert project.shipped(ignore=["*.md", "*.py"])["files"]["removed"] == ["a.py"]


def test_modified_on_the_target(project: Project) -> None:
    """What we shipped is put right; what others wrote is kept aside first, also without `backup`."""
    project.write("a", "1")
    project.write("b", "1")
    project.write("c", "1", 0o600)
    project.shipped()
    write(project.dest / "a", "hot fix")
    write(project.dest / "b", "valuable")
    (project.dest / "c").chmod(0o644)
    (project.src / "b").unlink()
    result = project.shipped(diff=True)
    reasons = {action["target"]: action["reason"] for action in result["actions"]}
    assert reasons == {
        "a": "modified on the target",
        "b": "gone from src, was modified on the target",
        "c": "mode 0644 instead of 0600",
    }
    assert snapshot(project.dest) == snapshot(project.src)
    kept = Path(result["backup_dir"])
    assert (kept / "a").read_text() == "hot fix"
    assert (kept / "b").read_text() == "valuable"
    assert (project.dest / ".shipshape").stat().st_mode & 0o777 == 0o700


def test_backups_and_their_retention(project: Project) -> None:
    for number in range(4):
        project.write("a", str(number))
        if number == 3:
            predicted = project.shipped(check=True, backup=True, backup_keep=2)
        result = project.shipped(backup=True, backup_keep=2)
    backups = sorted((project.dest / ".shipshape" / "backup").iterdir())
    assert [(backup / "a").read_text() for backup in backups] == ["1", "2"]
    assert str(backups[-1]) == result["backup_dir"]
    same_but_for_time(predicted, result)


def test_existing_files_are_adopted(project: Project) -> None:
    """A project that was put there by hand is taken over; its data stays."""
    project.write("compose.yml", "services: {}\n")
    project.write("data/.keep")
    write(project.dest / "compose.yml", "services: {}\n")
    write(project.dest / "data" / "rows", "precious")
    write(project.dest / "data" / ".keep")
    (project.dest / "data").chmod(0o700)
    predicted = project.shipped(check=True)
    result = project.shipped()
    same_but_for_time(predicted, result)
    assert [action["action"] for action in result["actions"]] == ["record"]
    assert not project.shipped()["changed"]
    (project.src / "data" / ".keep").unlink()
    (project.src / "data").rmdir()
    project.shipped()
    assert snapshot(project.dest / "data") == {"rows": ("file", 0o644, b"precious")}
    assert stat.S_IMODE((project.dest / "data").stat().st_mode) == 0o700


def test_directories_of_the_application(project: Project) -> None:
    """A directory whose mode or owner the application changed stays as it is; one of ours follows src."""
    for name in ("db", "web"):
        project.write(f"{name}/.keep")
    project.shipped()
    os.chown(project.dest / "db", 999, 999)
    (project.dest / "db").chmod(0o700)
    write(project.dest / "db" / "PG_VERSION", "15")
    (project.src / "db").chmod(0o750)
    (project.src / "web").chmod(0o750)
    result = project.shipped()
    assert [action["target"] for action in result["actions"]] == ["web"]
    info = (project.dest / "db").stat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (999, 0o700)
    assert stat.S_IMODE((project.dest / "web").stat().st_mode) == 0o750
    for name in ("db", "web"):
        (project.src / name / ".keep").unlink()
        (project.src / name).rmdir()
    result = project.shipped()
    assert {finding["code"] for finding in result["findings"]} == {"directory-kept"}
    assert (project.dest / "db" / "PG_VERSION").exists()
    assert not (project.dest / "web").exists()


def test_kinds_change(project: Project) -> None:
    """A file becomes a directory, a directory a file, a link a file, and back."""
    project.write("one", "file")
    project.write("two/x/y", "file")
    (project.src / "three").symlink_to("one")
    project.shipped()
    outside = write(project.folder / "outside", "untouched")
    for _ in range(2):
        other = project.folder / "other"
        if not other.exists():
            write(other / "one" / "deep" / "file", "1")
            write(other / "two", "2")
            write(other / "three", "3")
            (other / "three").chmod(0o600)
        project.src.rename(project.folder / "swap")
        other.rename(project.src)
        (project.folder / "swap").rename(other)
        predicted = project.shipped(check=True, diff=True)
        same_but_for_time(predicted, project.shipped(diff=True))
        assert snapshot(project.dest) == snapshot(project.src)
        assert not project.shipped()["changed"]
    assert outside.read_text() == "untouched"


@pytest.mark.parametrize("planted", ["link-to-directory", "link-to-file", "directory", "fifo", "parent-link"])
def test_something_else_in_the_way(project: Project, planted: str) -> None:
    """Nothing is followed out of dest, nothing foreign is deleted, and nothing at all is changed."""
    project.write("conf/app.conf", "new")
    project.write("z", "z")
    project.shipped()
    project.write("conf/app.conf", "newer")
    project.write("z", "zz")
    outside = project.folder / "outside"
    write(outside / "app.conf", "secret")
    target = project.dest / "conf" / "app.conf"
    if planted == "parent-link":
        (project.dest / "conf").rename(project.folder / "moved")
        (project.dest / "conf").symlink_to(outside)
    else:
        target.unlink()
        if planted == "link-to-directory":
            target.symlink_to(outside)
        elif planted == "link-to-file":
            target.symlink_to(outside / "app.conf")
        elif planted == "directory":
            write(target / "data", "precious")
        else:
            os.mkfifo(target)
    before = sorted(os.listdir(project.dest))
    for check in (True, False):
        result = project.refused(check=check)
        assert {finding["code"] for finding in result["findings"]} == {"path-in-the-way"}
        assert "conf" in result["msg"]
        assert not result["changed"]
    assert (outside / "app.conf").read_text() == "secret"
    assert (project.dest / "z").read_text() == "z"
    assert sorted(os.listdir(project.dest)) == before
    # Removing such a path is not ours to do either.
    (project.src / "conf" / "app.conf").unlink()
    (project.src / "conf").rmdir()
    result = project.shipped()
    assert (outside / "app.conf").read_text() == "secret"
    assert os.path.lexists(project.dest / "conf")
    assert {finding["code"] for finding in result["findings"]} & {"left-alone", "directory-kept"}


@pytest.mark.parametrize(
    ("dest", "code"),
    [
        ("relative/path", "invalid-dest"),
        ("/", "invalid-dest"),
        ("{folder}/file", "dest-not-a-directory"),
        ("{folder}/file/below", "not-a-directory"),
        ("{folder}/dangling", "dangling-link"),
    ],
)
def test_bad_destinations(project: Project, dest: str, code: str) -> None:
    project.write("a", "1")
    write(project.folder / "file", "x")
    (project.folder / "dangling").symlink_to(project.folder / "nowhere")
    result = project.refused(dest=dest.format(folder=project.folder))
    assert [finding["code"] for finding in result["findings"]] == [code]
    assert (project.folder / "file").read_text() == "x"
    assert not (project.folder / "nowhere").exists()


def test_bad_sources(project: Project) -> None:
    project.write("a", "1")
    assert [finding["code"] for finding in project.refused_play(src="nothing-there")["findings"]] == ["source-missing"]
    assert [finding["code"] for finding in project.refused_play(src="shop/a")["findings"]] == ["source-missing"]
    assert "transfer" in project.refused_play(transfer={"archive": "/etc/passwd"})["msg"]
    assert "Unsupported" in project.refused_play(sorce="x")["msg"]
    assert not project.dest.exists()


def test_dest_through_a_link(project: Project) -> None:
    project.write("conf/a", "1")
    (project.folder / "real").mkdir()
    project.dest.parent.mkdir()
    project.dest.symlink_to(project.folder / "real")
    assert project.shipped()["dest"] == str(project.folder / "real")
    assert snapshot(project.folder / "real") == snapshot(project.src)


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
    assert left == []


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


def test_bind_mounts(project: Project, engine: Engine) -> None:
    """Compose itself says which service mounts what; values come from the env files that were just shipped."""
    project.write(
        "compose.yml",
        """
services:
  proxy:
    image: x
    volumes: ["./proxy:/etc/proxy:ro", "${DATA_DIR:?}/conf:/data"]
  web:
    image: x
    profiles: [extra]
    configs: [app]
    secrets: [key]
  other:
    image: x
    volumes: ["named:/data"]
configs: {app: {file: ./app.ini}}
secrets: {key: {file: ./key.pem}}
volumes: {named: {}}
""",
    )
    for path in ("proxy/Caddyfile", "app.ini", "key.pem", "unrelated", "data/conf/x"):
        project.write(path, "1")
    env = {".env.production": {"DATA_DIR": "./data"}}
    everything = {"proxy": ["data/conf/x", "proxy/Caddyfile"], "web": ["app.ini", "key.pem"]}
    assert project.shipped(env_files=env)["bind_mounts"] == everything
    assert project.shipped(env_files=env)["bind_mounts"] == {}
    for path in ("proxy/Caddyfile", "key.pem", "unrelated"):
        project.write(path, "2")
    expected = {"proxy": ["proxy/Caddyfile"], "web": ["key.pem"]}
    assert project.shipped(env_files=env, check=True)["bind_mounts"] == expected
    assert project.shipped(env_files=env, files=["compose.yml"])["bind_mounts"] == expected
    # What cannot be told is no reason to fail, and nothing of the values is repeated.
    project.write("compose.yml", "services: {web: {image: x, ports: ['${DATA_DIR}']}}")
    result = project.shipped(env_files={".env.production": {"DATA_DIR": "pl4nted"}})
    assert result["bind_mounts"] == {}
    assert [finding["code"] for finding in result["findings"]] == ["bind-mounts-unknown"]
    assert "pl4nted" not in str(result)


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


def test_documented_examples_run(project: Project) -> None:
    """EXAMPLES, with /srv for the test's own directory."""
    documentation = yaml.safe_load(
        subprocess.run(
            [str(Path(sys.executable).parent / "ansible-doc"), "--json", "shipshape.deploy.tree"],
            env=environment(project.folder),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    project.write("compose.yml", "services: {}")
    project.write("tests/test.py")
    project.write("README.md")
    tasks = yaml.safe_load(
        documentation["shipshape.deploy.tree"]["examples"].replace("/srv/", f"{project.folder}/srv/")
    )
    done = play(project.folder, *tasks, vars={"database_password": "p@ss/word", "secret_key": "x y"})
    assert done.rc == 0, done.output
    assert len(done.results) == len(tasks)
    assert done.results[1]["files"] == {
        "added": [".env.production"],
        "changed": [],
        "removed": ["README.md", "tests/test.py"],
    }
    assert snapshot(project.folder / "srv/shop") == snapshot(project.src)
    kept = Path(done.results[2]["backup_dir"]) / ".env.production"
    assert "DATABASE_URL=postgresql://shop:p%40ss/word@db/shop" in kept.read_text().splitlines()
