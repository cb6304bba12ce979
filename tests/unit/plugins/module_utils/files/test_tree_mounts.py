# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.shipshape.deploy.plugins.module_utils.files.tree_mounts import mounted, resolve


def test_which_service_mounts_what(tmp_path: Path) -> None:
    dest = str(tmp_path)
    (tmp_path / "v2").mkdir()
    (tmp_path / "current").symlink_to("v2")
    model = {
        "services": {
            "proxy": {"volumes": [{"type": "bind", "source": f"{dest}/conf"}, {"type": "volume", "source": "conf"}]},
            "web": {"volumes": [{"type": "bind", "source": f"{dest}/conf/a"}], "configs": [{"source": "c"}]},
            "all": {"volumes": [{"type": "bind", "source": dest}]},
            "linked": {"volumes": [{"type": "bind", "source": f"{dest}/current"}]},
            "none": {"volumes": None},
            "secret": {"secrets": [{"source": "s"}]},
        },
        "configs": {"c": {"file": f"{dest}/app.ini"}, "inline": {"content": "x"}},
        "secrets": {"s": {"environment": "X"}},
    }
    changed = ["conf/a", "conf/b", "app.ini", "v2/x", "configuration"]
    assert mounted(model, dest, changed) == {
        "proxy": ["conf/a", "conf/b"],
        "web": ["app.ini", "conf/a"],
        "all": sorted(changed),
        "linked": ["v2/x"],
    }
    assert mounted({}, dest, changed) == {}


def test_best_effort(tmp_path: Path) -> None:
    asked: list[Sequence[str]] = []

    def run(words: Sequence[str]) -> tuple[int, str]:
        asked.append(words)
        return answers.pop(0)

    answers = [(1, ""), (0, "no json"), (0, json.dumps({"services": {}}))]
    assert resolve(run, str(tmp_path), None, [], ["a"]) == ({}, [])
    assert asked == []
    (tmp_path / "compose.yml").touch()
    (tmp_path / ".env.production").touch()
    for _ in range(2):
        found, findings = resolve(run, str(tmp_path), None, [".env.production", "absent"], ["a"])
        assert (found, [finding.code for finding in findings]) == ({}, ["bind-mounts-unknown"])
    assert resolve(run, str(tmp_path), ["x.yml"], [], ["a"]) == ({}, [])
    assert asked[0][2:6] == ["--project-directory", str(tmp_path), "--env-file", str(tmp_path / ".env.production")]
    assert asked[2][2:4] == ["--file", str(tmp_path / "x.yml")]
