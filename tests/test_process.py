"""Memory stays and threads keep their cores, unless somebody else has shared out the machine."""

import gc
import os
import subprocess
import sys

import pytest

from cerebras_gpt import process
from cerebras_gpt.process import bind_threads, n_cores, unbound_children, uncollected

SETTINGS = ("OMP_PROC_BIND", "OMP_PLACES", "OMP_NUM_THREADS")
MEMORY = """
import sys
from cerebras_gpt.process import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
before = resident()
block = libc.malloc(1 << 26)
ctypes.memset(block, 1, 1 << 26)
libc.free(block)
print(resident() - before)
"""


@pytest.fixture
def environment(monkeypatch):
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # so that whatever happens is undone
        monkeypatch.delenv(name)
    return monkeypatch


def test_nothing_is_collected_while_loading_and_everything_after():
    with pytest.raises(KeyError), uncollected():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.unfreeze()


def test_threads_get_a_core_each(environment):
    bind_threads()
    assert (os.environ["OMP_PROC_BIND"], os.environ["OMP_PLACES"]) == ("close", "cores")


def test_what_the_user_has_set_stays(environment):
    environment.setenv("OMP_PROC_BIND", "false")
    bind_threads()
    assert os.environ["OMP_PROC_BIND"] == "false"


def test_one_of_several_processes_is_not_bound_to_the_core_of_all_others(environment):
    environment.setenv("OMP_NUM_THREADS", "1")
    bind_threads()
    assert "OMP_PROC_BIND" not in os.environ and "OMP_PLACES" not in os.environ


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_freed_memory_is_kept():
    def resident(how):
        told = subprocess.run([sys.executable, "-c", MEMORY, how], capture_output=True, text=True, check=True)
        return int(told.stdout)

    assert resident("give back") < 1 << 24
    assert resident("keep") > 1 << 25


def test_children_compute_on_one_thread_and_are_bound_to_no_core(monkeypatch):
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    told = [sys.executable, "-c", "import os; print(os.getenv('OMP_NUM_THREADS'), os.getenv('OMP_PROC_BIND'))"]
    with unbound_children():
        assert subprocess.run(told, capture_output=True, text=True, check=True).stdout.split() == ["1", "None"]
    assert os.environ["OMP_PROC_BIND"] == "close" and "OMP_NUM_THREADS" not in os.environ
    assert n_cores() >= 1


def test_processes_of_one_host_share_its_memory(monkeypatch):
    monkeypatch.setattr(process, "MEMORY", process.STATUS)  # a file that does not tell: all is unknown
    monkeypatch.setattr(process, "LIMITS", ())
    assert process.memory_at_hand() == process.UNKNOWN
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert process.memory_at_hand() == process.UNKNOWN // 4


@pytest.mark.parametrize("visible", [None, "0", "", "-1"])
@pytest.mark.parametrize("is_built", [False, True])
def test_a_gpu_counts_where_torch_can_use_it_and_nobody_hides_it(tmp_path, monkeypatch, visible, is_built):
    monkeypatch.setattr(process, "DEVICES", tmp_path)
    monkeypatch.setattr(process, "torch_is_for_gpus", lambda: is_built)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert not process.has_gpu.__wrapped__()
    (tmp_path / "nvidia1").touch()
    assert process.has_gpu.__wrapped__() == (is_built and visible in (None, "0"))
