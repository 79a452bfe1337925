"""Hostile model folders: each is refused in one line that names what is wrong, nothing runs, nothing is left behind."""

import json
import os
import pickle
import resource
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from cerebras_gpt.importing import import_model
from cerebras_gpt.interop.gpt2 import gpt2_config, gpt2_tensors
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.gpt import GPT, initialize
from cerebras_gpt.plan.families import standard
from cerebras_gpt.text.tokenizer import byte_letters

SHAPE = Architecture(d_model=8, n_layers=2, n_heads=2, vocab_size=11, seq_len=4, tied=False)
WEIGHTS, CONFIG, BIN = "model.safetensors", "config.json", "pytorch_model.bin"
WTE, WPE = "transformer.wte.weight", "transformer.wpe.weight"


@pytest.fixture
def folder(tmp_path):
    """A good folder, which each test spoils."""
    model = initialize(GPT(SHAPE, standard(SHAPE)), torch.Generator().manual_seed(0))
    made = tmp_path / "folder"
    made.mkdir()
    (made / CONFIG).write_text(json.dumps(gpt2_config(SHAPE, 0)))
    save_file(
        {name: tensor.detach() for name, tensor in gpt2_tensors(dict(model.named_parameters())).items()}, made / WEIGHTS
    )
    return made


@pytest.fixture
def refused(folder, tmp_path):
    """Imports the folder and gives the one line that refuses it; the sentinel tells whether anything ran."""
    sentinel, home = tmp_path / "sentinel", os.getcwd()

    def run(*names):
        out = tmp_path / "out"
        before = sorted(tmp_path.iterdir())
        with pytest.raises((ValueError, FileNotFoundError)) as found:
            import_model(folder, out)
        assert sorted(tmp_path.iterdir()) == before, "something was left behind"
        assert not sentinel.exists(), "something was executed"
        assert os.getcwd() == home
        line = str(found.value)
        assert "\n" not in line
        assert len(line) < 400
        for name in names:
            assert name in line
        return line

    return run


def test_the_folder_itself_is_good(folder, tmp_path):
    assert import_model(folder, tmp_path / "out").path.is_dir()


