"""What is known of the dependencies is said plainly: a hole, one that is accepted, and that nobody looked."""

import subprocess
from types import SimpleNamespace

import pytest

from tests import audit, check

HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["2.1"], "aliases": []}
BAD = {"name": "numpy", "version": "2.0", "vulns": [HOLE]}
GOOD = {"name": "scipy", "version": "1.14", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "not on the index"}


def test_a_hole_fails_and_is_named_with_what_mends_it(capsys):
    assert audit.judged({"dependencies": [BAD, GOOD]}) == 1
    said = capsys.readouterr().out
    assert "numpy 2.0: PYSEC-2026-1, mended in 2.1" in said
    assert "2 of 2 packages looked at, 1 with a known hole, 0 accepted" in said


def test_one_that_is_accepted_does_not_and_one_that_is_gone_is_said(monkeypatch, capsys):
    monkeypatch.setattr(audit, "ACCEPTED", {HOLE["id"]: "we do not do that", "GHSA-old": "it was so"})
    assert audit.judged({"dependencies": [BAD]}) == 0
    assert "GHSA-old is gone" in capsys.readouterr().out


@pytest.mark.parametrize("packages", [[], [GOOD, SKIPPED]])
def test_what_was_not_looked_at_is_no_pass(packages):
    assert audit.judged({"dependencies": packages}) == audit.NOT_DONE


def test_without_its_tool_or_its_list_it_is_not_done(monkeypatch, capsys):
    silent = SimpleNamespace(stdout="", stderr="ERROR: could not connect\n\n", returncode=1)
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: silent)
    assert audit.main() == audit.NOT_DONE
    assert capsys.readouterr().out == "not done: ERROR: could not connect\n"


@pytest.mark.parametrize(
    ("statuses", "status", "words"),
    [
        ({}, 0, "all checks passed\n"),
        ({"tests.audit": audit.NOT_DONE}, 0, "that were done\nNOT DONE: holes in dependencies;"),
        ({"tests.audit": 1}, 1, "failed: holes in dependencies\n"),
    ],
)
def test_the_check_says_what_it_has_not_done(monkeypatch, capsys, statuses, status, words):
    def run(command, **options):
        return SimpleNamespace(returncode=next((n for word, n in statuses.items() if word in command), 0))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("sys.argv", ["check", "--all"])
    assert check.main() == status
    assert words in capsys.readouterr().out
