"""What a file must not name: a path of the machine that made it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MACHINE_PATH = re.compile(rf"{re.escape(str(ROOT))}|(?<![\w.])/(root|home|tmp|Users|opt|mnt)/")
