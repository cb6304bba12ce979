# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules disk and layers: files that are mounted, and files of a container's own."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine import context, disk, layers
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.connection import EngineRefusedError
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.look import BakedState, Wanted
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import container, project


def sha(data):
    return hashlib.sha256(data).hexdigest()


def mounting(*sources):
    volumes = [{"type": "bind", "source": str(at), "target": f"/{number}"} for number, at in enumerate(sources)]
    return project({"web": {"volumes": volumes}}).services["web"]


@pytest.mark.parametrize(
    ("data", "before", "binary", "prefix"),
    [
        (b"", 0, False, ""),
        (b"one\n", 0, False, ""),
        (b"one\n", 4, False, b"one\n"),
        (b"one\ntwo\n", 4, False, b"one\n"),
        (b"one\n", 8, False, ""),
        (b"one\0two", 3, True, b"one"),
    ],
)
def test_a_mounted_file(tmp_path, data, before, binary, prefix):
    (tmp_path / "f").write_bytes(data)
    found = disk.read(mounting(tmp_path / "f"), {"/0": before})["/0"]
    assert (found.digest, found.size, found.binary) == (sha(data), len(data), binary)
    assert found.prefix == (sha(prefix) if prefix else "")
    assert found.inode == (os.stat(tmp_path / "f").st_dev, os.stat(tmp_path / "f").st_ino)


