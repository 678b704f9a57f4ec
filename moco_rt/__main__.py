"""`python -m moco_rt` is the command line."""

import sys

from moco_rt.cli import main

sys.exit(main())
