# SPDX-License-Identifier: GPL-3.0-or-later
"""The atomic writer and module `script` under fire: traffic, kill at every system call, a full disk at every step."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.atomic import Attributes, write
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from tests.support.modules import TREE, ModuleCall

TRAFFIC = Path(__file__).with_name("writer_traffic.py")
OLD = b"#!/bin/sh\n" + b"# old\n" * 1000
# More than one write of 1 MiB, so that a kill can come between two of them.
NEW = b"#!/bin/sh\n" + b"# the new one\n" * 200_000
MODE = Attributes(mode=0o755)

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")


# --- traffic ---------------------------------------------------------------------------------------------------


def traffic(dest: Path, how: str, executions: int, executors: int = 4, uploaders: int = 2) -> tuple[Counter[str], int]:
    """What `executors` saw of the script while `uploaders` replaced it all the time, and how many versions."""
    env = {**os.environ, "PYTHONPATH": str(TREE)}
    write(str(dest), b"#!/bin/sh\nv=first\n" + NEW[10:60_000] + _echo(b"first"), MODE)
    uploading = [subprocess.Popen([sys.executable, TRAFFIC, "upload", dest, how], env=env) for _ in range(uploaders)]
    try:
        command = [sys.executable, TRAFFIC, "execute", dest, str(executions // executors)]
        executing = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE) for _ in range(executors)]
        results = [json.loads(process.communicate(timeout=1500)[0]) for process in executing]
        assert all(process.poll() is None for process in uploading), "an uploader gave up"
    finally:
        for process in uploading:
            process.kill()
            process.wait()
    seen: Counter[str] = Counter()
    for result in results:
        seen.update(result["seen"])
    return seen, max(result["versions"] for result in results)


def _echo(version: bytes) -> bytes:
    return b"echo $v " + hashlib.sha256(version).hexdigest().encode() + b"\n"


@pytest.mark.parametrize("executions", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_executions_during_uploads_see_whole_versions_only(tmp_path, executions):
    seen, versions = traffic(tmp_path / "script.sh", "atomic", executions)
    assert seen == {"whole": executions}
    assert versions > executions / 100, "hardly any upload happened meanwhile: this proves nothing"
    write(str(tmp_path / "script.sh"), OLD)
    assert os.listdir(tmp_path) == ["script.sh"], "killed uploaders' temporaries are still there"


def test_a_plain_write_in_place_fails_the_same_test(tmp_path):
    seen, _ = traffic(tmp_path / "script.sh", "in-place", 2_000)
    assert seen["ETXTBSY"] > 0
    assert set(seen) - {"whole", "ETXTBSY"}, "and nothing torn was seen"


# --- killed, and out of space, at each system call -------------------------------------------------------------


def forked(work) -> tuple[int, int]:
    """A process that does `work` once a byte is written to the descriptor returned beside its id.

    Forked from here it starts at once, and does exactly the same system calls each time.
    """
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        code = 1
        try:
            select.select([ready], [], [])  # a call that the write path does not do
            work()
            code = 0
        except ShipshapeError as error:
            code = 40 if error.findings[0].code == "disk-full" else 41
        except BaseException:
            code = 42
        finally:
            os._exit(code)
    os.close(ready)
    return pid, go


def traced(work, log: Path, inject: str = "") -> int:
    """Does `work` in a process of its own under strace's fault injection; returns how it ended."""
    pid, go = forked(work)
    command = ["strace", "-o", str(log), "-p", str(pid)]
    if inject:
        command[1:1] = ["-e", f"inject={inject}"]
    strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert "attached" in strace.stderr.readline()
    os.write(go, b"!")
    os.close(go)
    status = os.waitpid(pid, 0)[1]
    strace.communicate()
    return os.waitstatus_to_exitcode(status)


# How often these are called differs from run to run: where memory happens to lie, whether a random name is drawn.
_OF_THE_ALLOCATOR = ("mmap", "munmap", "brk", "madvise", "mremap", "getrandom", "exit_group")