# config.json


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}, "auto_map"),
        ({"auto_map": {"AutoModel": "modeling_btlm.BTLMModel"}}, "auto_map"),
        ({"auto_map": "evil.Evil"}, "auto_map"),
        ({"model_type": "btlm", "architectures": None, "auto_map": {"AutoModel": "evil--x.Evil"}}, "auto_map"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"custom_pipelines": {"x": {"impl": "evil.Evil"}}}, "custom_pipelines"),
        ({"n_layers": 3}, "did you mean 'n_layer'"),
        ({"rope_theta": 1e4}, "rope_theta"),
        ({"sliding_window": 2}, "sliding_window"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"mup_width_scale": 0.5}, "mup_width_scale"),
        ({"model_type": "llama"}, "llama"),
        ({"model_type": ["gpt2"]}, "model_type"),
        ({"model_type": None}, "model_type"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "GPT2ForSequenceClassification"),
        ({"architectures": {"a": 1}}, "architectures"),
        ({"activation_function": "swiglu", "model_type": "btlm", "architectures": None}, "swiglu"),
        ({"activation_function": "quick_gelu"}, "quick_gelu"),
        ({"activation_function": ["gelu"]}, "activation_function"),
        ({"position_embedding_type": "alibi", "model_type": "btlm", "architectures": None}, "alibi"),
        ({"n_layer": 10**9}, "n_layer"),
        ({"n_layer": 10**6}, "n_layer"),
        ({"n_embd": 1 << 24}, "shape"),
        ({"vocab_size": 1 << 24, "n_embd": 1 << 24, "n_inner": 1 << 24}, "shape"),
        ({"n_inner": 10**300}, "n_inner"),
        ({"n_head": 3}, "n_heads"),
        ({"n_head": 0}, "n_head"),
        ({"n_embd": -8}, "n_embd"),
        ({"n_embd": True}, "n_embd"),
        ({"vocab_size": 11.0}, "vocab_size"),
        ({"vocab_size": "11"}, "vocab_size"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": -1}, "layer_norm_epsilon"),
        ({"mup_width_scale": 0, "model_type": "btlm", "architectures": None}, "mup_width_scale"),
        ({"mup_embeddings_scale": float("inf"), "model_type": "btlm", "architectures": None}, "mup_embeddings_scale"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"tie_word_embeddings": True}, "lm_head.weight"),
        ({"scale_attn_weights": 1}, "scale_attn_weights"),
        ({"hidden_size": 16}, "hidden_size"),
        ({"n_ctx": 8}, "n_ctx"),
        ({"n_embd": 4}, "shape"),
        ({"n_layer": 1}, "transformer.h.1"),
        ({"x" * 10_000: 1}, "xxxx"),
        ({"a\nb": 1}, "a\\nb"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_a_config_that_lies_or_asks_for_more(folder, refused, changes, named):
    (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | changes))
    refused(named, str(folder))


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "7", "null", "[" * 100_000, '{"n_embd": 8, "n_embd": 9}', "\udcff"]
)
def test_a_config_that_is_no_object(folder, refused, text):
    (folder / CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(CONFIG)


def test_a_config_that_is_missing_or_huge(folder, refused):
    with (folder / CONFIG).open("r+") as file:
        file.truncate(1 << 40)
    refused(CONFIG, "bytes")
    (folder / CONFIG).unlink()
    refused(CONFIG, "missing")


# tensors


def spoil(folder, **changes):
    tensors = load_file(folder / WEIGHTS)
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("name", "tensor", "fault"),
    [
        (WTE, None, "lack"),
        ("transformer.h.1.mlp.c_fc.bias", None, "lack"),
        (WTE, torch.ones(11, 9), "shape"),
        (WPE, torch.ones(4), "shape"),
        ("transformer.h.0.attn.c_attn.weight", torch.ones(24, 8), "shape"),
        ("transformer.h.2.ln_1.weight", torch.ones(8), "besides"),
        ("transformer.h.99999999999999999999.ln_1.weight", torch.ones(8), "besides"),
        ("score.weight", torch.ones(8), "does not have"),
        (f"h.{'9' * 5000}.ln_1.weight", torch.ones(8), "does not have"),
        ("lm_head.bias", torch.ones(11), "besides"),
        ("wte.weight", torch.ones(11, 8), "both"),
        ("transformer.h.00.ln_1.weight", torch.ones(8), "both"),
        ("transformer.ln_f.weight", torch.full((8,), float("nan")), "not finite"),
        ("transformer.ln_f.bias", torch.full((8,), float("-inf")), "not finite"),
        (WTE, torch.ones(11, 8, dtype=torch.int64), "I64"),
        (WTE, torch.ones(11, 8, dtype=torch.bool), "BOOL"),
        (WTE, torch.ones(11, 8, dtype=torch.float64), "F64"),
        (WTE, torch.ones(11, 8).to(torch.float8_e4m3fn), "F8"),
    ],
    ids=str,
)
def test_tensors_that_are_not_those_of_the_config(folder, refused, name, tensor, fault):
    spoil(folder, **{name: tensor})
    refused(fault, name[:60])


def header(folder, change, n_bytes=None):
    """Writes the safetensors file again with another header."""
    content = (folder / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    found = json.loads(content[8 : 8 + length])
    text = change(found)
    text = text if isinstance(text, bytes) else json.dumps(found).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", n_bytes or len(text)) + text + content[8 + length :])


def twice(found):
    text = json.dumps(found)
    return (text[:-1] + f', "{WTE}": ' + json.dumps(found[WTE]) + "}").encode()


@pytest.mark.parametrize(
    ("change", "n_bytes"),
    [
        (lambda found: found[WTE].update(data_offsets=[0, 1 << 40]), None),
        (lambda found: found[WTE].update(data_offsets=found[WPE]["data_offsets"]), None),
        (lambda found: found[WTE].update(data_offsets=[-4, 348]), None),
        (lambda found: found[WTE].update(shape=[1 << 40, 1 << 40]), None),
        (lambda found: found[WTE].update(shape=[-11, -8]), None),
        (lambda found: found[WTE].update(dtype="F31"), None),
        (lambda found: found[WTE].pop("shape"), None),
        (lambda found: b"[]", None),
        (lambda found: b"\xff{", None),
        (twice, None),
        (lambda found: None, 1 << 62),
        (lambda found: None, 100_000_000),
        (lambda found: None, 3),
    ],
)
def test_a_header_that_lies(folder, refused, change, n_bytes):
    header(folder, change, n_bytes)
    refused(WEIGHTS)


@pytest.mark.parametrize("n_bytes", [0, 5, 8, 100, 3000])
def test_a_file_that_is_cut_short(folder, refused, n_bytes):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:n_bytes])
    refused(WEIGHTS)


# an index of shards


