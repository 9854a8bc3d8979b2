"""``check --connect``: what a start would find, without making anything.  Blocking."""

from collections.abc import Collection

import psycopg

from ...settings import DatabaseUrl
from .connection import dial
from .faults import explain
from .schema import (
    JOURNAL,
    STORE,
    timescale_schema,
    version_of,
    why_no_tables,
    why_not_made,
    why_read_only,
    why_unreadable,
    why_unusable,
)

_STATEMENT_S = 5.0


def look_at(url: DatabaseUrl, parts: Collection[str], *, reads: bool) -> tuple[str, str, str]:
    """What is there, what is wrong with it and what to do; one of the first two is empty.
    ``parts``: "store", "journal" or both.  ``reads``: candles are only read."""
    try:
        db = dial(url, _STATEMENT_S)
        try:
            found = [f"PostgreSQL {db.info.parameter_status('server_version')}"]
            only_reads = reads and JOURNAL.name not in parts
            wrong = why_unusable(db) or why_read_only(db, reads=only_reads)
            if not wrong and timescale_schema(db) is not None:
                found.append("TimescaleDB")
            for part in [part for part in (STORE, JOURNAL) if part.name in parts]:
                version = version_of(db, part)
                if not reads or part is JOURNAL:
                    why = why_no_tables(db, part)
                else:
                    whole = version == part.version
                    why = why_unreadable(db) if whole else why_not_made(db, part)
                if wrong := wrong or why:
                    break
                found.append(f"{part.name}: " + (f"schema {version}" if version else "to be made"))
        finally:
            db.close()
    except psycopg.Error as error:
        return "", *explain(error)
    problem, _, advice = wrong.partition("; ")
    return ("" if wrong else ", ".join(found)), problem, advice
