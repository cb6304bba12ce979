# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.applied import differences, label, read
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.compose import Compose, Source
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.resolve import resolved
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report

MODEL = {
    "name": "p",
    "services": {"web": {"image": "a", "secrets": [{"source": "key"}, {"source": "other"}]}},
    "secrets": {"key": {"environment": "KEY"}, "other": {"environment": "UNSET"}, "file": {"file": "/nosuch"}},
}


def project(value, report=None):
    """The project as it is while the variable KEY holds `value`."""

    def run(argv, _environment, _directory, stdin):
        asked = {"KEY": [value, "set"], "UNSET": ["", ""]}
        return 0, json.dumps({"x-asked": asked} if "x-asked" in stdin else MODEL), ""

    return resolved(Compose(run, "docker", Source(definition={}, name="p")), report or Report())


def test_a_secret_from_a_variable_is_compared_by_what_the_variable_holds():
    before, after = project("one-value"), project("another-value")
    made = read(label(before, before.services["web"]))
    assert differences(before, before.services["web"], made) == []
    [found] = differences(after, after.services["web"], made)
    assert (found.field, found.secret) == ("secrets_content.key", True)
    assert "content" not in after.secrets["other"]
    assert "another-value" not in str(after.document), "Compose cannot read back a secret that has both"


def test_a_secret_from_a_variable_is_masked():
    report = Report()
    project("one-value", report)
    assert report.masker.text("it is one-value") == "it is ***"


def test_what_the_files_are_filled_in_from_is_masked(tmp_path, monkeypatch):
    (tmp_path / "compose.yaml").touch()
    (tmp_path / "plain.env").write_text(
        "export REDIS_PASSWORD=first-value  # of the cache\n"
        "# OLD_PASSWORD=commented-out\n"
        'DB_PASSWORD="second # value"\n'
        "SIGNING_KEY='third\nvalue'\n"
        "URL=redis://:fourth@cache\n"
        "DB_PASSWORD_FILE=./secrets/db.txt\n"
        "MODE=production\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("API_TOKEN", "p-fifth")
    monkeypatch.setenv("OTHER_TOKEN", "unused-token")
    model = {"name": "p", "services": {"web": {"image": "a", "command": ["serve", "p-fifth"]}}}
    report = Report()
    resolved(
        Compose(lambda *_call: (0, json.dumps(model), ""), "docker", Source(str(tmp_path), env_files=("plain.env",))),
        report,
    )
    for secret in ("first-value", "second # value", "third", "fourth", "p-fifth"):
        assert report.masker.text(f"it is {secret}") == "it is ***"
    for text in ("of the cache", "commented-out", "./secrets/db.txt", "production", "unused-token"):
        assert report.masker.text(f"it is {text}") == f"it is {text}"
