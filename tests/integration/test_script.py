# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `script` through the real ansible-playbook: what lies on the disk afterwards, not what the task says."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.modules import ROOT, run_module
from tests.support.playbook import play

MODULE = "shipshape.deploy.script"
HELLO = '#!/bin/sh\necho hello "$@"\n'

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, owners and other users need root")


def task(**arguments) -> dict:
    keywords = {name: arguments.pop(name) for name in ("diff", "ignore_errors", "no_log") if name in arguments}
    return {MODULE: arguments, **keywords}


def codes(result: dict) -> list[str]:
    return [finding["code"] for finding in result["findings"]]


def done(result: dict) -> list[tuple[str, str]]:
    return [(action["action"], os.path.basename(action["target"])) for action in result["actions"]]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def out(tmp_path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture
def files(tmp_path) -> Path:
    path = tmp_path / "files"
    path.mkdir()
    return path


def test_one_script_from_nothing_to_changed(tmp_path, out):
    """Check mode says what the run then does; a second run does nothing; backups are kept, but not for ever."""
    dest = out / "hello.sh"
    first = task(content=HELLO, dest=str(dest))
    predicted = play(tmp_path, first, options=["--check", "--diff"])
    assert not list(out.iterdir())
    assert predicted.last["changed"]
    assert '+echo hello "$@"' in predicted.output

    changes = [task(content=f"{HELLO}# {number}\n", dest=str(dest), backup=True, backup_keep=2) for number in range(4)]
    tighter = task(content=f"{HELLO}# 3\n", dest=str(dest), mode="0700")
    played = play(tmp_path, first, first, *changes, tighter, tighter, options=["--diff"])
    created, again, *replaced, adjusted, unchanged = played.results
    assert done(created) == done(predicted.last) == [("create", "hello.sh")]
    assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
    assert done(replaced[0]) == [("backup", "hello.sh"), ("replace", "hello.sh")]
    assert done(replaced[2])[:2] == done(replaced[0])
    assert re.fullmatch(r"hello\.sh\.\d{8}T\d{12}Z~", done(replaced[2])[2][1])
    assert done(adjusted) == [("adjust", "hello.sh")]
    assert not unchanged["changed"]
    assert "-mode: 0755\n+mode: 0700" in played.output
    assert dest.read_text() == f"{HELLO}# 3\n"
    assert mode(dest) == 0o700
    backups = sorted(out.glob("*~"))
    assert [path.read_text()[-2:] for path in backups] == ["1\n", "2\n"]
    assert [Path(result["backup_file"]) for result in replaced[2:]] == backups
    assert len(os.listdir(out)) == 3


def test_check_mode_predicts_each_action_of_a_mixed_list(tmp_path, out, files):
    for name in ("new", "changed", "mode", "same"):
        (files / name).write_text(f"#!/bin/sh\necho {name}\n")
    (out / "changed").write_text("#!/bin/sh\necho old\n")
    for name in ("mode", "same"):
        (out / name).write_text(f"#!/bin/sh\necho {name}\n")
    (out / "same").chmod(0o755)
    scripts = [{"src": name, "dest": str(out / name)} for name in ("new", "changed", "mode", "same")]
    scripts[3]["run"] = ["x"]
    whole = task(scripts=scripts, mode="0755", backup=True)
    before = {path.name: (path.read_text(), mode(path)) for path in out.iterdir()}
    predicted = play(tmp_path, whole, options=["--check"]).last
    assert {path.name: (path.read_text(), mode(path)) for path in out.iterdir()} == before
    real = play(tmp_path, whole).last
    assert [(one["action"], one["target"], one["reason"]) for one in predicted["actions"]] == [
        (one["action"], one["target"], one["reason"]) for one in real["actions"]
    ]
    assert [script["changed"] for script in predicted["scripts"]] == [script["changed"] for script in real["scripts"]]
    assert [script["changed"] for script in real["scripts"]] == [True, True, True, False]
    assert real["scripts"][3]["run"]["stdout"] == "same\n"
    assert predicted["scripts"][3]["run"] is None
    for name in ("new", "changed", "mode", "same"):
        assert ((out / name).read_text(), mode(out / name)) == ((files / name).read_text(), 0o755)


def test_of_several_none_is_changed_when_one_is_bad_and_all_that_is_wrong_is_said_at_once(tmp_path, out):
    (out / "a").write_text("old")
    scripts = [
        {"content": HELLO, "dest": str(out / "a")},
        {"content": "#!/bin/bash\nif\n", "dest": str(out / "b")},
        {"content": "#!/usr/bin/env python3\nprint(\n", "dest": str(out / "c")},
        {"content": HELLO, "dest": str(out / "missing/d")},
    ]
    for options in ([], ["--check"]):
        result = play(tmp_path, task(scripts=scripts), options=options).last
        assert result["failed"]
        expected = ["invalid-script", "invalid-script", "missing-parent"]
        assert sorted(codes(result)) == expected
        assert "line 3: syntax error" in result["msg"]
        assert (result["changed"], result["actions"]) == (False, [])
        assert os.listdir(out) == ["a"]
        assert (out / "a").read_text() == "old"


def test_sources_of_all_kinds(tmp_path, out, files):
    (files / "windows.sh").write_bytes(b"\xef\xbb\xbf#!/bin/sh\r\necho unix\r\n")
    (files / "windows.sh").chmod(0o750)
    (files / "empty").write_bytes(b"")
    (files / "program").write_bytes(Path(shutil.which("true")).read_bytes())
    names = ["with space.sh", "ümläut.sh", "quote'\".sh", "-dash.sh", "*.sh"]
    secret = "#!/bin/sh\necho from the vault\n"
    (tmp_path / "password").write_text("open sesame")
    (files / "vaulted.sh").write_text(secret)
    vault = ["--vault-password-file", "password"]
    encrypt = [Path(sys.executable).parent / "ansible-vault", "encrypt", *vault, "files/vaulted.sh"]
    subprocess.run(encrypt, cwd=tmp_path, check=True, capture_output=True)
    assert b"ANSIBLE_VAULT" in (files / "vaulted.sh").read_bytes()
    scripts = [
        {"src": "windows.sh", "dest": str(out / "windows.sh"), "mode": "preserve", "run": []},
        {"src": str(files / "windows.sh"), "dest": str(out / "kept"), "line_endings": "keep"},
        {"src": "empty", "dest": str(out / "empty")},
        {"src": "program", "dest": str(out / "program"), "run": []},
        {"src": "vaulted.sh", "dest": str(out / "vaulted.sh"), "mode": "u=rwx,go=", "run": []},
        *[{"content": HELLO, "dest": str(out / name), "run": [name, "{{ '$x' }}"]} for name in names],
    ]
    result = play(tmp_path, task(scripts=scripts), options=vault).last
    assert not result.get("failed"), result["msg"]
    assert (out / "windows.sh").read_bytes() == b"#!/bin/sh\necho unix\n"
    assert mode(out / "windows.sh") == 0o750
    assert (out / "kept").read_bytes() == (files / "windows.sh").read_bytes()
    assert (out / "program").read_bytes() == (files / "program").read_bytes()
    assert (out / "vaulted.sh").read_text() == secret
    assert mode(out / "vaulted.sh") == 0o700
    expected = {"line-endings-converted", "byte-order-mark-removed", "line-endings-kept", "byte-order-mark-kept"}
    assert set(codes(result)) == expected | {"empty-script", "no-interpreter"}
    said = [script["run"] and script["run"]["stdout"] for script in result["scripts"]]
    assert said == ["unix\n", None, None, "", "from the vault\n", *[f"hello {name} $x\n" for name in names]]
    assert not list(out.glob(".shipshape*"))
    locked = play(tmp_path, task(scripts=scripts[4:5])).last
    assert codes(locked) == ["source-unreadable"]
    assert "--ask-vault-pass" in locked["msg"]


def test_large_files_are_transferred_only_when_they_are_needed(tmp_path, out, files):
    large = b"#!/bin/sh\necho large\nexit 0\n" + os.urandom(50_000_000)
    (files / "large").write_bytes(large)
    (files / "small").write_text(HELLO)
    scripts = [{"src": name, "dest": str(out / name)} for name in ("small", "large")]
    scripts[1]["run"] = []
    remote = {"ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote")}
    played = play(tmp_path, task(scripts=scripts[::-1]), options=["-vvv", "--diff"], env=remote)
    assert not list((tmp_path / "remote").iterdir()), "what was transferred still lies on the target"
    assert (out / "large").read_bytes() == large
    assert played.last["scripts"][0]["run"]["stdout"] == "large\n"
    assert "PUT " in played.output
    assert "(binary data)" in played.output or "(too large to be shown)" in played.output
    del scripts[1]["run"]
    again = play(tmp_path, task(scripts=scripts), options=["-vvv"], env={"ANSIBLE_PIPELINING": "true"})
    assert not again.last["changed"]
    assert "PUT " not in again.output, "something was transferred although nothing changed"


