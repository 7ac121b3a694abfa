"""Answers to a change of state that one side asks the other for (P_STATE_CHG_REPLY): 1 is yes, all others are no."""

from __future__ import annotations

SS_SUCCESS = 1
SS_TWO_PRIMARIES = -1
SS_NO_UP_TO_DATE_DISK = -2
SS_NOT_SUPPORTED = -17
SS_IN_TRANSIENT_STATE = -18
SS_CONCURRENT_CHANGE = -19
