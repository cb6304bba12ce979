# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at the pool, in the database and on disk, and says what it has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..report.finding import Finding
from ..report.result import Report
from .data_root import DataRoot
from .judge import findings, partition, summary
from .model import Lease, Project, Seen, Slot, User
from .rows import Rows
from .text import status_text


class Sight:
    """One pool as far as it is looked at. What changes it is loaded only where something is to be changed."""

    def __init__(self, records: Rows, root: DataRoot) -> None:
        self.records, self.root, self.settings = records, root, records.settings

    def look(self) -> Seen:
        with self.records.store.snapshot():  # what was read at two moments would make phantoms of leases
            users = self.records.users()
            projects, others = self.records.projects(users)
            rows = self.records.leases()
        leases = {lease.number: lease for lease in rows if lease.number > 0}
        named = (self.settings.number(name) for name in self.root.names())
        numbers = {*users, *leases, *(number for number in named if number is not None)}
        slots = {at: self._slot(at, users, projects, leases, others) for at in sorted(numbers)}
        strays = tuple(at for at in rows if at.number <= 0)
        return Seen(self.settings, self.records.store.now(), slots, strays, self.root.access.denied)

    def _slot(
        self,
        number: int,
        users: Mapping[int, User],
        projects: Mapping[int, Project],
        leases: Mapping[int, Lease],
        others: Mapping[int, int],
    ) -> Slot:
        name = self.settings.name(number)
        disk, more = self.root.look(name), others.get(number, 0)
        return Slot(number, name, users.get(number), projects.get(number), leases.get(number), disk, more)


def tell(report: Report, seen: Seen, more: Iterable[Finding] = ()) -> None:
    """What both modules return of a look; `more` is what else is to be said of slots."""
    found = [*findings(seen), *more]
    report.values.update(summary(seen, found))
    report.values["status_text"] = status_text(partition(seen))
    report.add(*found)
