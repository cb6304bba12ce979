# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user gets from Galaxy: the tarball, installed in a clean place, deploys a project."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.support.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent


def run(*words: str, folder: Path, collections: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHONPATH"))}
    done = subprocess.run(
        words,
        cwd=folder,
        env={
            **env,
            "PATH": f"{TOOLS}:{env['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git knows: a checkout holds caches that no user gets."""
    source = tmp_path_factory.mktemp("source")
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.split(b"\0")[:-1]
    present = b"\0".join(name for name in names if os.path.lexists(ROOT / name.decode()))
    subprocess.run(["xargs", "-0", "cp", "--parents", "-P", "-t", source], cwd=ROOT, input=present, check=True)
    output = tmp_path_factory.mktemp("dist")
    run("ansible-galaxy", "collection", "build", "--output-path", str(output), folder=source, collections=output)
    [built] = output.glob("shipshape-deploy-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clean = tmp_path_factory.mktemp("clean")
    words = ["ansible-galaxy", "collection", "install", "--offline", "-p", str(clean), str(tarball)]
    run(*words, folder=clean, collections=clean)
    return clean


def test_the_tarball_holds_the_collection_and_no_caches(tarball: Path) -> None:
    with tarfile.open(tarball) as tar:
        names = set(tar.getnames())
    assert {"README.md", "meta/runtime.yml", "plugins/modules/stack.py", "playbooks/deploy.yml", "COPYING"} <= names
    assert {"roles/engine/files/look.py", "roles/engine/files/service.sh"} <= names
    tops = {name.split("/")[0] for name in names}
    assert not tops & {".venv", ".tree", ".cache", ".deps", ".git", ".ci"}
    assert not [name for name in names if name.endswith(".pyc")]


def test_every_module_documents_itself_there(installed: Path) -> None:
    folder = installed / "ansible_collections/shipshape/deploy/plugins/modules"
    modules = sorted(f"shipshape.deploy.{path.stem}" for path in folder.glob("*.py"))
    shown = run("ansible-doc", *modules, folder=installed, collections=installed)
    for module in modules:
        assert f"MODULE {module}" in shown


def test_it_deploys_from_there(installed: Path, engine: Engine, busybox: str, prefix: str, tmp_path: Path) -> None:
    definition = {
        "name": prefix,
        "services": {"web": {"image": busybox, "command": ["sleep", "600"], "init": True}},
    }
    inventory = {
        "deploy": {
            "hosts": {"localhost": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}},
            "vars": {
                "deploy_project_src": "./project",
                "deploy_dest": str(tmp_path / "target"),
                "stack_stability": 1,
            },
        }
    }
    (tmp_path / "project").mkdir()
    (tmp_path / "project/compose.yaml").write_text(yaml.safe_dump(definition))
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
    words = ["ansible-playbook", "shipshape.deploy.deploy", "-i", "inventory.yml"]

    run(*words, folder=tmp_path, collections=installed)
    [container] = engine.containers(prefix, "web")
    assert container["State"]["Running"]
    assert container["Config"]["Labels"]["com.docker.compose.project.working_dir"] == str(tmp_path / "target")

    again = run(*words, folder=tmp_path, collections=installed)
    assert "changed=0" in again
    assert [one["Id"] for one in engine.containers(prefix)] == [container["Id"]]
