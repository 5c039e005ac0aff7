import errno
import os
import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.files import hash_arrays, hash_file, hash_json, replacing, write_json, write_text


def test_a_file_is_whole_or_absent(tmp_path):
    path = write_text(tmp_path / "a.txt", "before")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_complete(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_folders_are_made_and_the_mode_follows_the_umask(tmp_path):
    path = write_json(tmp_path / "deep" / "er" / "a.json", {"x": 1})
    assert path.read_text() == '{\n  "x": 1\n}\n'
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(OSError, match=r"No space") as error, replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "a.txt")
    assert os.listdir(tmp_path) == []


def test_json_that_json_cannot_say_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == []


def test_known_sha256(tmp_path):
    path = write_text(tmp_path / "abc", "abc")
    assert hash_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_hash_of_json_does_not_care_for_key_order():
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 1.5})


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 39))
def test_hash_of_arrays_sees_values_not_memory(rows, columns, start):
    whole = np.arange(40.0 * columns).reshape(40, columns)
    view = whole[start : start + rows]
    assert hash_arrays({"x": view}) == hash_arrays({"x": view.copy()})
    assert hash_arrays({"x": view}) == hash_arrays({"x": np.asfortranarray(view)})
    changed = view.copy()
    changed[-1, -1] += 1
    assert hash_arrays({"x": view}) != hash_arrays({"x": changed})


def test_hash_of_arrays_sees_shape_dtype_and_name():
    x = np.arange(6)
    hashes = [hash_arrays(a) for a in ({"x": x}, {"x": x.reshape(2, 3)}, {"x": x.astype(np.float64)}, {"y": x})]
    assert len(set(hashes)) == 4


def test_hash_of_arrays_larger_than_a_block():
    x = np.zeros((3_000_000, 1))
    y = x.copy()
    y[2_500_000] = 1
    assert hash_arrays({"x": x}) != hash_arrays({"x": y})