def test_a_run_is_a_verified_step_of_its_own(tmp_path, out):
    failing = "#!/bin/sh\necho started\necho postgres://app:topsecret@db/app is down >&2\nexit 7\n"
    tasks = [
        task(content=HELLO, dest=str(out / "a"), run=["--json", "two words"]),
        task(content=failing, dest=str(out / "b"), run=[], ignore_errors=True),
        task(content="#!/bin/sh\nsleep 60\n", dest=str(out / "c"), run=[], run_timeout=0.5, ignore_errors=True),
        task(content=HELLO, dest=str(out / "d"), run=[], mode="0644", ignore_errors=True),
        task(content="echo\n", dest=str(out / "e"), run=[], ignore_errors=True),
        task(content=HELLO, dest=str(out / "a"), run=[str(out / "a"), "again"]),
    ]
    played = play(tmp_path, *tasks, options=["-vvv"])
    good, failed, slow, not_executable, no_interpreter, again = played.results
    assert good["run"] == {"rc": 0, "stdout": "hello --json two words\n", "stderr": ""}
    assert (failed["run"]["rc"], failed["run"]["stdout"]) == (7, "started\n")
    assert codes(failed) == ["run-failed"]
    assert failed["changed"]
    assert done(failed) == [("create", "b"), ("run", "b")]
    assert failed["checksum"] == hashlib.sha256(failing.encode()).hexdigest()
    assert no_interpreter.get("checksum") is None
    assert "exit code 7; its last line: postgres://app:***@db/app is down" in failed["msg"]
    assert failed["logs"] == {str(out / "b"): ["postgres://app:***@db/app is down"]}
    assert codes(slow) == ["run-timeout"]
    assert codes(not_executable) == ["not-executable"]
    assert codes(no_interpreter) == ["no-interpreter"]
    assert not (out / "e").exists()
    assert again["run"]["stdout"] == "hello again\n"
    assert (again["changed"], again["scripts"][0]["changed"]) == (True, False)
    ran = [line for line in played.output.splitlines() if "topsecret" in line and "+echo" not in line]
    assert ran == []


