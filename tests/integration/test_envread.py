# SPDX-License-Identifier: GPL-3.0-or-later
"""How env files are read, against what `docker compose config` makes of the same text, whatever it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from ansible_collections.shipshape.deploy.plugins.module_utils.files.envread import evaluate, read
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from tests.support.engine import Engine

NAME = st.sampled_from(
    ["AA", "BB", "export AA", "export  CC", "A.A", "a-b", " DD", "AA ", "E E", "9A", "F[0]", "\ufeffGG"]
)
PIECE = st.one_of(
    st.sampled_from(["v", " ", "'", '"', "\\", "$", "#", " #", "=", ":", "\t", "\r", "\n", "é", "p@ss"]),
    st.sampled_from(["${AA}", "$BB", "${CC:-x}", "${DD-'y'}", "${EE:?gone}", "${", "}"]),
    st.sampled_from(["\\n", "\\$", "\\\\", "\\'", '\\"', "\\0101", "postgres://a:b@c/d?e=f#g"]),
)
VALUE = st.lists(PIECE, max_size=7).map("".join)
QUOTED = st.builds(
    lambda mark, value, rest: f"{mark}{value}{mark}{rest}", st.sampled_from("'\""), VALUE, st.sampled_from(["", " #c"])
)
LINE = st.one_of(
    st.builds(
        lambda name, mark, value: f"{name}{mark}{value}",
        NAME,
        st.sampled_from(["=", " = ", ": ", "=="]),
        VALUE | QUOTED,
    ),
    NAME,
    VALUE.map(lambda value: f"# {value}"),
    st.just(""),
)
# With an end to its last line: of a name alone without one Compose 2.26 makes a variable without a name.
TEXT = st.lists(LINE, min_size=1, max_size=4).map(lambda lines: "\n".join([*lines, ""]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("read")
    document = {"services": {"one": {"image": "x", "env_file": ["vars"]}}}
    (made / "compose.json").write_text(json.dumps(document), encoding="utf-8")
    return made


def of_compose(folder: Path, text: str) -> dict[str, str] | None:
    """What the container would get; None when Compose refuses the text."""
    (folder / "vars").write_bytes(text.encode())
    done = Engine().compose(folder, "-f", "compose.json", "config", "--format", "json", check=False)
    if done.returncode:
        return None
    found = json.loads(done.stdout)["services"]["one"].get("environment") or {}
    return {name: value.replace("$$", "$") for name, value in found.items() if value is not None}


def of_ours(text: str) -> dict[str, str] | None:
    try:
        return evaluate(read("vars", text), os.environ.get)
    except (ShipshapeError, ValueError):
        return None


@settings(
    max_examples=80, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@example('AA="x\nBB=y"\nCC=$AA')
@example("AA=x\r\nBB='y'\r\n")
@given(TEXT)
def test_it_is_read_as_compose_reads_it(folder: Path, text: str) -> None:
    theirs, ours = of_compose(folder, text), of_ours(text)
    assert ours == theirs, repr(text)
