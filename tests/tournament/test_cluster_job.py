"""A tournament submitted as a job, as to a cluster in the cloud: a real head of Ray's on loopback, with a token."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from heads import RAY, ROOT, Head, head
from small import SMOKE, TINY


@pytest.fixture
def cluster() -> Iterator[Head]:
    with head() as made:
        made.start(["--num-cpus=2"], {})
        yield made


@pytest.mark.timeout(400)
def test_a_tournament_is_submitted_as_a_job_and_its_results_are_in_the_shared_folder(
    cluster: Head, tmp_path: Path
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{cluster.url}/api/jobs/", timeout=10)
    folder = tmp_path / "run"
    submit = [RAY, "job", "submit", "--working-dir", "."]
    run = ["--", "python", "-m", "tournament", "run", SMOKE.relative_to(ROOT), *TINY, "--out", folder]
    done = cluster.run(*submit, "--submission-id", "first", *run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hold-out unopened" in done.stdout or "than equal weight" in done.stdout
    assert len(json.loads((folder / "leaderboard.json").read_text())) == 4
    again = cluster.run(*submit, "--submission-id", "first", *run)
    assert again.returncode != 0, "a submission id serves once"
