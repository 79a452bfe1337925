"""torch's weight files are read as data and hold just what torch.load gives."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebras_gpt.interop import legacy
from cerebras_gpt.interop.legacy import LegacyFile
from cerebras_gpt.interop.pickled import ALONE, CALLS, CONSTANTS, LITERALS, STORAGES, TUPLES, WITH_ARGUMENT

DTYPES = [getattr(torch, name) for name in sorted(set(STORAGES.values()))]


def read(path):
    file = LegacyFile(path)
    return {name: file.read(name) for name in file.stored}


def assert_as_torch_loads(tensors, path):
    torch.save(tensors, path)
    found, expected = read(path), torch.load(path, weights_only=True)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


@st.composite
def views(draw, storages):
    """A tensor somewhere in one of the storages: turned, cut, every second row, a parameter, or all of these."""
    tensor = draw(st.sampled_from(storages))
    sizes = draw(st.lists(st.integers(0, 4), max_size=3))
    n = int(torch.tensor(sizes, dtype=torch.long).prod()) if sizes else 1
    offset = draw(st.integers(0, len(tensor) - n))
    view = tensor[offset : offset + n].view(sizes)
    if view.dim() > 1 and draw(st.booleans()):
        view = view.transpose(0, -1)
    if view.dim() and draw(st.booleans()):
        view = view[draw(st.integers(0, view.shape[0])) :: 2]
    is_parameter = view.dtype.is_floating_point and draw(st.booleans())
    return torch.nn.Parameter(view, requires_grad=draw(st.booleans())) if is_parameter else view


@st.composite
def state_dicts(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    dtypes = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3))
    storages = [(torch.randn(99, generator=generator) * 50).to(dtype) for dtype in dtypes]
    return draw(st.dictionaries(st.text(max_size=20), views(storages), max_size=6))


@settings(max_examples=80, deadline=None)
@given(tensors=state_dicts())
def test_any_state_dict_is_read_as_torch_loads_it(tmp_path_factory, tensors):
    assert_as_torch_loads(tensors, tmp_path_factory.mktemp("legacy") / "pytorch_model.bin")


def test_a_modules_state_dict_with_more_than_255_tensors(tmp_path):
    module = torch.nn.Sequential(*(torch.nn.Linear(2, 3) for _ in range(150)))
    assert_as_torch_loads(module.state_dict(), tmp_path / "pytorch_model.bin")


def test_long_sizes(tmp_path):
    assert_as_torch_loads({"w": torch.arange(70_000)[65_000:]}, tmp_path / "pytorch_model.bin")


def test_the_reader_knows_no_way_to_import_or_call():
    source = "".join(Path(legacy.__file__).with_name(name).read_text() for name in ("legacy.py", "pickled.py"))
    for word in (
        "import_module",
        "__import__",
        "find_class",
        "Unpickler",
        "pickle.load",
        "torch.load",
        "eval(",
        "exec(",
    ):
        assert word not in source
    assert CALLS.keys() == {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
    }
    assert not {*ALONE, *CONSTANTS, *LITERALS, *TUPLES, *WITH_ARGUMENT} & {
        *("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID")
    }


def rewritten(path, change):
    """The same archive with its entries, by name, changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)


def refusal(path):
    with pytest.raises(ValueError) as refused:
        read(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_lies_about_sizes_are_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"

    def save():
        torch.save({"a.weight": torch.ones(6, 4)}, path)

    save()
    rewritten(path, lambda entries: entries.update({"data/0": b"\0" * 92}))
    assert "the storage of 'a.weight' has 92 bytes, not 24 elements" in refusal(path)
    save()
    rewritten(path, lambda entries: entries.pop("data/0"))
    assert "storage '0', which is missing" in refusal(path)
    save()
    size, larger = b"K\x06K\x04\x86", b"K\x06K\x05\x86"  # the shape (6, 4), then (6, 5)
    rewritten(path, lambda entries: entries.update({"data.pkl": entries["data.pkl"].replace(size, larger, 1)}))
    assert "'a.weight' of shape (6, 5) does not fit its storage of 24 elements" in refusal(path)


def test_archives_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert "safe_serialization=True" in refusal(path)
    path.write_bytes(pickle.dumps({"w": 1}))
    assert "safe_serialization=True" in refusal(path)
    torch.save({"w": torch.ones(2)}, path)
    rewritten(path, lambda entries: entries.update({"byteorder": b"big"}))
    assert "little-endian" in refusal(path)
    torch.save({"w": torch.ones(2)}, path)
    rewritten(path, lambda entries: entries.update({"code/__torch__.py": b""}))
    assert "holds 'archive/code/__torch__.py'" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 100_000)
    assert "compressed" in refusal(path)
    path.write_bytes(path.read_bytes()[:50])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("n_bytes", range(1, 290, 7))
def test_a_pickle_that_is_cut_short_is_refused(tmp_path, n_bytes):
    path = tmp_path / "pytorch_model.bin"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    rewritten(path, lambda entries: entries.update({"data.pkl": entries["data.pkl"][:n_bytes]}))
    refusal(path)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 289), value=st.integers(0, 255))
def test_one_changed_byte_of_a_pickle_is_read_or_refused_in_one_line(tmp_path_factory, place, value):
    path = tmp_path_factory.mktemp("legacy") / "pytorch_model.bin"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)

    def change(entries):
        content = bytearray(entries["data.pkl"])
        content[place] = value
        entries["data.pkl"] = bytes(content)

    rewritten(path, change)
    try:
        read(path)
    except ValueError as refused:
        assert "\n" not in str(refused)
