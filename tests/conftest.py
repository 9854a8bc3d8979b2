import gc
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

# Collections every 700 objects are a tenth of the time of the scenarios.
gc.set_threshold(50_000, 20, 20)

# How long an example takes says nothing on a machine that is busy with others.
hypothesis.settings.register_profile("trio_feed", deadline=None)
hypothesis.settings.load_profile("trio_feed")


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A command that runs in this process writes its log to where pytest listened then: the next
    test would hear nothing of its own."""
    yield
    structlog.reset_defaults()