def test_content_is_in_the_diff_unless_it_is_not_wanted_and_nowhere_else(tmp_path, out):
    content = "#!/bin/sh\nTOKEN=hunter2-abcdef\n"
    hidden = [
        task(content=content, dest=str(out / "a"), diff=False),
        task(content=content, dest=str(out / "b"), no_log=True),
        task(scripts=[{"content": content, "dest": str(out / "c")}], diff=False),
    ]
    played = play(tmp_path, *hidden, options=["--diff", "-vvv"], env={"ANSIBLE_KEEP_REMOTE_FILES": "false"})
    assert played.rc == 0
    assert "hunter2" not in played.output
    assert "SFVOVEVSMi" not in played.output
    shown = play(tmp_path, task(content=content + "# a line\n", dest=str(out / "a")), options=["--diff"]).output
    assert "# a line" in shown
    assert "TOKEN=***" in shown, "what stands beside a secret's name is hidden in a diff that is wanted, too"


@needs_root
def test_places_that_cannot_be_written(tmp_path, out):
    for name in ("directory", "mount"):
        (out / name).mkdir()
    (out / "dangling").symlink_to("nowhere")
    (out / "link").symlink_to("behind")
    (out / "behind").write_text("old")
    (out / "mounted").write_text("old")
    (out / "full").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", out / "mount"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", out / "full"], check=True)
    subprocess.run(["mount", "--bind", out / "mounted", out / "mounted"], check=True)
    expected = {
        "directory": "destination-is-directory",
        "directory/": "invalid-name",
        "dangling": "dangling-link",
        "mount/a": "read-only",
        "full/a": "disk-full",
        "mounted": "destination-mounted",
        "missing/a": "missing-parent",
        "behind/a": "not-a-directory",
        "n" * 256: "name-too-long",
    }
    long_script = HELLO + "# line\n" * 3000
    try:
        tasks = [task(content=long_script, dest=f"{out}/{name}", ignore_errors=True) for name in expected]
        played = play(tmp_path, *tasks)
        checked = play(tmp_path, *tasks, options=["--check"])
    finally:
        for name in ("mount", "full", "mounted"):
            subprocess.run(["umount", out / name], check=True)
    assert [codes(result) for result in played.results] == [[code] for code in expected.values()]
    assert not any(result["changed"] or result["actions"] for result in played.results)
    assert all(result["msg"].count("\n") == 0 and "Traceback" not in result["msg"] for result in played.results)
    # What only a real write finds out, and what an earlier task would have put right, check mode does not refuse.
    refused = [code for result, code in zip(checked.results, expected.values()) if result.get("failed")]
    assert refused == [
        code for code in expected.values() if code not in ("disk-full", "destination-mounted", "missing-parent")
    ]
    assert (out / "mounted").read_text() == "old"
    assert not list(out.rglob(".shipshape*"))
    through = play(tmp_path, task(content=HELLO, dest=str(out / "link")))
    assert through.rc == 0
    assert (out / "link").is_symlink()
    assert (out / "behind").read_text() == HELLO


