# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift in what a container holds: mounted files, configs, secrets, what was built in, what was changed inside.

Compose, `docker_container` and Kamal see none of it; a file replaced by rename is the old one inside for good (PEERS).
And what was a secret stays one, also when it is no longer in the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import BUSYBOX, Project, unique
from tests.support.stacks import Stack, check, codes, kinds, leaks, service, told


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


# -- content of what is mounted ---------------------------------------------------------------------------------------


def edited(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def replaced(path: Path, text: str) -> None:
    """As editors and configuration management do: a new file takes the name, and has another inode."""
    edited(path.with_name("new"), text)
    path.with_name("new").replace(path)


def switched(path: Path, text: str) -> None:
    edited(path.with_name("release"), text)
    path.unlink()
    path.symlink_to("release")


def appended(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def touched(path: Path, _text: str) -> None:
    os.utime(path, (1, 1))


OLD, NEW = "old {}\n", "new {}\n"
# Per service: how its file changes, how it is mounted, and what is to be seen of it.
CONTENTS: dict[str, tuple[Callable[[Path, str], None], dict[str, Any], str]] = {
    "edited": (edited, {"volumes": ["./edited/it:/it:ro"]}, "volumes./it"),
    "writable": (edited, {"volumes": ["./writable/it:/it"]}, "volumes./it"),
    "replaced": (replaced, {"volumes": ["./replaced/it:/it:ro"]}, "volumes./it"),
    "same-again": (
        lambda path, _text: replaced(path, path.read_text(encoding="utf-8")),
        {"volumes": ["./same-again/it:/it:ro"]},
        "volumes./it",
    ),
    "switched": (switched, {"volumes": ["./switched/it:/it:ro"]}, "volumes./it"),
    "config": (edited, {"configs": [{"source": "config", "target": "/it"}]}, "configs.config"),
    "config-replaced": (
        replaced,
        {"configs": [{"source": "config-replaced", "target": "/it"}]},
        "configs.config-replaced",
    ),
    "secret": (edited, {"secrets": [{"source": "secret", "target": "/it"}]}, "secrets.secret"),
    "secret-replaced": (
        replaced,
        {"secrets": [{"source": "secret-replaced", "target": "/it"}]},
        "secrets.secret-replaced",
    ),
    # What is no drift.
    "touched": (touched, {"volumes": ["./touched/it:/it:ro"]}, ""),
    "log": (appended, {"volumes": ["./log/it:/it"]}, ""),
    "directory": (edited, {"volumes": ["./directory:/there"]}, ""),
    "untouched": (lambda _path, _text: None, {"volumes": ["./untouched/it:/it:ro"]}, ""),
}


def test_the_content_of_mounted_files(stack: Stack) -> None:
    marks = {name: unique(name) for name in CONTENTS}
    files = {name: stack.project.folder / name / "it" for name in CONTENTS}
    top: dict[str, Any] = {"configs": {}, "secrets": {}}
    for name, path in files.items():
        path.parent.mkdir()
        edited(path, OLD.format(marks[name]))
        for section, entries in top.items():
            if section in CONTENTS[name][1]:
                entries[name] = {"file": str(path)}
    stack.write({name: service(**keys) for name, (_change, keys, _field) in CONTENTS.items()}, **top)
    stack.deploy()
    for name, (change, _keys, _field) in CONTENTS.items():
        change(files[name], NEW.format(marks[name]))
    stack.ends({(name, "content", field, "recreate") for name, (*_, field) in CONTENTS.items() if field})
    for name, (_change, keys, _field) in CONTENTS.items():
        inside = "/there/it" if name == "directory" else "/it"
        assert stack.shell(name, f"cat {inside}") == files[name].read_text(encoding="utf-8"), name
        assert keys
    assert not leaks([marks["secret"], marks["secret-replaced"]], *stack.printed)


def test_contents_from_the_file_itself_and_from_the_environment(stack: Stack) -> None:
    """`configs: content` and `secrets: environment`: Compose sees neither change. R98: nor an env_file's."""
    words = [unique("word") for _ in range(6)]

    def write(config: str, secret: str, password: str) -> None:
        edited(stack.project.folder / "app.env", f"DB_PASSWORD={password}\nCOLOUR=blue\n")
        stack.env["SHIPSHAPE_TEST_KEY"] = secret
        stack.write(
            {
                "config": service(configs=[{"source": "app", "target": "/it"}]),
                "secret": service(secrets=[{"source": "key", "target": "/it"}]),
                "env": service(env_file=["app.env"]),
                "other": service(),
            },
            configs={"app": {"content": f"greeting={config}\n"}},
            secrets={"key": {"environment": "SHIPSHAPE_TEST_KEY"}},
        )

    write(*words[:3])
    stack.deploy()
    stack.unchanged()
    write(*words[3:])
    result = stack.ends(
        {
            ("config", "desired", "configs_content.app", "recreate"),
            ("secret", "desired", "secrets_content.key", "recreate"),
            ("env", "desired", "environment.DB_PASSWORD", "recreate"),
        },
    )
    assert stack.shell("config", "cat /it") == f"greeting={words[3]}\n"
    assert stack.shell("secret", "cat /it") == words[4]
    assert stack.shell("env", "echo $DB_PASSWORD") == f"{words[5]}\n"
    assert [at for at in result["diff"]["after"].splitlines() if "DB_PASSWORD" in at and "***" in at]
    assert not leaks([words[1], words[2], words[4], words[5]], *stack.printed)


# -- what was built in, what was changed inside -----------------------------------------------------------------------


def test_a_file_built_into_the_image(stack: Stack) -> None:
    """R02, R05: a changed entrypoint.sh is rebuilt and recreated by itself, and the container is looked at."""
    script, baked = stack.project.folder / "entrypoint.sh", {}
    baked["baked_files"] = [{"service": "web", "path": "/srv/entrypoint.sh", "src": "entrypoint.sh"}]
    edited(stack.project.folder / "Dockerfile", f"FROM {BUSYBOX}\nCOPY entrypoint.sh /srv/\n")
    edited(script, "# one\n" * 30)
    stack.write({"web": {**service(), "image": f"{stack.name}-web:1", "build": "."}, "db": service()})
    stack.deploy(**baked)
    stack.unchanged(**baked)
    db = stack.identities("db")

    edited(script, "# two\n" * 124)
    assert told(stack.run("stack_info", **baked)) == {("web", "baked", "/srv/entrypoint.sh", "recreate")}
    result = stack.fails(**baked, build="never")
    assert "baked-file-stale" in codes(result)
    assert "/srv/entrypoint.sh" in result["msg"]
    result = stack.deploy(**baked)
    assert kinds(result) == {("build", f"image {stack.name}-web:1"), ("recreate", f"{stack.name}-web-1")}
    assert stack.shell("web", "wc -l < /srv/entrypoint.sh") == "124\n"
    stack.unchanged(**baked)

    stack.shell("web", "echo mended by hand >> /srv/entrypoint.sh")
    stack.ends({("web", "baked", "/srv/entrypoint.sh", "recreate")}, **baked)
    assert stack.shell("web", "wc -l < /srv/entrypoint.sh") == "124\n"
    assert stack.identities("db") == db


def test_what_was_changed_inside_the_container(stack: Stack) -> None:
    watched = {"watch_paths": [{"service": at, "paths": ["/srv", "/etc/passwd"]} for at in ("web", "db", "fine")]}
    mounts = {"volumes": ["data:/srv/data"], "tmpfs": ["/srv/tmp"]}
    stack.write({at: service(**mounts) for at in ("web", "db", "fine", "other")}, volumes={"data": {}})
    stack.deploy(**watched)
    stack.unchanged(**watched)
    stack.shell("web", "echo patched > /srv/app.py")
    stack.shell("db", "echo backdoor::0:0::/:/bin/sh >> /etc/passwd")
    stack.shell("fine", "echo data > /srv/data/file; echo scratch > /srv/tmp/file; echo log > /tmp/log")
    stack.shell("other", "echo nobody watches this > /srv/app.py")
    stack.ends(
        {
            *(("web", "filesystem", path, "recreate") for path in ("/srv", "/srv/app.py") if path != "/srv"),
            ("db", "filesystem", "/etc/passwd", "recreate"),
        },
        **watched,
    )
    assert stack.shell("web", "test ! -e /srv/app.py && cat /srv/data/file") == "data\n"
    assert "backdoor" not in stack.shell("db", "cat /etc/passwd")


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_what_was_a_secret_before_is_one_still(stack: Stack) -> None:
    """A value that is changed or removed is in the file no more, so that only what was applied can give it away."""
    old, new = [unique(f"old{at}") for at in range(6)], [unique(f"new{at}") for at in range(6)]

    def written(words: list[str]) -> dict[str, Any]:
        url = f"postgres://app:{words[0]}@db/app"
        return {
            "command": ["sh", "-c", f"true {url}; trap 'exit 143' TERM; sleep 3600 & wait"],
            "labels": {"org.example.token": words[1], "org.example.url": url},
            "environment": {"DB_PASSWORD": words[2], "URL": url},
            "logging": {"driver": "json-file", "options": {"max-size": "1m", "labels": "a"}},
            "healthcheck": check(f"test -n {url} # --password={words[3]}"),
            "extra_hosts": ["db:192.0.2.1"],
            "annotations": {"org.example.secret": words[4]},
        }

    stack.write({"web": {**service(), **written(old)}})
    stack.deploy()
    stack.write({"web": {**service(), **written(new)}})
    stack.run("stack_info")
    _, result = stack.predicted()
    fields = {at["field"] for at in result["drift"]}
    assert fields >= {"command", "labels.org.example.token", "environment.DB_PASSWORD", "healthcheck.test"}
    stack.write({"web": service()})
    stack.predicted()
    # A password that nothing marks as one (an option in a healthcheck) cannot be known for one.
    told_of = [word for words in (old, new) for at, word in enumerate(words) if at != 3]
    assert not leaks(told_of, *stack.printed)


def test_a_password_in_a_command_is_not_shown_when_it_is_replaced(stack: Stack) -> None:
    """Neither the new one, which only a variable's name tells, nor the old one, which only the container knows."""
    old, new = unique("old-password"), unique("new-password")

    def write(password: str, policy: str) -> None:
        edited(stack.project.folder / ".env", f"CACHE_PASSWORD={password}\n")
        words = [*service()["command"], "serve", "--requirepass", "${CACHE_PASSWORD}", "--policy", policy]
        stack.write({"cache": service(command=words, labels={"auth": "admin:${CACHE_PASSWORD}"})})

    write(old, "one")
    stack.deploy()
    assert old in stack.container("cache")["Config"]["Cmd"], "the test planted nothing"
    write(new, "two")
    stack.run("stack_info")
    _done, result = stack.predicted()
    assert {entry["field"] for entry in result["drift"]} == {"command", "labels.auth"}
    assert new in stack.container("cache")["Config"]["Cmd"]
    assert not leaks([old, new], *stack.printed)
