"""`relevo status` for people: every sentence is shown, whatever is in it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

import drbd_conf_files as files
from relevo.cli import cluster
from relevo.cli.orders import explanation


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


def test_a_mirrors_trouble_is_one_word_in_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    side = {
        "role": "Primary",
        "connection": "StandAlone",
        "disk": "UpToDate",
        "out_of_sync_bytes": 0,
        "problem": "x" * 90,
    }
    sides = {
        "nodo1": {**side, "split_brain": True},
        "nodo2": side,
        "nodo3": {**side, "problem": "", "io_suspended": True},
    }
    cluster._print({**_state("-"), "mirrors": {"r0": sides}}, as_json=False)
    shown = capsys.readouterr().out
    assert "xx" not in shown, "a sentence would be broken into ten lines there"
    assert [shown.count(word) for word in ("split brain", "see alarm", "I/O held")] == [1, 1, 1]


TOLD: dict[str, Any] = {"node": "nodo1", "reason": "It runs on nodo1.", "remedy": "", "elsewhere": {}, "ping": {}}


def test_explain_says_nothing_twice() -> None:
    then = {"node": "nodo1", "fenced": [], "reason": "It runs on nodo1.", "remedy": "", "steps": []}
    assert explanation("web", {**TOLD, "if_dies": {"nodo2": then}}) == [
        "web runs on nodo1.",
        "If nodo2 died now, it would run on nodo1.",
    ]
    stays = "It runs on nodo1 and stays there: the copy on nodo2 is Diskless."
    advice = "Repair it."
    told = {
        **TOLD,
        "reason": stays,
        "remedy": advice,
        "if_dies": {"nodo2": {**then, "reason": stays, "remedy": advice}},
    }
    assert explanation("web", told) == [
        "web runs on nodo1 and stays there: the copy on nodo2 is Diskless.",
        "Repair it.",
        "If nodo2 died now, it would run on nodo1 and stays there: the copy on nodo2 is Diskless.",
    ]
    nowhere = explanation("web", {**TOLD, "node": None, "reason": "Nobody may.", "if_dies": {}})
    assert nowhere == ["web runs nowhere. Nobody may."]


@pytest.mark.parametrize("command", [["status"], ["standby", "nodo1"], ["status", "--watch"]])
def test_a_machine_that_is_no_server_says_so_in_one_sentence(tmp_path: pathlib.Path, command: list[str]) -> None:
    def said(*more: str) -> str:
        places = ["--etc", str(tmp_path), "--run", str(tmp_path), "--state", str(tmp_path)]
        words = [sys.executable, "-m", "relevo", *places, "--drbd-conf", str(tmp_path / "drbd.conf"), *more, *command]
        done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ), check=False)
        assert done.returncode == 1
        return done.stderr

    bare = said()
    assert f"This machine is no server of a cluster: there is no {tmp_path}/relevo.toml." in bare
    assert "relevo lab run nodo1 -- relevo status" in bare
    assert len(bare.splitlines()) == 1
    (tmp_path / "drbd.conf").write_text(files.resource())
    assert "relevo mirror proc" in said("--node", "nodo1")
