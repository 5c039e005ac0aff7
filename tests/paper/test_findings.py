"""What a review finds reaches the desk once, and a file that cannot be read harms nobody."""

from __future__ import annotations

import json
from pathlib import Path

from kit.files import write_json
from paper.review import drift
from paper.watch.findings import FILE, Finding, Findings


def told(*findings: tuple[str, str, str]) -> dict:
    listed = [{"name": n, "value": 1.0, "limit": 0.5, "level": level, "text": text} for n, level, text in findings]
    return {"at": "2024-01-02", "bars": 60, "findings": listed}


def test_each_review_is_told_once_and_information_not_at_all(tmp_path: Path):
    findings = Findings(tmp_path)
    assert findings.new() == []
    write_json(tmp_path / FILE, told(("psi.signal", "critical", "moved"), ("bars", "info", "too few")))
    assert findings.new() == [Finding("psi.signal", "critical", "moved")]
    assert findings.new() == []
    write_json(tmp_path / FILE, told(("psi.signal", "critical", "moved")))
    assert len(findings.new()) == 1


def test_a_file_that_is_no_review_is_passed_over(tmp_path: Path):
    findings = Findings(tmp_path)
    for text in ("", "[]", "{}", json.dumps({"findings": [{}]}), json.dumps({"findings": [{"name": 1, "level": []}]})):
        (tmp_path / FILE).write_text(text)
        assert findings.new() == []


def test_the_review_writes_where_the_desk_looks():
    assert drift.FILE == FILE
