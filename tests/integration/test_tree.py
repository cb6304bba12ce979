# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tree by real playbooks: what lies on the target afterwards is looked at, not what the task reports."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.engine import Engine
from tests.support.playbook import environment, play
from tests.support.trees import Project, same_but_for_time, snapshot, write


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


def test_what_the_engine_made_in_the_place_of_a_missing_file(project: Project) -> None:
    """Where a file that a service mounts is missing the engine makes a directory: the next deploy brings the file."""
    project.write("compose.yml", "services: {}\n")
    project.write("proxy.conf", "a\n")
    project.played()
    (project.dest / "proxy.conf").unlink()
    (project.dest / "proxy.conf").mkdir()

    predicted = project.played("--check", "--diff")
    assert (project.dest / "proxy.conf").is_dir()
    healed = project.played("--diff")

    same_but_for_time(predicted, healed)
    assert (project.dest / "proxy.conf").read_text(encoding="utf-8") == "a\n"
    assert not project.played()["changed"]


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


def test_kinds_that_are_not_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("a", "1")
    os.link(project.src / "a", project.src / "b")
    os.mkfifo(project.src / "pipe")
    with socket.socket(socket.AF_UNIX) as listener, monkeypatch.context() as patched:
        patched.chdir(project.src)  # a socket's path may have 107 bytes
        listener.bind("socket")
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
