"""``python -m trio_feed``."""

import sys

from .cli import main

sys.exit(main())
