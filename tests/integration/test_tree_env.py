# SPDX-License-Identifier: GPL-3.0-or-later
"""Env files of module tree: what Compose reads back, and that no value is ever seen elsewhere."""

from __future__ import annotations

import base64
import json
import os
import stat
import string
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.engine import Engine
from tests.support.playbook import play, play_text
from tests.support.trees import TREE, write

sys.path.insert(0, str(TREE))

from ansible_collections.shipshape.deploy.plugins.module_utils.files.envfile import quote as env_quote
from ansible_collections.shipshape.deploy.plugins.module_utils.files.envfile import render

# What parsers trip over, oftener than chance would have it.
NASTY = "'\"$#\\\n\r\t `={}()%!~:;,&|<>*?[]^@-_\u00a0\u2028\ufeff\u00e9\U0001f600\x01\x0b\x7f0nrtxu"
TEXT = st.one_of(
    st.text(alphabet=NASTY, max_size=12),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    st.text(alphabet=string.ascii_letters + "$'\"\\ ", max_size=20),
)
BATCH = 200


def read_back(folder: Path, engine: Engine, values: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The values as a container gets them: by `env_file:`, and through ${NAME} with `--env-file`."""
    (folder / "vars").write_bytes(render("vars", values))
    names = [name for name in values if "." not in name and "-" not in name]
    services = {
        "by-file": {"image": "x", "env_file": ["vars"]},
        "by-name": {"image": "x", "environment": {name: f"${{{name}}}" for name in names}},
    }
    (folder / "compose.json").write_text(json.dumps({"services": services}))
    done = engine.compose(folder, "-f", "compose.json", "--env-file", "vars", "config", "--format", "json")
    model = json.loads(done.stdout)["services"]
    # `config` prints a dollar as two, for whoever reads its output as a Compose file.
    plain = [
        {name: value.replace("$$", "$") for name, value in (model[service].get("environment") or {}).items()}
        for service in ("by-file", "by-name")
    ]
    return plain[0], plain[1]


@pytest.fixture(scope="module")
def versions(compose_versions: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return compose_versions


@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(texts=st.lists(TEXT, min_size=BATCH, max_size=BATCH))
def test_compose_reads_back_every_value(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory, versions: dict[str, dict[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("env")
    values = {f"V{number}": text for number, text in enumerate(texts)}
    for version, env in versions.items():
        by_file, by_name = read_back(folder, Engine(env=env), values)
        assert by_file == values, version
        assert by_name == values, version


def test_compose_reads_back_the_awkward_ones(tmp_path: Path, versions: dict[str, dict[str, str]]) -> None:
    # No names that the shell may have set: for interpolation those would win, as with any Compose file.
    values = {
        "EMPTY": "",
        "QUOTES": """'"'""",
        "ENDS_IN_BACKSLASH": "c:\\dir\\",
        "BACKSLASH_QUOTE": "\\'\\\"",
        "DOLLARS": "$$ $X ${X} ${X:-y} \\$X $",
        "HASH": "a #b",
        "SPACES": "  x  ",
        "MULTILINE": "-----BEGIN KEY-----\nab=\n-----END KEY-----\n",
        "CRLF": "a\r\nb\r",
        "LITERAL_ESCAPES": "\\n\\t\\0101\\x41",
        "LONG": "x'\\" * 20_000,
        "SOME_URL": "postgres://u:p%40ss@db:5432/x?sslmode=disable#f",
        "with.dot": "1",
        "with-dash": "2",
        "lower": "3",
    }
    for version, env in versions.items():
        by_file, by_name = read_back(tmp_path, Engine(env=env), values)
        assert by_file == values, version
        assert by_name == {name: value for name, value in values.items() if "." not in name and "-" not in name}, (
            version
        )


def test_a_shell_reads_back_most(tmp_path: Path) -> None:
    """`set -a; . .env` works wherever there is neither a line break nor a tab beside a quote or a backslash."""
    values = {"A": "a b", "B": "it's $5", "C": 'say "hi"', "D": "c:\\x", "E": "tab\there", "F": "#", "G": "`id`"}
    (tmp_path / "vars").write_bytes(render("vars", values))
    script = 'set -a; . ./vars; printf "%s\\0" "$A" "$B" "$C" "$D" "$E" "$F" "$G"'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == list(values.values())
    assert env_quote("plain/value:1") == "plain/value:1"


SECRETS = {
    "DATABASE_URL": "postgres://shop:pl4nted-S3cret/+&=@db/shop",
    "KEY": "-----BEGIN PL4NTED KEY-----\nc2Vjcm\tQgbGluZQ==\nline-two-of-pl4nted\n",
    "SHORT": "1",
    "WORD": "changed",
    "UMLAUT": "gehéimnis pl4nted' \\ \"x",
}


def spellings(secret: str) -> set[str]:
    """Every form in which someone would recognise it, its lines one by one too."""
    forms = set()
    for text in {secret, *secret.splitlines()}:
        raw = text.encode()
        forms |= {text, quote(text, safe=""), quote(text), json.dumps(text)[1:-1], env_quote(text)}
        forms |= {base64.b64encode(raw).decode().rstrip("="), base64.b64encode(raw + b"\n").decode().rstrip("=")}
    return {form for form in forms if len(form) > 8}


@pytest.mark.parametrize("pipelining", ["true", "false"])
def test_secrets_are_nowhere(tmp_path: Path, pipelining: str) -> None:
    """Not in -vvv output, diffs, results, process arguments or the syslog; short values garble nothing."""
    src, dest = tmp_path / "files" / "shop", tmp_path / "dest"
    write(src / "compose.yml", "services: {web: {image: x, env_file: .env.production}}\n")
    write(src / "web.env", "PLAIN=pl4nted-in-a-file\n")
    variables = {"secrets": SECRETS}
    task = {
        "shipshape.deploy.tree": {"src": "shop", "dest": str(dest), "env_files": {".env.production": "{{ secrets }}"}}
    }
    stop = threading.Event()
    seen: set[str] = set()
    watcher = threading.Thread(target=watch_arguments, args=(stop, seen))
    watcher.start()
    try:
        outputs = []
        for round_number in range(3):
            if round_number == 2:
                variables = {"secrets": {**SECRETS, "KEY": SECRETS["KEY"] + "more pl4nted"}}
                write(src / "web.env", "PLAIN=pl4nted-anew\n")
            for flags in (["--check"], []):
                done = play(
                    tmp_path,
                    task,
                    options=["-vvv", "--diff", *flags],
                    env={"ANSIBLE_PIPELINING": pipelining},
                    vars=variables,
                )
                assert done.rc == 0, done.output
                outputs.append(done.output + json.dumps(done.results))
            assert stat.S_IMODE((dest / ".env.production").stat().st_mode) == 0o600
            if round_number == 1:
                assert not done.last["changed"]
    finally:
        stop.set()
        watcher.join()
    for secret in [*SECRETS.values(), "pl4nted"]:
        for form in spellings(secret) | ({secret} if secret == "pl4nted" else set()):
            for text in (*outputs, *seen):
                assert form not in text.replace(str(tmp_path), ""), form
    assert done.last["files"]["changed"] == [".env.production", "web.env"]
    texts = {part["after_header"].rpartition("/")[2]: part for part in done.last["diff"]}
    assert "KEY=<new value>\n" in texts[".env.production"]["after"]
    assert "SHORT=<unchanged>\n" in texts[".env.production"]["after"]
    assert any("ansible-playbook" in line for line in seen)


def watch_arguments(stop: threading.Event, seen: set[str]) -> None:
    while not stop.is_set():
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/cmdline", "rb") as stream:
                        seen.add(stream.read().replace(b"\0", b" ").decode("utf-8", "replace"))
                except OSError:
                    continue
        stop.wait(0.02)


def test_vaulted_variables_and_errors(tmp_path: Path) -> None:
    """Values from an inline vault arrive; a wrong value is named by its variable, never shown."""
    write(tmp_path / "files" / "shop" / "a", "1")
    password = write(tmp_path / "password", "pw\n")
    words = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt_string", "--vault-password-file"]
    vaulted = subprocess.run([*words, password, "from-the-vault"], capture_output=True, text=True, check=True).stdout
    text = f"""
- hosts: localhost
  gather_facts: false
  vars:
    key: {vaulted.replace(chr(10), chr(10) + "    ")}
    wrong: pl4nted
  tasks:
    - shipshape.deploy.tree:
        src: shop
        dest: {tmp_path}/dest
        env_files:
          conf/.env: {{KEY: "{{{{ key }}}}", NUMBER: 5, FLAG: true, EMPTY: ""}}
    - shipshape.deploy.tree: {{src: shop, dest: {tmp_path}/dest, env_files: {{.env: {{KEY: "{{{{ [wrong] }}}}"}}}}}}
      ignore_errors: true
    - shipshape.deploy.tree: {{src: shop, dest: {tmp_path}/dest, env_files: {{.env: {{KEY: null}}}}}}
      ignore_errors: true
    - shipshape.deploy.tree: {{src: shop, dest: {tmp_path}/dest, env_files: {{.env: {{"A B": "{{{{ wrong }}}}"}}}}}}
      ignore_errors: true
    - shipshape.deploy.tree: {{src: shop, dest: {tmp_path}/dest, env_files: {{../.env: {{A: "{{{{ wrong }}}}"}}}}}}
      ignore_errors: true
    - shipshape.deploy.tree: {{src: shop, dest: {tmp_path}/dest, env_files: {{.env: "{{{{ wrong }}}}"}}}}
      ignore_errors: true
    - shipshape.deploy.tree: {{src: shop, dest: {tmp_path}/dest, env_files: {{.env: {{A: "{{{{ wrong }}}}\\0"}}}}}}
      ignore_errors: true
"""
    done = play_text(tmp_path, text, options=["-vvv", "--vault-password-file", str(password)])
    assert (tmp_path / "dest" / "conf" / ".env").read_text().splitlines()[1:] == [
        "EMPTY=",
        "FLAG=true",
        "KEY=from-the-vault",
        "NUMBER=5",
    ]
    codes = [finding["code"] for result in done.results for finding in result["findings"]]
    assert codes == [
        "env-value-not-text",
        "env-value-missing",
        "env-name-invalid",
        "env-file-name",
        "env-file-name",
        "env-value-not-text",
    ]
    # Ansible itself quotes the playbook around a failed task, where the play's own variables are not.
    assert "pl4nted" not in done.output
    assert not (tmp_path / ".env").exists()
    assert sorted(os.listdir(tmp_path / "dest")) == [".shipshape", "a", "conf"]