def killed_at_each_call(work, prepare, log: Path, step: int = 1):
    """Yields each system call of `work`, as strace wrote it down, after `work` was killed at it."""
    prepare()
    work()  # so that nothing is left to be imported: each time the very same calls
    prepare()
    assert traced(work, log) == 0
    calls = re.findall(r"^(\w+)\(.*", log.read_text(), re.MULTILINE)
    counts: Counter[str] = Counter()
    missed = 0
    for position, name in enumerate(calls):
        counts[name] += 1
        if position == 0 or name in _OF_THE_ALLOCATOR or position % step:
            continue  # the first is the wait for the start
        prepare()
        code = traced(work, log, f"{name}:signal=KILL:when={counts[name]}")
        if code == 0:
            missed += 1  # a call that does not come each time, depending on which process happens to end first
            continue
        assert code == -signal.SIGKILL, f"{name} {counts[name]}: exit code {code}"
        yield f"{name} {counts[name]} (call {position} of {len(calls)})"
    assert missed <= len(calls) // 20, f"{missed} of {len(calls)} kills never came"


@needs_strace
@pytest.mark.parametrize("existing", [True, False])
def test_killed_at_every_system_call_of_the_write(tmp_path, existing):
    folder = tmp_path / "folder"
    dest = folder / "script.sh"
    outcomes: Counter[str] = Counter()
    kills = 0
    folder.mkdir()

    def reset() -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        if existing:
            dest.write_bytes(OLD)

    for call in killed_at_each_call(lambda: write(str(dest), NEW, MODE), reset, tmp_path / "strace.log"):
        kills += 1
        found = dest.read_bytes() if dest.exists() else None
        assert found in (OLD if existing else None, NEW), f"{call}: the file is neither the old nor the new one"
        if found == NEW:
            assert dest.stat().st_mode & 0o7777 == 0o755
        outcomes["new" if found == NEW else "old"] += 1
        outcomes["temporary left"] += os.listdir(folder) not in (["script.sh"], [])
        write(str(dest), NEW, MODE)
        assert dest.read_bytes() == NEW
        assert os.listdir(folder) == ["script.sh"], f"{call}: the re-run left a temporary"
    assert kills > 25
    assert min(outcomes["old"], outcomes["new"], outcomes["temporary left"]) > 3, "the kills missed a part of the path"


@needs_strace
def test_the_order_that_survives_a_power_cut(tmp_path):
    """Content on the disk and read back before the rename, the rename on the disk before the end."""
    dest = tmp_path / "script.sh"
    dest.write_bytes(OLD)
    assert traced(lambda: write(str(dest), NEW, MODE), tmp_path / "strace.log") == 0
    interesting = ("write", "fsync", "fadvise64", "read", "fchmod", "rename", "O_EXCL", "O_DIRECTORY")
    seen: list[str] = []
    for line in (tmp_path / "strace.log").read_text().splitlines():
        name = line.split("(")[0]
        flag = next((word for word in interesting if word.startswith("O_") and word in line), name)
        if flag in interesting and seen[-1:] != [flag]:
            seen.append(flag)
    begin = seen.index("O_EXCL")
    assert seen[begin:] == ["O_EXCL", "write", "fsync", "fadvise64", "read", "fchmod", "rename", "O_DIRECTORY", "fsync"]


# The calls that can fail for want of space, of the write path as it runs today.
_SPACE = ["openat", "write", "fsync", "fchmod", "fchown", "fsetxattr", "rename"]


