import shutil
import sys
from pathlib import Path

import pytest

from kit.code import code_hash

FILES = {"__init__.py": "", "one.py": "x = 1\n", "inner/__init__.py": "", "inner/two.py": "y = 2\n"}


def package(folder: Path, name: str = "hashed", files: dict[str, str] | None = None) -> Path:
    for file, text in (files or FILES).items():
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def hash_at(folder: Path, *names: str) -> str:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        return code_hash(*names or ("hashed",))


def test_the_same_code_elsewhere_is_the_same_code(tmp_path):
    first = hash_at(package(tmp_path / "a"))
    other = package(tmp_path / "b", files=dict(reversed(FILES.items())))
    (other / "hashed" / "__pycache__").mkdir()
    (other / "hashed" / "__pycache__" / "one.cpython-311.pyc").write_bytes(b"compiled")
    (other / "hashed" / "notes.txt").write_text("no code")
    assert hash_at(other) == first


@pytest.mark.parametrize(
    "change",
    [
        {"inner/two.py": "y = 3\n"},
        {"three.py": ""},
        {"one.py": "y = 2\n", "inner/two.py": "x = 1\n"},
    ],
)
def test_every_change_of_code_is_seen(tmp_path, change):
    before = hash_at(package(tmp_path / "a"))
    assert hash_at(package(tmp_path / "b", files=FILES | change)) != before


def test_a_file_that_is_gone_or_moved_is_seen(tmp_path):
    folder = package(tmp_path / "a")
    hashes = {hash_at(folder)}
    shutil.move(folder / "hashed" / "one.py", folder / "hashed" / "inner" / "one.py")
    hashes.add(hash_at(folder))
    (folder / "hashed" / "inner" / "one.py").unlink()
    assert len(hashes | {hash_at(folder)}) == 3


def test_packages_are_told_apart_and_their_order_is_not(tmp_path):
    folder = package(package(tmp_path), "second")
    assert hash_at(folder, "hashed", "second") == hash_at(folder, "second", "hashed")
    assert len({hash_at(folder, "hashed"), hash_at(folder, "second"), hash_at(folder, "hashed", "second")}) == 3


def test_nothing_is_loaded_and_what_is_missing_is_no_package(tmp_path):
    hash_at(package(tmp_path, files={"__init__.py": "raise RuntimeError"}))
    assert "hashed" not in sys.modules
    with pytest.raises(AssertionError, match="is not a package"):
        code_hash("no_such_package_anywhere")