@needs_root
def test_without_become_and_with_an_owner(tmp_path, out):
    nobody = pwd.getpwnam("nobody")
    (out / "mine").mkdir()
    os.chown(out / "mine", nobody.pw_uid, -1)
    (out / "mine" / "roots").write_text("root's")
    for parent in [out, *out.parents]:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    as_nobody = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    env = {"HOME": str(out / "mine"), "PYTHONDONTWRITEBYTECODE": "1"}
    if subprocess.run([*as_nobody, sys.executable, "-c", "import ansible"], capture_output=True).returncode:
        pytest.skip("nobody cannot read this Python")

    def as_user(dest: Path, **more) -> dict:
        return run_module("script", {"content": HELLO, "dest": str(dest), **more}, prefix=as_nobody, env=env)

    assert as_user(out / "mine/a", run=[])["run"]["stdout"] == "hello\n"
    assert (out / "mine/a").stat().st_uid == nobody.pw_uid
    for dest, more in ((out / "a", {}), (out / "mine/b", {"owner": "root"}), (out / "mine/roots", {})):
        refused = as_user(dest, **more)
        assert codes(refused) == ["no-rights"], refused
        assert f"uid {nobody.pw_uid}" in refused["msg"]
        assert "become" in refused["msg"]
    assert sorted(path.name for path in (out / "mine").iterdir() if path.name != ".ansible") == ["a", "roots"]
    owned = play(tmp_path, task(content=HELLO, dest=str(out / "a"), owner="nobody", group="nogroup", mode="0550")).last
    assert not owned.get("failed"), owned
    assert ((out / "a").stat().st_uid, mode(out / "a")) == (nobody.pw_uid, 0o550)
    unknown = task(content=HELLO, dest=str(out / "a"), owner="not-yet-there")
    assert codes(play(tmp_path, unknown).last) == ["unknown-owner"]
    predicted = play(tmp_path, unknown, options=["--check"]).last
    assert (predicted.get("failed", False), predicted["changed"], codes(predicted)) == (False, True, ["unknown-owner"])