def test_what_is_no_regular_file_belongs_to_the_application(tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", (64 << 20) + 1)
    assert disk.read(mounting(tmp_path / "directory", tmp_path / "none", tmp_path / "large"), {}) == {}


def test_a_pipe_is_not_waited_for(tmp_path):
    """Opening a pipe that nobody writes to would wait for ever."""
    import signal

    os.mkfifo(tmp_path / "pipe")

    def waited(*_):
        raise AssertionError("it waits for a writer")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(2)
    try:
        assert disk.read(mounting(tmp_path / "pipe"), {}) == {}
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_file_as_a_process_sees_it(tmp_path):
    (tmp_path / "f").touch()
    status = os.stat(tmp_path / "f")
    assert disk.inside(os.getpid(), str(tmp_path / "f")) == (status.st_dev, status.st_ino)
    assert disk.inside(os.getpid(), str(tmp_path / "none")) is None
    assert disk.inside(2**22 + 1, "/") is None


def build_of(**section):
    return context.build_digest(project({"web": {"build": section}}).services["web"])


def test_what_an_image_is_built_from(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/x.py").write_text("1")
    (tmp_path / ".git").mkdir()
    seen = [build_of(context=str(tmp_path))]
    assert seen[0] == build_of(context=str(tmp_path))
    (tmp_path / ".git/index").touch()
    assert seen[0] == build_of(context=str(tmp_path)), "version control is no part of an image"
    (tmp_path / "app/x.py").write_text("22")
    seen.append(build_of(context=str(tmp_path)))
    (tmp_path / "app/x.py").chmod(0o755)
    seen.append(build_of(context=str(tmp_path)))
    (tmp_path / "app/x.py").rename(tmp_path / "app/y.py")
    seen.append(build_of(context=str(tmp_path)))
    os.utime(tmp_path / "app/y.py", (1, 1))
    seen.append(build_of(context=str(tmp_path)))
    seen.append(build_of(context=str(tmp_path), args={"A": "1"}))
    (tmp_path / "app/y.py").unlink()
    seen.append(build_of(context=str(tmp_path)))
    assert len(set(seen)) == len(seen), "each change shows"
    assert context.build_digest(project().services["web"]) == ""
    assert build_of(context="https://example.org/x.git")


@pytest.mark.parametrize("link", ["absolute", "relative"])
def test_what_lies_behind_a_link_cannot_be_told(tmp_path, link):
    """An absolute link of a container's would be followed on the host, to another file."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/f").touch()
    (tmp_path / "linked").symlink_to(tmp_path / "real" if link == "absolute" else "real")
    assert disk.inside(os.getpid(), str(tmp_path / "real/f")) is not None
    assert disk.inside(os.getpid(), str(tmp_path / "linked/f")) is None


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ([], []),
        (["/app"], ["/app", "/app/x", "/app/x/y"]),
        (["/app/"], ["/app", "/app/x", "/app/x/y"]),
        (["/app/x"], ["/app/x", "/app/x/y"]),
        (["/app/x/y"], ["/app/x/y"]),
        (["/ap"], []),
        (["/etc", "/app/x/y"], ["/app/x/y", "/etc"]),
        (["/"], ["/app", "/app/x", "/app/x/y", "/application", "/etc"]),
    ],
)
def test_what_changed_below_a_path(paths, found):
    changes = [{"Path": path, "Kind": 0} for path in ("/app", "/app/x", "/app/x/y", "/application", "/etc")]
    assert sorted(layers.changed_below(changes, paths)) == sorted(found)


def tar(name, data=None, link=None, directory=False):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        if link:
            entry.type, entry.linkname = tarfile.SYMTYPE, link
        elif directory:
            entry.type = tarfile.DIRTYPE
        else:
            entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data or b""))
    return stream.getvalue()


class Container:
    """An engine with one container whose files are tar archives by path."""

    local = True

    def __init__(self, changes=(), **files):
        self.files, self.changes = {path.replace("_", "/"): data for path, data in files.items()}, list(changes)

    def get_bytes(self, path, /, **query):
        if query["path"] not in self.files:
            raise EngineRefusedError(404, "GET", "no such file")
        return self.files[query["path"]]

    def get(self, path, **query):
        assert path.endswith("/changes")
        return self.changes or None


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"_a_f": tar("f", b"x")}, sha(b"x")),
        ({"_a_f": tar("f", b"")}, sha(b"")),
        ({}, None),
        ({"_a_f": tar("f", directory=True)}, None),
        ({"_a_f": tar("f", link="/b"), "_b": tar("b", b"x")}, sha(b"x")),
        ({"_a_f": tar("f", link="g"), "_a_g": tar("g", b"x")}, sha(b"x")),
        ({"_a_f": tar("f", link="f")}, None),
    ],
)
def test_a_file_inside_of_a_container(files, found):
    assert layers.digest_inside(Container(**files), "id", "/a/f") == found


def test_what_is_looked_at_inside(tmp_path):
    (tmp_path / "x.py").write_bytes(b"new")
    at, other = container(), container("p-db-1", service="db")
    engine = Container([{"Path": "/app/x", "Kind": 0}, {"Path": "/tmp/x", "Kind": 1}], _app_x=tar("x", b"old"))
    wanted = Wanted((("web", "/app/x", str(tmp_path / "x.py")), ("web", "/y", "/nosuch")), {"web": ("/app",)})
    assert layers.read(engine, [at, other], wanted) == {
        "changes": {at.id: ("/app/x",)},
        "baked": {at.id: (BakedState("/app/x", sha(b"new"), sha(b"old")), BakedState("/y", None, None))},
    }


def test_the_engine_s_own_mount_points_are_no_change():
    """Recorded from `docker diff` of a container with a file, a volume and a tmpfs below /etc/app."""
    recorded = ["/etc", "/etc/app", "/etc/app/data", "/etc/app/t", "/etc/app/x.conf"]
    mounts = [
        {"Type": "bind", "Source": "/srv/x.conf", "Destination": "/etc/app/x.conf"},
        {"Type": "volume", "Name": "v", "Destination": "/etc/app/data"},
    ]
    at = container(mounts=mounts)
    at.raw["HostConfig"]["Tmpfs"] = {"/etc/app/t": ""}
    wanted = Wanted(watched={"web": ("/etc",)})
    engine = Container([{"Path": path, "Kind": 1} for path in recorded])
    assert layers.read(engine, [at], wanted)["changes"].get(at.id, ()) == ()
    engine.changes.append({"Path": "/etc/passwd", "Kind": 0})
    assert layers.read(engine, [at], wanted)["changes"][at.id] == ("/etc/passwd",)
