"""For every test: whatever a test starts may run no handler where the machine's own reset button is in reach.

Hypothesis judges by outcomes only, never by how long a busy machine took, and tries the same examples in every run;
new ones are what `make torture` looks for (RELEVO_FUZZ_EXAMPLES)."""

from __future__ import annotations

import os

from hypothesis import settings

from relevo.base.sysrq import MASK_VARIABLE, REQUIRED

os.environ[MASK_VARIABLE] = REQUIRED
settings.register_profile("relevo", deadline=None, derandomize="RELEVO_FUZZ_EXAMPLES" not in os.environ)
settings.load_profile("relevo")
