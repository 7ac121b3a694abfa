"""`relevo status` for people: every sentence is shown, whatever is in it."""

from __future__ import annotations

from typing import Any

import pytest

from relevo.cli import cluster


def _state(sentence: str) -> dict[str, Any]:
    service = {"reason": sentence, "remedy": "Accept it with `relevo force web`.", "states": {"nodo1": "stopped"}}
    return {
        "cluster": "oficina",
        "me": "nodo1",
        "alarms": [sentence],
        "risks": [sentence],
        "nodes": {"nodo1": {"state": "alive", "late": False, "standby": False, "links": {}}},
        "services": {"web": {**service, "resources": ["mirror"], "resource_states": {}}},
        "mirrors": {},
        "history": [{"at": "now", "what": sentence}],
    }


def test_sentences_are_shown_as_they_are_with_their_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "mount failed: [/dev/loop0] and [bold] are no mark-up."
    cluster._print(_state(sentence), as_json=False)
    shown = capsys.readouterr().out
    assert shown.count(sentence) == 4
    assert f"web: {sentence} Accept it with `relevo force web`." in shown
