"""A database file that only its owner may read."""

import os
from contextlib import suppress
from pathlib import Path


def create_private(path: Path) -> None:
    """Make an empty file of mode 0600 where none is, whatever the umask; one that is there keeps
    its mode.  SQLite gives ``-wal`` and ``-shm`` the mode of the database.  Raises OSError."""
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            if hasattr(os, "fchmod"):  # Windows: the folder's own rules count
                os.fchmod(descriptor, 0o600)  # an umask such as 0777 takes the owner's bits too
        finally:
            os.close(descriptor)