def sharded(folder, change):
    """Two shards and an index, which `change` spoils."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    weight_map = {}
    for file, part in (("a.safetensors", names[:9]), ("b.safetensors", names[9:])):
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    change(folder, index)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def moved(name):
    """Puts the file of the first shard elsewhere, and names it so."""

    def change(folder, index):
        os.makedirs((folder / name).parent, exist_ok=True)
        os.rename(folder / "a.safetensors", folder / name)
        index["weight_map"] = {t: name if f == "a.safetensors" else f for t, f in index["weight_map"].items()}

    return change


def linked(folder, index):
    os.rename(folder / "a.safetensors", folder.parent / "elsewhere.safetensors")
    os.symlink("../elsewhere.safetensors", folder / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (moved("../a.safetensors"), "../a.safetensors"),
        (moved("sub/a.safetensors"), "sub/a.safetensors"),
        (lambda folder, index: index["weight_map"].update({WTE: "/etc/passwd.safetensors"}), "/etc/passwd.safetensors"),
        (lambda folder, index: index["weight_map"].update({WTE: "..\\a.safetensors"}), "a.safetensors"),
        (linked, "link"),
        (lambda folder, index: (folder / "a.safetensors").unlink(), "a.safetensors is missing"),
        (lambda folder, index: index["weight_map"].update({WTE: "a.safetensors"}), WTE),
        (lambda folder, index: index["weight_map"].pop(WTE), WTE),
        (lambda folder, index: index["weight_map"].update({WTE: 7}), WTE),
        (lambda folder, index: index["weight_map"].update({WTE: "pytorch_model.bin"}), "pytorch_model.bin"),
        (lambda folder, index: index.update(weight_map=[]), "weight_map"),
        (lambda folder, index: index.pop("weight_map"), "weight_map"),
    ],
)
def test_an_index_that_leads_astray(folder, refused, change, named):
    sharded(folder, change)
    refused(named)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "tokenizer.json"])
def test_a_file_that_is_a_link_out_of_the_folder(folder, refused, name):
    if not (folder / name).exists():
        (folder / name).write_text("{}")
    os.rename(folder / name, folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    refused(name, "link")


def test_no_weights_at_all(folder, refused):
    (folder / WEIGHTS).unlink()
    refused("holds no weights")


# pickles with code in them


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Parts:
    def __setstate__(self, state):
        os.mkdir(state)


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def pickles(path):
    """Pickles that make the file or folder `path` when they are executed, each by other operations."""
    parts = Parts()
    parts.__dict__["x"] = path
    touch = f"open({path!r}, 'w')"
    return {
        "system": pickle.dumps({WTE: Runs(os.system, f"touch {path}")}, 2),
        "eval": pickle.dumps({WTE: Runs(eval, touch)}, 2),
        "stack_global": pickle.dumps({WTE: Runs(os.mkdir, path)}, 4),
        "stack_global_in_2": b"\x80\x02" + text("os") + text("mkdir") + b"\x93" + text(path) + b"\x85R.",
        "old_protocol": pickle.dumps({WTE: Runs(os.mkdir, path)}, 0),
        "inst": b"(S" + repr(path).encode() + b"\nios\nmkdir\n.",
        "inst_in_2": b"\x80\x02(" + text(path) + b"ios\nmkdir\n.",
        "obj": b"\x80\x02(cos\nmkdir\n" + text(path) + b"o.",
        "newobj": b"\x80\x02cos\nmkdir\n" + text(path) + b"\x85\x81.",
        "newobj_of_a_known_name": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        "build": pickle.dumps(parts, 2),
        "build_of_a_dict": b"\x80\x02}}" + text("__class__") + text(path) + b"sb.",
        "build_of_a_global": b"\x80\x02ccollections\nOrderedDict\n}" + text("__call__") + text(path) + b"sb.",
        "build_of_a_slot": b"\x80\x02}N}" + text("x") + text("y") + b"s\x86b.",
        "ext": b"\x80\x02\x82\x01)R.",
        "ext_4": b"\x80\x02\x84\x01\x00\x00\x00)R.",
        "persid": b"\x80\x02Pstorage\n.",
        "persid_of_a_global": b"\x80\x02(" + text("storage") + b"cos\nsystem\n" + text("0") + text("cpu") + b"K\x01tQ.",
        "persid_of_a_call": b"\x80\x02("
        + text("storage")
        + b"ctorch._utils\n_rebuild_parameter\n"
        + text("0") * 2
        + b"K\x01tQ.",
        "persid_of_a_text": b"\x80\x02" + text("storage") + b"Q.",
        "storage_called": b"\x80\x02ctorch\nFloatStorage\nK\x01\x85R.",
        "ordered_of_something": b"\x80\x02ccollections\nOrderedDict\n(((" + text("a") * 2 + b"ttt\x85R.",
        "tensor_of_a_text": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + text("a") + b"K\x00))NNtR.",
        "tensor_called": b"\x80\x02}" + text("a") + b"R.",
        "getattr": b"\x80\x02c__builtin__\ngetattr\n)R.",
        "dotted": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        "torch_load": b"\x80\x02ctorch.serialization\nload\n" + text(path) + b"\x85R.",
        "with_state": b"\x80\x02ctorch._utils\n_rebuild_parameter_with_state\n)R.",
        "numpy": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.",
        "bytearray": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "memo_of_nothing": b"\x80\x02h\x07.",
        "nothing_on_the_stack": b"\x80\x02R.",
        "no_mark": b"\x80\x02t.",
        "no_end": b"\x80\x02}",
        "empty": b"",
        "a_list": b"\x80\x02].",
        "a_number": b"\x80\x02K\x07.",
        "number_in_place_of_a_tensor": pickle.dumps({WTE: 7}, 2),
        "nested": pickle.dumps({"model": {WTE: 7}}, 2),
        "key_is_a_list": b"\x80\x02}}}s.",
        "key_is_a_number": b"\x80\x02}K\x01K\x01s.",
        "same_key_twice": b"\x80\x02}" + (text("a") + b"K\x01s") * 2 + b".",
    }


@pytest.mark.parametrize("kind", pickles("x"))
def test_a_pickle_with_something_else_in_it(folder, refused, tmp_path, kind):
    (folder / WEIGHTS).unlink()
    with zipfile.ZipFile(folder / BIN, "w") as archive:
        archive.writestr("archive/data.pkl", pickles(str(tmp_path / "sentinel"))[kind])
    refused(BIN)


def test_the_pickles_do_run_when_they_are_executed(tmp_path):
    for kind in ("system", "eval", "stack_global", "stack_global_in_2", "old_protocol", "inst_in_2", "obj"):
        path = tmp_path / kind
        pickle.loads(pickles(str(path))[kind])
        assert path.exists()


@pytest.mark.parametrize(
    "name", ["archive/../../x", "/etc/x", "archive/data/../x", "other/data.pkl", "archive/data.pkl"]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_name_that_leads_out(folder, refused, name):
    (folder / WEIGHTS).unlink()
    with zipfile.ZipFile(folder / BIN, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr(name, b"x")
    refused(BIN, name)


def test_an_archive_that_is_a_bomb(folder, refused):
    (folder / WEIGHTS).unlink()
    with zipfile.ZipFile(folder / BIN, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (64 << 20))
    refused(BIN, "compressed")


def test_a_tensor_that_claims_more_than_its_storage(folder, refused):
    (folder / WEIGHTS).unlink()
    torch.save({WTE: torch.ones(1).expand(1 << 20, 1 << 20)}, folder / BIN)
    refused(BIN, WTE)


# the tokenizer


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b'{"model": {"type": "Unigram", "vocab": []}}', b"\xff", b"[" * 100_000],
)
def test_a_tokenizer_that_is_none(folder, refused, content):
    (folder / "tokenizer.json").write_bytes(content)
    refused("tokenizer.json", "--tokenizer")


LETTERS = {letter: n for n, letter in enumerate([*byte_letters().values(), "<|endoftext|>"])}


@pytest.mark.parametrize(
    ("vocabulary", "merges", "named"),
    [
        (LETTERS, "a b\n", "'a b'"),
        (LETTERS, "abc\n", "'abc'"),
        (LETTERS | {"ab": 10**9}, "a b\n", "ids"),
        (LETTERS | {"ab": 5}, "a b\n", "ids"),
        (LETTERS | {"ab": "257"}, "a b\n", "ids"),
        ({"a": 0}, "", "<|endoftext|>"),
        ({"a": 0, "<|endoftext|>": 1}, "", "256 bytes"),
        (LETTERS, "", "257 tokens"),
    ],
)
def test_older_tokenizer_files_that_do_not_fit(folder, refused, vocabulary, merges, named):
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}")
    refused(named)


def test_refusing_takes_no_memory(folder, refused):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = json.loads((folder / CONFIG).read_text())
    for changes in ({"n_layer": 10**9}, {"n_embd": 1 << 24}, {"vocab_size": 1 << 24}, {"n_inner": 1 << 24}):
        (folder / CONFIG).write_text(json.dumps(config | changes))
        refused()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
