"""Whatever is not as it was saved is refused in one line, and nothing of it is executed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from bundles import saved
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.bundle import HEADER_LIMIT, load
from kit.errors import UserError
from kit.files import hash_file, hash_json


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "original"
    saved(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load(folder)
    line = str(error.value)
    assert "\n" not in line and line.startswith(str(folder)) and len(line) < 1000
    return line


def reseal(folder: Path, change: Callable[[dict[str, Any]], object] = lambda tree: None) -> None:
    """What somebody would do who knows how bundles are written: change the manifest and set every hash right."""
    path = folder / "manifest.json"
    tree = json.loads(path.read_text())
    del tree["hash"]
    tree["reference_sha256"] = hash_file(folder / "reference.json")
    for member in tree["members"]:
        if (folder / member["file"]).is_file():
            member["sha256"] = hash_file(folder / member["file"])
    change(tree)
    path.write_text(json.dumps({"hash": hash_json(tree), **tree}, indent=2) + "\n")


@settings(max_examples=80)
@given(st.data())
def test_no_byte_can_be_changed(original: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as there:
        folder = Path(shutil.copytree(original, Path(there) / "bundle"))
        path = folder / data.draw(st.sampled_from(sorted(os.listdir(folder))))
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        refusal(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("lens"), "lens: is missing"),
        (lambda t: t["lens"].pop("scaler"), "lens.scaler: is missing"),
        (lambda t: t["lens"]["trading"].pop("fill"), "the content's is"),
        (lambda t: t.update(note="hi"), "note = 'hi': unknown key"),
        (lambda t: t["members"][0].update(weigth=1), "members.0.weigth = 1: unknown key; did you mean weight?"),
        (lambda t: t["lens"]["trading"]["costs"].update(commission_bp=0.0), "the content's is"),
        (lambda t: t.pop("hash"), "hash = None: the content's is"),
        (lambda t: t.update(hash="0" * 64), "the content's is"),
        (lambda t: t.update(format=2), "format = 2: expected 1"),
        (lambda t: t["members"].reverse(), "the content's is"),
    ],
)
def test_an_edited_manifest_is_refused(folder: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    path = folder / "manifest.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree, indent=2) + "\n")
    assert words in refusal(folder)


def set_in_first_member(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda tree: tree["members"][0].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_in_first_member(weight=0.4), "their weights sum to 1.23333333; expected 1"),
        (set_in_first_member(weight=-1 / 6), "members.0.weight = -0.16"),
        (set_in_first_member(name="m1"), "the name m1 is given twice"),
        (set_in_first_member(file="member-1.safetensors"), "the file member-1.safetensors is given twice"),
        (set_in_first_member(file="../member-0.safetensors"), "expected a plain name"),
        (set_in_first_member(file="/etc/passwd"), "expected a plain name"),
        (set_in_first_member(file="member-9.safetensors"), "expected only"),
        (set_in_first_member(sha256="abc"), "expected 64 hexadecimal digits"),
        (set_in_first_member(features=2), "members.0.features = 2: expected 4, as the lens says"),
        (set_in_first_member(portfolio=7), "members.0.portfolio = 7: expected 6, as the lens says"),
        (set_in_first_member(network={"hidden": [8, 5]}), "as the network in manifest.json says"),
        (set_in_first_member(network={"hidden": [10**17, 10**17]}), "cannot be built"),
        (set_in_first_member(network={"encoder": "attention", "hidden": [6]}), "divisible by 4"),
        (set_in_first_member(network={"encoder": "flat", "hidden": [8, 4]}), "tensor net.encoder"),
        (set_in_first_member(network={"hidden": [8, 4], "lookback": 2}), "as the network in manifest.json says"),
        (lambda t: t["members"].clear(), "members must be at least one"),
        (lambda t: t["members"].pop(), "weights sum to 0.5"),
        (lambda t: t["lens"]["symbols"].append("NEW"), "members.0.assets = 4: expected 5, as the lens says"),
        (lambda t: t["lens"]["scaler"]["names"].reverse(), "scaler.names must be those of the features"),
        (lambda t: t["lens"]["scaler"]["std"].__setitem__(0, -1.0), "std finite and at least 0"),
        (lambda t: t["lens"]["features"].append("nonsense"), "unknown feature 'nonsense'"),
        (lambda t: t["lens"].update(bars_per_year=0), "bars_per_year = 0"),
        (lambda t: t["lens"].update(bars_per_year=10**400), "is not valid JSON"),
        (lambda t: t.update(reference_sha256="0" * 64), "reference.json: its SHA-256 is"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused_though_its_hash_is_right(
    folder: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    reseal(folder, change)
    assert words in refusal(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1, 2]", "holds a list; expected keys with values"),
        (b'{"format": NaN}', "NaN is not a number"),
        (b'{"format": 1e999}', "1e999 is not a number"),
        (b'{"a":' * 100_000, "is not valid JSON"),
        (b"{}", "format = None: expected 1"),
    ],
)
def test_what_is_no_manifest_is_refused(folder: Path, text: bytes, words: str) -> None:
    (folder / "manifest.json").write_bytes(text)
    assert words in refusal(folder)


def test_a_key_given_twice_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('  "format": 1,\n', '  "format": 1,\n  "format": 1,\n', 1))
    assert "expected one that nobody edited" in refusal(folder)


def test_networks_swapped_between_members_are_refused(folder: Path) -> None:
    first, second = folder / "member-0.safetensors", folder / "member-1.safetensors"
    first_bytes = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(first_bytes)
    assert "member-0.safetensors: its SHA-256 is" in refusal(folder)


@pytest.mark.parametrize("name", ["manifest.json", "reference.json", "member-1.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == f"{folder / name}: is missing; expected it in the bundle"


@pytest.mark.parametrize("name", ["manifest.json", "reference.json", "member-1.safetensors"])
def test_a_link_is_refused_though_its_content_is_right(folder: Path, name: str) -> None:
    outside = folder.parent / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    assert refusal(folder) == f"{folder / name}: is a link or no file; expected a plain file"


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    assert "is a link or no file" in refusal(folder)


def test_a_file_too_many_is_refused(folder: Path) -> None:
    (folder / "notes.txt").write_text("hi")
    assert f"{folder / 'notes.txt'}: is not part of the bundle" in refusal(folder)


def test_what_is_no_folder_is_refused(folder: Path) -> None:
    assert "no such bundle" in refusal(folder / "nothing")
    assert "no such bundle" in refusal(folder / "manifest.json")


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    with open(folder / "member-0.safetensors", "ab") as file:
        file.truncate(10 * HEADER_LIMIT)
    assert "expected at most 1,0" in refusal(folder)
    with open(folder / "manifest.json", "ab") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    assert "expected at most 16,777,216" in refusal(folder)


def damage_tensors(path: Path, **changes: torch.Tensor | None) -> None:
    tensors = safetensors.torch.load(path.read_bytes())
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    path.write_bytes(safetensors.torch.save(tensors))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"net__whole__bias": torch.full((3,), torch.nan)}, "tensor net.whole.bias holds NaN or infinity"),
        ({"net__whole__bias": torch.full((3,), -torch.inf)}, "tensor net.whole.bias holds NaN or infinity"),
        ({"net__whole__bias": torch.zeros(4)}, "is float32 [4]: expected float32 [3]"),
        ({"net__whole__bias": torch.zeros(3, dtype=torch.float64)}, "is float64 [3]: expected float32 [3]"),
        ({"net__whole__bias": None}, "tensor net.whole.bias is missing"),
        ({"extra": torch.zeros(1)}, "tensor extra is unknown"),
    ],
)
def test_tensors_that_are_not_the_networks_are_refused_though_hashes_are_right(
    folder: Path, changes: dict[str, torch.Tensor | None], words: str
) -> None:
    damage_tensors(folder / "member-0.safetensors", **changes)
    reseal(folder)
    assert words in refusal(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-10],
        lambda data: data[:20],
        lambda data: data + b"more",
        lambda data: struct.pack("<Q", 1 << 62) + data[8:],
        lambda data: struct.pack("<Q", 7) + data[8:],
        lambda data: data.replace(b"F32", b"XYZ"),
        lambda data: data.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1),
    ],
)
def test_a_damaged_file_of_tensors_is_refused_though_hashes_are_right(
    folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = folder / "member-0.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    reseal(folder)
    assert f"{path}: is not a safetensors file" in refusal(folder)


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.marker, "w")


@pytest.mark.parametrize("name", ["manifest.json", "reference.json", "member-0.safetensors"])
@pytest.mark.parametrize("zipped", [False, True])
def test_loading_executes_nothing(folder: Path, name: str, zipped: bool) -> None:
    marker = folder.parent / "executed"
    if zipped:
        torch.save(Harmful(marker), folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Harmful(marker)))
    if name != "manifest.json":
        reseal(folder)
    refusal(folder)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Harmful(marker))).close()
    assert marker.exists(), "else the test would prove nothing"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.pop("dispersion"), "dispersion: is missing"),
        (lambda r: r["features"].pop("signal"), "expected those of the manifest"),
        (lambda r: r["features"]["signal"]["frequencies"].append(0.0), "frequencies must be one more than"),
        (lambda r: r["features"]["signal"]["edges"].reverse(), "edges must increase"),
        (lambda r: r["walk_forward"].update(drawdown=0.5), "drawdown = 0.5: must be at least -1 and at most 0"),
    ],
)
def test_a_reference_that_makes_no_sense_is_refused_though_hashes_are_right(
    folder: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    path = folder / "reference.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    reseal(folder)
    assert words in refusal(folder)