@needs_strace
@pytest.mark.parametrize("call", _SPACE)
def test_disk_full_at_every_call_of_the_write(tmp_path, call):
    folder = tmp_path / "folder"
    folder.mkdir()
    dest = folder / "script.sh"
    dest.write_bytes(OLD)
    os.setxattr(dest, "user.kept", b"yes")
    attributes = Attributes(mode=0o755, owner=1234, group=1234) if os.geteuid() == 0 else MODE
    failed = 0
    for number in range(1, 100):
        dest.write_bytes(OLD)
        os.setxattr(dest, "user.kept", b"yes")
        code = traced(
            lambda: write(str(dest), NEW, attributes), tmp_path / "strace.log", f"{call}:error=ENOSPC:when={number}"
        )
        assert os.listdir(folder) == ["script.sh"], f"{call} {number} left a temporary"
        found = dest.read_bytes()
        dest.unlink()  # after a replacement it belongs to somebody else
        if "(INJECTED)" not in (tmp_path / "strace.log").read_text():
            assert (code, found) == (0, NEW)
            break
        after_rename = "rename(" in (tmp_path / "strace.log").read_text() and call != "rename"
        assert found == (NEW if after_rename else OLD), f"{call} {number}"
        assert code in (0, 40), f"{call} {number} ended with {code}"
        failed += code == 40
    else:
        raise AssertionError("no end of calls")
    assert failed > 0, f"the write path has no {call} any more: correct the list"


@needs_root
def test_disk_really_full_at_every_size(tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    script = b"#!/bin/sh\n" + b"# line\n" * 20_000  # 140 KB
    page = 4096
    codes: Counter[str] = Counter()
    for pages in range(2, 50, 3):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={(pages + 1) * page}", "none", mount], check=True)
        try:
            dest = mount / "script.sh"
            dest.write_bytes(b"old")
            try:
                write(str(dest), script, MODE)
                codes["written"] += 1
                assert dest.read_bytes() == script
            except ShipshapeError as error:
                codes[str(error.findings[0].code)] += 1
                assert dest.read_bytes() == b"old"
            assert os.listdir(mount) == ["script.sh"]
        finally:
            subprocess.run(["umount", mount], check=True)
    assert set(codes) == {"written", "disk-full"}


# --- the module as a whole ------------------------------------------------------------------------------------


def _two_scripts(folder: Path, word: str) -> dict:
    body = f"#!/bin/sh\necho {word}\n" + "# padding\n" * 100
    return {
        "scripts": [{"dest": str(folder / name), "content": body} for name in ("a.sh", "b.sh")],
        "mode": "0755",
        "backup": True,
    }


@needs_strace
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.long)])
def test_killed_at_every_system_call_of_the_whole_placing(tmp_path, step):
    """Two scripts with backup and validation: each is old or new at any time, and one re-run heals."""
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.attributes import Attributes as Wanted
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.payload import Slice
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_call import Call
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_place import place as place_scripts
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_plan import Script
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_text import inspect
    from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report

    folder = tmp_path / "folder"
    folder.mkdir()
    dests = [folder / "a.sh", folder / "b.sh"]
    new, facts = inspect(b"#!/bin/sh\necho new\n", "lf")
    old = b"#!/bin/sh\necho old\n"

    def place() -> Report:
        import io

        report = Report()
        scripts = [Script(str(dest), facts, Wanted(mode=0o755)) for dest in dests]
        contents = [lambda: Slice(io.BytesIO(new), 0, len(new))] * 2
        assert place_scripts(scripts, contents, Call(report, backup=True, backup_keep=2)) == []
        return report

    def reset() -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        for dest in dests:
            dest.write_bytes(old)

    kills = 0
    states = set()
    for number in killed_at_each_call(place, reset, tmp_path / "strace.log", step):
        kills += 1
        found = tuple(dest.read_bytes() for dest in dests)
        assert set(found) <= {old, new}, f"{number}"
        states.add(found)
        place()
        assert [dest.read_bytes() for dest in dests] == [new, new]
        rest = [name for name in sorted(os.listdir(folder)) if not re.fullmatch(r"[ab]\.sh\.\d{8}T\d{12}Z~", name)]
        assert rest == ["a.sh", "b.sh"], f"{number}"
        for backup in folder.glob("*~"):
            assert backup.read_bytes() == old, f"{number}: {backup}"
        assert not place().changed
    assert kills > 10
    assert {(old, old), (new, new)} <= states


