"""For every test: whatever a test starts may run no handler where the machine's own reset button is in reach."""

from __future__ import annotations

import os

from relevo.base.sysrq import MASK_VARIABLE, REQUIRED

os.environ[MASK_VARIABLE] = REQUIRED
