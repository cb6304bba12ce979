# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool and its application in random order against a model of both: visits, saved work, sign-ups, ends of leases,
expiry, resets, growing, shrinking, losses and repair.

After each step: who holds a slot finds his own files and nobody else's, a slot that can be had holds the template and
nothing else, who signed up has all that he saved, and the counts add up.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.pools import MEMORY, World, make_template, sqlite

LARGEST = 5


@dataclass
class Guest:
    """Somebody's lease, or his account."""

    slot: int
    session: str
    token: str
    files: dict[str, str] = field(default_factory=dict)
    ended: bool = False


class Pool(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="pool-model-", dir=MEMORY))
        database = sqlite(self.folder / "app.db")
        for statement in ("PRAGMA synchronous = OFF", "PRAGMA journal_mode = MEMORY"):
            database.run(statement)
        database.make()
        (self.folder / "users").mkdir()
        self.world = World(database, self.folder / "users", make_template(self.folder / "template"), size=3)
        self.template = contents(self.folder / "template")
        self.guests: list[Guest] = []
        self.accounts: dict[str, dict[str, str]] = {}
        self.count = 0
        self.works()

    def teardown(self) -> None:
        self.world.database.close()
        shutil.rmtree(self.folder)

    def works(self, **options: object) -> None:
        result = self.world.call(**options)
        assert not result.get("failed"), result["msg"]

    # -- the application --------------------------------------------------------------------------------------------

    @rule()
    def visit(self) -> None:
        taken = {at.slot for at in self.guests}
        free = [number for number in range(1, self.world.size + 1) if number not in taken]
        visit = self.world.visit()
        assert (visit[0] if visit else None) == (free[0] if free else None)
        if visit is not None:
            assert self.held(visit[0]) == self.template, "somebody else's files"
            self.guests.append(Guest(*visit, files=dict(self.template)))

    @precondition(lambda self: any(not at.ended for at in self.guests))
    @rule(data=st.data(), name=st.sampled_from(["a.tex", "sections/b.tex", "01_manuscript/abstract.tex"]))
    def save(self, data: st.DataObject, name: str) -> None:
        guest = data.draw(st.sampled_from([at for at in self.guests if not at.ended]))
        self.count += 1
        guest.files[name] = f"{self.count} by {guest.session}"
        self.world.save(guest.slot, name, guest.files[name])

    @precondition(lambda self: any(not at.ended for at in self.guests))
    @rule(data=st.data())
    def sign_up(self, data: st.DataObject) -> None:
        guest = data.draw(st.sampled_from([at for at in self.guests if not at.ended]))
        self.count += 1
        name = f"user{self.count}"
        self.world.sign_up(name)
        self.works(state="transferred", slot=guest.slot, session_key=guest.session, token=guest.token, to_user=name)
        self.guests.remove(guest)
        self.accounts[name] = guest.files

    @precondition(lambda self: bool(self.guests))
    @rule(data=st.data())
    def lease_ends(self, data: st.DataObject) -> None:
        guest = data.draw(st.sampled_from(self.guests))
        guest.ended = True
        self.world.end(guest.slot)

    # -- who runs it ------------------------------------------------------------------------------------------------

    @rule()
    def expire(self) -> None:
        self.works(state="expired")
        self.guests = [at for at in self.guests if not at.ended]

    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        some = data.draw(st.sets(st.integers(1, self.world.size))) if self.world.size else set()
        self.works(state="reset", slots=sorted(some))
        self.guests = [at for at in self.guests if some and at.slot not in some]
        self.drained()

    @rule(size=st.integers(0, LARGEST))
    def resize(self, size: int) -> None:
        self.world.size = size
        self.works()
        self.drained()

    @rule(
        lost=st.sampled_from(["user", "project", "directory", "workspace", "allocation", "flag"]),
        slot=st.integers(1, LARGEST),
    )
    def lose_and_repair(self, lost: str, slot: int) -> None:
        self.world.lose(lost, slot)
        for guest in [at for at in self.guests if at.slot == slot]:
            if lost in ("user", "project", "allocation"):
                self.guests.remove(guest)  # his account or project, or what says that it is his, is gone
            elif lost in ("directory", "workspace"):
                guest.files = dict(self.template)
        self.works()
        self.drained()

    def drained(self) -> None:
        """Whoever is beyond the size stays until his lease ends."""
        self.guests = [at for at in self.guests if at.slot <= self.world.size or not at.ended]

    # -- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def files_are_whose_they_are(self) -> None:
        for guest in self.guests:
            assert self.held(guest.slot) == guest.files
        for name, files in self.accounts.items():
            assert contents(self.world.root / name / "default-project/scitex/writer") == files, "lost work"

    @invariant()
    def what_is_offered_is_clean(self) -> None:
        rows = self.world.sql("SELECT visitor_number FROM project_app_visitorallocation WHERE NOT is_active")
        for (number,) in rows:
            assert self.held(number) == self.template

    @invariant()
    def counts_add_up(self) -> None:
        slots = self.world.info(size=self.world.size)["slots"]
        states = ("allocatable", "leased", "expired", "resetting", "quarantined", "missing")
        assert slots["total"] == sum(slots[name] for name in states)
        assert slots["leased"] == sum(1 for at in self.guests if not at.ended)
        assert slots["expired"] == sum(1 for at in self.guests if at.ended)
        taken = sum(1 for at in self.guests if at.slot <= self.world.size)
        assert slots["allocatable"] == self.world.size - taken
        assert slots["absent"] == 0

    def held(self, number: int) -> dict[str, str]:
        return contents(self.world.path(number) / "scitex/writer")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def _run(examples: int, steps: int, *, same: bool = True) -> None:
    run_state_machine_as_test(
        Pool,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=same,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_some_random_orders() -> None:
    _run(15, 12)


@pytest.mark.long
def test_a_thousand_random_orders() -> None:
    _run(1000, 20, same=False)
