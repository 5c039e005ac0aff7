"""What tests of the registry share: three runs, and a registry of their bundles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundles import saved
from versions import NAMES, clock

from agents.networks import NetworkConfig
from serve.registry import Registry


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, each with a bundle of one small member."""
    folder = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(NAMES):
        saved(folder / name / "bundle", (NetworkConfig(hidden=(4 + number, 3)),))
    return folder


@pytest.fixture(scope="session")
def template(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with the three of them."""
    folder = tmp_path_factory.mktemp("template") / "registry"
    for name in NAMES:
        Registry(folder, clock()).register(originals / name / "bundle", "ann")
    return folder


@pytest.fixture
def runs(originals: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(originals, tmp_path / "runs"))


@pytest.fixture
def registry(template: Path, tmp_path: Path) -> Registry:
    return Registry(shutil.copytree(template, tmp_path / "registry"), clock())


@pytest.fixture
def versions(template: Path) -> list[str]:
    return [entry.version for entry in Registry(template).entries]