WRONG = [
    ({"content": HELLO}, "one of the following is required: dest, scripts"),
    ({"dest": "/tmp/x"}, "there is neither src nor content"),
    ({"dest": "/tmp/x", "src": "a", "content": "b"}, "mutually exclusive"),
    ({"dest": "/tmp/x", "content": HELLO, "scripts": []}, "mutually exclusive"),
    ({"dest": "relative", "content": HELLO}, "Give dest an absolute path"),
    ({"dest": "/tmp/x", "src": "no-such-file"}, "no-such-file"),
    ({"dest": "/tmp/x", "src": "."}, "it is a directory on the controller"),
    ({"dest": "/tmp/x", "content": HELLO, "mode": 755}, 'Write "0755"'),
    ({"dest": "/tmp/x", "content": HELLO, "mode": "rwx"}, "there is no mode 'rwx'"),
    ({"dest": "/tmp/x", "content": HELLO, "mode": "preserve"}, "mode=preserve needs src"),
    ({"dest": "/tmp/x", "content": {"a": 1}}, "content is no text but a mapping"),
    ({"dest": "/tmp/x", "content": HELLO, "validate": "bash -n %s"}, "Use auto, none, or a list"),
    ({"dest": "/tmp/x", "content": HELLO, "validate": ["bash", "-n"]}, "Use auto, none, or a list"),
    ({"dest": "/tmp/x", "content": HELLO, "backup": True, "backup_keep": 0}, "Keep at least one"),
    ({"dest": "/tmp/x", "content": "#!/no/such/interpreter\n"}, "/no/such/interpreter is not on this machine"),
    ({"dest": "/tmp/x", "content": "#!/usr/bin/env bash -e\n"}, "Write #!/usr/bin/env -S in the first line"),
    ({"scripts": [{"content": HELLO, "dest": "/tmp/x"}] * 2}, "several scripts have the destination /tmp/x"),
    ({"scripts": [{"content": HELLO}]}, "missing required arguments: dest"),
    ({"scripts": [{"dest": "/tmp/x"}]}, "there is neither src nor content"),
    ({"dest": "/tmp/x", "content": HELLO, "transfer": {"sources": []}}, "Leave it out of the task"),
]


def test_wrong_input_gets_one_clear_line_each(tmp_path):
    played = play(tmp_path, *[task(**arguments, ignore_errors=True) for arguments, _ in WRONG])
    assert len(played.results) == len(WRONG)
    for result, (arguments, expected) in zip(played.results, WRONG):
        assert result["failed"], arguments
        assert expected in result["msg"], arguments
        assert "\n" not in result["msg"], arguments
        assert not result["changed"]
    assert "Traceback" not in played.output


def test_leftovers_of_a_killed_run_are_gone_after_the_next_also_when_it_changes_nothing(tmp_path, out):
    unchanged = task(content=HELLO, dest=str(out / "a"))
    play(tmp_path, unchanged)
    (out / ".shipshape-a-0123456789abcdef.tmp").write_text("half")
    played = play(tmp_path, unchanged).last
    assert os.listdir(out) == ["a"]
    assert (played["changed"], codes(played)) == (False, ["leftover-removed"])


def _documented() -> list[dict]:
    scope: dict = {}
    text = (ROOT / "plugins/modules/script.py").read_text()
    exec(re.search(r'EXAMPLES = r""".*?"""', text, re.DOTALL).group(), scope)
    return yaml.safe_load(scope["EXAMPLES"])


def test_the_documented_examples_run(tmp_path, out, files):
    """As they are written, but for the paths, which are put below a directory of this test."""
    for name in ("health-check.sh", "backup.sh"):
        (files / name).write_text('#!/bin/sh\necho "{}"\nexit 1\n')
    (files / "rotate.py").write_text("#!/usr/bin/env python3\nprint('rotated')\n")
    for directory in ("usr/local/bin", "etc/cron.daily", "etc/sudoers.d", "bin"):
        (out / directory).mkdir(parents=True)
    (out / "bin/visudo").write_text('#!/bin/sh\ntest "$1" = -cf && grep -q Defaults "$2"\n')
    (out / "bin/visudo").chmod(0o755)
    examples = yaml.safe_load(re.sub(r"(?<=dest: )/", f"{out}/", yaml.safe_dump(_documented(), width=1000)))
    assert len(examples) >= 4
    env = {"PATH": f"{out}/bin:{os.environ['PATH']}"}
    if os.geteuid() != 0:
        env["ANSIBLE_CHECK_MODE"] = "true"
    checked = play(tmp_path, *examples[:2], options=["--check"], env=env)
    assert checked.rc == 0, checked.output
    played = play(tmp_path, *examples, env=env)
    assert played.rc == 0, played.output
    assert played.results[2]["run"]["rc"] == 1
    assert (out / "etc/sudoers.d/pty").read_text() == "Defaults use_pty\n"
    again = play(tmp_path, *examples, env=env)
    assert not any(result["changed"] for result in again.results), again.output
