"""``check --connect``: what a start would find, without making anything.  Blocking."""

from collections.abc import Collection

import psycopg

from ...settings import DatabaseUrl
from .connection import dial
from .faults import explain
from .schema import JOURNAL, STORE, timescale_schema, version_of, why_no_tables, why_unusable

_STATEMENT_S = 5.0


def look_at(url: DatabaseUrl, parts: Collection[str]) -> tuple[str, str, str]:
    """What is there, what is wrong with it and what to do; one of the first two is empty.
    ``parts``: "store", "journal" or both."""
    try:
        db = dial(url, _STATEMENT_S)
        try:
            found = [f"PostgreSQL {db.info.parameter_status('server_version')}"]
            wrong = why_unusable(db)
            if not wrong and timescale_schema(db) is not None:
                found.append("TimescaleDB")
            for part in [part for part in (STORE, JOURNAL) if part.name in parts]:
                if wrong := wrong or why_no_tables(db, part):
                    break
                version = version_of(db, part)
                found.append(f"{part.name}: " + (f"schema {version}" if version else "to be made"))
        finally:
            db.close()
    except psycopg.Error as error:
        return "", *explain(error)
    problem, _, advice = wrong.partition("; ")
    return ("" if wrong else ", ".join(found)), problem, advice
