# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tree, killed, starved of space, and run twice at once: one re-run heals, the application's own stays."""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.trees import call, collect, read, ship, snapshot, write

# Every call by which the module changes something on disk. A kill before one is a kill after the one before it.
CHANGING = (
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "symlink",
    "link",
    "linkat",
    "chmod",
    "fchmod",
    "fchown",
    "chown",
    "lchown",
    "fchownat",
    "fchmodat",
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "unlinkat",
    "renameat",
    "mkdirat",
)
ENV = {".env": {"PASSWORD": "new $ecret"}}


class Scene:
    """A target that holds the old tree and the application's data, and a source with the new tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.src = folder / "src"
        self.dest = folder / "dest"
        self.saved = folder / "saved"
        self.archive = folder / "contents.tar"
        for path in ("compose.yml", "same", "changed", "gone", "old/a", "old/b", "becomes-dir", "becomes-file/x", "m"):
            write(self.src / path, f"old {path}" * 50)
        (self.src / "link").symlink_to("same")
        (self.src / "becomes-plain").symlink_to("same")
        ship(self.src, self.dest, env_files={".env": {"PASSWORD": "old"}})
        write(self.dest / "data" / "rows", "precious")
        write(self.dest / "old" / "upload", "precious")
        write(self.dest / "changed", "by hand")
        self.old = snapshot(self.dest)
        shutil.rmtree(self.src)
        for path in ("compose.yml", "same", "changed", "new", "fresh/deep/c", "becomes-dir/x", "becomes-file", "m"):
            old = path in ("same", "m")
            write(self.src / path, f"{'old' if old else 'new'} {path}" * 50)
        (self.src / "m").chmod(0o600)
        (self.src / "link").symlink_to("new")
        write(self.src / "becomes-plain", "new becomes-plain")
        os.utime(self.src / "same")
        subprocess.run(["cp", "-a", self.dest, self.saved], check=True)
        self.source = read(str(self.src), [], ENV, str)
        collect(self.source, self.archive)
        ship(self.src, self.dest, env_files=ENV)
        self.new = snapshot(self.dest)
        assert self.new["data/rows"][2] == self.new["old/upload"][2] == b"precious"
        for entry in self.source.entries:
            assert entry.path in self.new
        assert "gone" not in self.new

    def reset(self) -> None:
        shutil.rmtree(self.dest)
        subprocess.run(["cp", "-a", self.saved, self.dest], check=True)

    def run(self, *prefix: str) -> tuple[int, str]:
        process = call(self.source, self.src, self.dest, self.archive, prefix=list(prefix)).process
        out, _ = process.communicate(timeout=120)
        return process.returncode, out.decode()

    def whole(self) -> None:
        """Whatever is there is old or new, nothing in between, and the application's own is untouched."""
        for path, state in snapshot(self.dest).items():
            if re.fullmatch(r"\.shipshape-.*\.tmp", os.path.basename(path), re.DOTALL):
                continue
            if state[0] != "directory":
                known = [without_mode(each[path]) for each in (self.old, self.new) if path in each]
                assert without_mode(state) in known, (path, state)
        for path in ("data/rows", "old/upload"):
            assert (self.dest / path).read_text() == "precious"

    def healed(self) -> None:
        """One more run, and all is as if nothing had happened."""
        result = ship(self.src, self.dest, env_files=ENV)
        assert not result.get("failed"), result
        assert snapshot(self.dest) == self.new
        own = set(os.listdir(self.dest / ".shipshape"))
        assert own <= {"manifest.json", "lock", "backup"}, own
        again = ship(self.src, self.dest, env_files=ENV)
        assert not again["changed"], again["actions"]
        kept = {path.read_text() for path in (self.dest / ".shipshape" / "backup").glob("*/changed")}
        assert "by hand" in kept, "what somebody wrote into a shipped file is lost"


def without_mode(state: tuple[Any, ...]) -> tuple[Any, ...]:
    return state[0], state[-1]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def calls(scene: Scene) -> Counter[str]:
    """How often the busiest thread of one undisturbed run makes each of the changing calls: strace counts by thread."""
    scene.reset()
    log = scene.folder / "strace.log"
    code, out = scene.run("strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(map(optional, CHANGING))}")
    assert code == 0, out
    made = Counter(re.findall(r"^(\d+)\s+(\w+)\(", log.read_text(errors="replace"), re.MULTILINE))
    most: Counter[str] = Counter()
    for (_, name), count in made.items():
        most[name] = max(most[name], count)
    assert most["rename"] > 8
    return most


