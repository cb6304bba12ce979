# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole corpus on the newer Compose and on Engine 20.10; `make test` plays a telling part of it there."""

from __future__ import annotations

import pytest

from tests.corpus.cases import CASES, Case
from tests.corpus.plays import Start, assert_same, listed
from tests.support.engine import Engine
from tests.support.engines import PrivateEngine

pytest_plugins = ["tests.corpus.fixtures"]
pytestmark = pytest.mark.long


@pytest.mark.parametrize("case", listed(CASES))
def test_same_as_a_newer_compose(case: Case, plays: Start, request: pytest.FixtureRequest, newer: Engine) -> None:
    assert_same(plays(request, newer), case)


@pytest.mark.engine2010
@pytest.mark.parametrize("case", listed(CASES))
def test_same_on_engine_2010(
    case: Case, plays: Start, request: pytest.FixtureRequest, engine2010: PrivateEngine
) -> None:
    assert_same(plays(request, engine2010), case)
