"""`python -m ltchm_geo` is `ltchm`."""

from __future__ import annotations

import sys

from ltchm_geo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