def test_a_corrupt_transfer_is_neither_placed_nor_run(tmp_path):
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.payload import pack
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.script_text import inspect

    dest = tmp_path / "script.sh"
    dest.write_bytes(OLD)
    proof = tmp_path / "ran"
    good, facts = inspect(f"#!/bin/sh\ntouch {proof}\n".encode(), "lf")
    source = {"sha256": facts.sha256, "size": facts.size, "shebang": facts.shebang, "notes": [], "offset": 0}
    for sent in (good.replace(b"touch", b"TOUCH"), good[:-1], b""):
        arguments = {"dest": str(dest), "run": [], "transfer": {"sources": [source], "data": pack([sent])}}
        result = ModuleCall("script", arguments).wait()
        assert result["failed"]
        assert result["findings"][0]["code"] == "content-corrupt"
        assert dest.read_bytes() == OLD
        assert not proof.exists()
        assert sorted(os.listdir(tmp_path)) == ["script.sh"]
    arguments["transfer"]["data"] = pack([good])
    assert not ModuleCall("script", {**arguments, "mode": "0755"}).wait().get("failed")
    assert proof.exists()


def test_waits_while_another_process_writes_the_script_and_names_it(tmp_path):
    dest = tmp_path / "script.sh"
    dest.write_text("#!/bin/sh\necho old\n")
    dest.chmod(0o755)
    keep_open = "import sys; f = open(sys.argv[1], 'a'); print(1, flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", keep_open, dest], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        with pytest.raises(OSError, match="Text file busy"):
            subprocess.run([dest])
        arguments = {"dest": str(dest), "content": "#!/bin/sh\necho new\n", "run": [], "busy_timeout": 0.5}
        refused = ModuleCall("script", arguments).wait()
        assert refused["findings"][0]["code"] == "open-for-writing"
        assert f"process {holder.pid} (python" in refused["msg"]
        assert "old" in dest.read_text()
        assert os.listdir(tmp_path) == ["script.sh"]
        patient = ModuleCall("script", {**arguments, "busy_timeout": 60})
        time.sleep(1)
        assert patient.process.poll() is None
        assert "old" in dest.read_text()
    finally:
        holder.communicate(b"\n")
    assert patient.wait()["run"]["stdout"] == "new\n"


def test_a_busy_file_is_executed_as_soon_as_it_is_free(tmp_path):
    """errno 26 itself: the writer comes between the look and the execution."""
    from ansible_collections.shipshape.deploy.plugins.module_utils.files.execute import execute

    dest = tmp_path / "script.sh"
    dest.write_text("#!/bin/sh\necho done\n")
    dest.chmod(0o755)
    with open(dest, "a"):
        started = time.monotonic()
        with pytest.raises(ShipshapeError, match="still open for writing after 0"):
            execute([str(dest)], timeout=5, cwd="/", busy_timeout=0.3)
        assert time.monotonic() - started < 10
    closer = subprocess.Popen(["sh", "-c", 'exec 3>>"$1"; echo ready; sleep 0.5', "sh", dest], stdout=subprocess.PIPE)
    closer.stdout.readline()
    assert execute([str(dest)], timeout=5, cwd="/", busy_timeout=20).stdout == "done\n"
    closer.wait()


def test_two_placings_at_once_leave_one_whole_file_and_no_temporary(tmp_path):
    calls = [ModuleCall("script", _two_scripts(tmp_path, word)) for word in ("one", "two", "three")]
    results = [call.wait() for call in calls]
    for result in results:
        assert not result.get("failed") or result["findings"][-1]["code"] in ("checksum-differs", "dangling-link")
    assert not all(result.get("failed") for result in results)
    for name in ("a.sh", "b.sh"):
        said = subprocess.run([tmp_path / name], capture_output=True, text=True).stdout
        assert said in ("one\n", "two\n", "three\n")
    assert not list(tmp_path.glob(".shipshape*"))