def optional(name: str) -> str:
    """strace's way to say: if this machine has such a call."""
    return f"?{name}"


def places(calls: Counter[str]) -> Iterator[tuple[str, int]]:
    for name in CHANGING:
        for number in range(1, calls[name] + 1):
            yield name, number


def kill(scene: Scene, name: str, number: int) -> None:
    scene.reset()
    code, out = scene.run(
        *("strace", "-f", "-qq", "-o", "/dev/null"),
        *("-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"),
    )
    assert code != 0, (name, number, out)
    scene.whole()
    scene.healed()


def starve(scene: Scene, name: str, number: int) -> None:
    scene.reset()
    before = snapshot(scene.dest)
    _, out = scene.run(
        *("strace", "-f", "-qq", "-o", "/dev/null"),
        *("-e", f"trace={name}", "-e", f"inject={name}:error=ENOSPC:when={number}"),
    )
    assert "Traceback" not in out, (name, number, out)
    scene.whole()
    if '"changed": false' in out:
        assert snapshot(scene.dest) == before, (name, number)
    scene.healed()


def test_killed_short(scene: Scene, calls: Counter[str]) -> None:
    every = list(places(calls))
    for name, number in random.Random(4).sample(every, 12):
        kill(scene, name, number)


@pytest.mark.long
def test_killed_everywhere(scene: Scene, calls: Counter[str]) -> None:
    for name, number in places(calls):
        kill(scene, name, number)


SPACE = ("write", "mkdir", "symlink", "link", "linkat", "rename", "fsync", "pwrite64")


def test_disk_full_short(scene: Scene, calls: Counter[str]) -> None:
    every = [(name, number) for name, number in places(calls) if name in SPACE]
    for name, number in random.Random(4).sample(every, 8):
        starve(scene, name, number)


@pytest.mark.long
def test_disk_full_everywhere(scene: Scene, calls: Counter[str]) -> None:
    for name, number in places(calls):
        if name in SPACE:
            starve(scene, name, number)


def test_killed_first_time(tmp_path: Path) -> None:
    """The very first run, killed; nothing was recorded before."""
    for path in ("a/b/c", "d", "compose.yml"):
        write(tmp_path / "src" / path, path)
    os.chmod(tmp_path / "src" / "a", 0o750)
    source = read(str(tmp_path / "src"), [], {}, str)
    collect(source, tmp_path / "contents.tar")
    for name, number in (("mkdir", 2), ("mkdir", 4), ("rename", 1), ("rename", 3), ("chmod", 1), ("rename", 5)):
        dest = tmp_path / f"dest-{name}-{number}"
        prefix = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={number}"]
        call(source, tmp_path / "src", dest, tmp_path / "contents.tar", prefix=prefix).process.communicate()
        result = ship(tmp_path / "src", dest)
        assert not result.get("failed"), result
        assert snapshot(dest) == snapshot(tmp_path / "src"), (name, number)
        assert stat.S_IMODE((dest / "a").stat().st_mode) == 0o750
        assert not ship(tmp_path / "src", dest)["changed"]
        # All of it is known as ours, and so goes when src is empty.
        (tmp_path / "empty").mkdir(exist_ok=True)
        ship(tmp_path / "empty", dest)
        assert snapshot(dest) == {}


def contend(tmp_path: Path, rounds: int) -> None:
    """Several runs on one dest at once: each is whole, and the last one stands."""
    sources = []
    for number in range(3):
        src = tmp_path / f"src{number}"
        for file in range(10):
            write(src / f"d{file % 3}" / f"f{file}", f"{number}" * 1000)
        write(src / f"only-{number}" / "x", "x")
        source = read(str(src), [], {}, str)
        collect(source, tmp_path / f"{number}.tar")
        sources.append((source, src, tmp_path / f"{number}.tar"))
    dest = tmp_path / "dest"
    for _ in range(rounds):
        running = [call(source, src, dest, archive) for source, src, archive in sources]
        results: list[dict[str, Any]] = [each.wait() for each in running]
        assert not any(result.get("failed") for result in results), results
        assert snapshot(dest) in [snapshot(src) for _, src, _ in sources]


def test_several_at_once_short(tmp_path: Path) -> None:
    contend(tmp_path, 2)


@pytest.mark.long
def test_several_at_once(tmp_path: Path) -> None:
    contend(tmp_path, 40)
