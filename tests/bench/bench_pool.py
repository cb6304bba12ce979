# SPDX-License-Identifier: GPL-3.0-or-later
"""Module visitor_pool with 1,000 and 10,000 slots, and what the rows that it makes are worth to an application.

Nobody else seeds such a pool, so those rows stand for themselves. The leases are compared in the same minute: the one
statement that an application needs with our rows (see the README of role visitor_pool), and the two that PEERS names,
SELECT ... FOR UPDATE SKIP LOCKED and then UPDATE. Each of 32 clients leases slot after slot until none is left. The
example's own function, which looks for the account and the project as well, is compared with the same two through the
same Django (examples/studio/app/tests/test_crowd.py).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.projects import row
from tests.support.engine import Engine
from tests.support.modules import ModuleCall
from tests.support.pools import NAME, Server, World, make_template, now, postgresql, sqlite
from tests.support.studios import deployed

FEW, MANY = 1000, 10_000
SEEDED_S, UNCHANGED_S, MEGABYTES, LINEAR = 30.0, 5.0, 150, 13.0
CLIENTS, LEASES = 32, 6400
ONE = f"""
UPDATE project_app_visitorallocation SET session_key = %s, allocation_token = %s, allocated_at = now(),
    expires_at = now() + interval '24 hours', is_active = true
WHERE id = (SELECT a.id FROM project_app_visitorallocation a
            WHERE NOT a.is_active AND a.session_key = '' AND a.visitor_number <= {LEASES}
              AND (SELECT u.is_active FROM auth_user u WHERE u.username = {NAME["postgresql"]})
            ORDER BY a.visitor_number FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING visitor_number
"""
TWO = (
    """
SELECT id, visitor_number FROM project_app_visitorallocation WHERE NOT is_active
ORDER BY visitor_number FOR UPDATE SKIP LOCKED LIMIT 1
""",
    """
UPDATE project_app_visitorallocation SET session_key = %s, allocation_token = %s, allocated_at = now(),
    expires_at = now() + interval '24 hours', is_active = true WHERE id = %s
""",
)


# -- slots ------------------------------------------------------------------------------------------------------------


def _call(world: World) -> tuple[float, float, dict[str, Any]]:
    """Seconds, the process's peak memory in MB, and the result."""
    started = time.monotonic()
    call = ModuleCall("visitor_pool", world.given())
    out = call.process.stdout.read()  # type: ignore[union-attr]
    _pid, status, used = os.wait4(call.process.pid, 0)
    took = time.monotonic() - started
    result = json.loads(out.decode().strip().splitlines()[-1])
    if status or result["slots"]["allocatable"] != world.size:
        raise RuntimeError(f"it should have {world.size} slots: {result.get('msg')}")
    return took, used.ru_maxrss / 1024, result


def _slots(server: Server, folder: Path) -> list[dict[str, Any]]:
    template = make_template(folder / "template")
    seeded, rows = {}, []
    for kind in ("SQLite", "PostgreSQL"):
        for size in (FEW, MANY):
            database = sqlite(folder / f"{size}.db") if kind == "SQLite" else server.database()
            database.make()
            root = folder / f"{kind}{size}"
            root.mkdir()
            world = World(database, root, template, size=size)
            took, memory, _result = _call(world)
            again, _memory, result = _call(world)
            if result["changed"]:
                raise RuntimeError("the second run changed something")
            database.close()
            shutil.rmtree(root)
            seeded[kind, size] = took
        what = f"{MANY} slots in {kind}, 3 files each"
        rows += [
            row(f"{what}: seeded", "none", took, None, f"<= {SEEDED_S:g} s", took <= SEEDED_S, None),
            row(f"{what}: nothing to do", "none", again, None, f"<= {UNCHANGED_S:g} s", again <= UNCHANGED_S, None),
            row(f"{what}: peak memory in MB", "none", memory, None, f"<= {MEGABYTES} MB", memory <= MEGABYTES, None),
        ]
        grown = took / seeded[kind, FEW]
        rows.append(
            row(f"{what}: seeded, times as long as {FEW}", f"{FEW} slots", took, seeded[kind, FEW],
                f"ratio <= {LINEAR:g}", grown <= LINEAR, grown)
        )  # fmt: skip
    return rows


# -- leases -----------------------------------------------------------------------------------------------------------


def _lease(server: Server, database: str, one: bool, client: int, ready: Any, results: Any) -> None:
    import secrets

    with server.connect(database) as connection:
        got: list[int] = []
        ready.wait()
        while True:
            session, token = f"{client}-{len(got)}", secrets.token_hex(32)
            if one:
                found = connection.execute(ONE, (session, token)).fetchone()
                number = found[0] if found else None
            else:
                with connection.transaction():
                    found = connection.execute(TWO[0]).fetchone()
                    number = found[1] if found else None
                    if found:
                        connection.execute(TWO[1], (session, token, found[0]))
            if number is None:
                break
            got.append(number)
    results.put(got)


def _leased(server: Server, template: Path, folder: Path, one: bool) -> float:
    """Leases a second; raises when one slot was leased twice, or none was found while there were some."""
    database = server.database()
    database.make()
    root = folder / "leases"
    root.mkdir()
    _call(World(database, root, template, size=LEASES))
    database.run("CREATE INDEX free ON project_app_visitorallocation (visitor_number) WHERE NOT is_active")
    database.run("ANALYZE")
    name = database.url.rpartition("/")[2]
    # Not spawn: run.py loads this file under a name that a new interpreter could not import.
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(CLIENTS + 1), context.Queue()
    clients = [
        context.Process(target=_lease, args=(server, name, one, number, ready, results)) for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    ready.wait()
    started = now()
    got = [number for _client in clients for number in results.get(timeout=300)]
    took = (now() - started).total_seconds()
    for client in clients:
        client.join()
    database.close()
    shutil.rmtree(root)
    if len(got) != LEASES or len(set(got)) != LEASES:
        raise RuntimeError(f"{len(got)} leases of {len(set(got))} slots, and there were {LEASES}")
    return LEASES / took


def _compared(who: str, ours: float, theirs: float) -> dict[str, Any]:
    """Given leases a second."""
    work = f"{CLIENTS} clients leasing {LEASES} slots{who}, none twice ({ours:.0f} a second)"
    peer = f"SELECT ... FOR UPDATE SKIP LOCKED, then UPDATE ({theirs:.0f} a second)"
    return row(work, peer, LEASES / ours, LEASES / theirs, "at least as fast", ours >= theirs, ours / theirs)


def _application(folder: Path) -> dict[str, Any]:
    with deployed(folder) as studio:
        said = studio.own_tests("tests.test_crowd.Rush", leases=LEASES)
    found = re.search(r"clients: (\d+) a second; peer: (\d+) a second", said)
    if not found:
        raise RuntimeError(f"the example's tests said no figures:\n{said[-2000:]}")
    return _compared(" through the example's function", float(found[1]), float(found[2]))


def rows() -> list[dict[str, Any]]:
    engine = Engine()
    engine.ensure_busybox()
    with tempfile.TemporaryDirectory(prefix="shipshape-bench-") as name:
        folder = Path(name)
        for part in ("server", "studio"):
            (folder / part).mkdir()
        with postgresql(engine, folder / "server") as server:
            found = _slots(server, folder)
            rates = {True: 0.0, False: 0.0}
            for one in (True, False, True, False):  # in turn, and the better of two: the machine is not ours alone
                rates[one] = max(rates[one], _leased(server, folder / "template", folder, one))
        return [*found, _compared("", rates[True], rates[False]), _application(folder / "studio")]


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
