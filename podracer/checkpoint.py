"""Checkpoints: everything that the next step of a training depends on, in one file that executes nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from kit.errors import UserError
from kit.files import replacing

FORMAT = 1


def write(path: Path, state: dict[str, Any]) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:  # given a path, it would write its name
        torch.save({"format": FORMAT, **state}, file)


def existing(path: Path) -> Path:
    """The same path; refuses one where no file is."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; expected a checkpoint.pt of an earlier training")
    return path


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state; refuses what is no checkpoint of this format. Tensors and plain values only."""
    existing(path)
    try:
        with zipfile.ZipFile(path) as archive:  # the reader itself checks no sums
            if damaged := archive.testzip():
                raise ValueError(damaged)
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # the reader of a damaged file raises whatever it stumbles over
        raise UserError(f"{path}: not a checkpoint, or a damaged one ({type(error).__name__}); train anew") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        raise UserError(f"{path}: format = {found!r}: expected {FORMAT}; it was written by another version")
    return state
