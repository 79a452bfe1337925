"""How serve_load.py starts each server: ours, and its peers."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple


class Server(NamedTuple):
    command: list[str]
    settings: Mapping[str, str] = MappingProxyType({})
    """Of its environment."""
    model: str = "model"
    takes_text: bool = False
    """It does not take ids."""


def ours(python, kind, folder, port, _asked):
    return Server(
        [python, "-m", "cerebras_gpt", "serve", str(folder / "model"), "--port", str(port), "--weights", kind]
    )


def llama_server(program, kind, folder, port, asked):
    cores = ["-t", str(asked.threads), "-C", hex(2**asked.threads - 1), "--cpu-strict", "1"]
    limits = ["-c", str(64 * 256), "-np", "64", *cores, "--port", str(port)]
    return Server([program, "-m", str(folder / f"{kind}.gguf"), *limits])


def vllm(python, kind, folder, port, asked):
    named = ["--model", str(folder / "hf"), "--served-model-name", "model", "--dtype", kind, "--port", str(port)]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{asked.threads - 1}",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "LD_PRELOAD": ":".join(map(str, asked.preload)),
        "PATH": f"{Path(python).parent}:/usr/bin:/bin",
    }
    return Server([python, "-m", "vllm.entrypoints.openai.api_server", *named], settings)


def transformers_serve(python, kind, folder, port, _asked):
    """By itself it answers one after the other; `batching` lets it take them together."""
    command = [str(Path(python).parent / "transformers"), "serve", str(folder / "hf"), "--port", str(port)]
    batching = ["--continuous-batching"] if kind == "batching" else []
    settings = {"HF_HUB_OFFLINE": "1"}
    return Server([*command, "--dtype", "bfloat16", *batching], settings, str(folder / "hf"), takes_text=True)


SERVERS = {"ours": ours, "llama.cpp": llama_server, "vllm": vllm, "transformers-serve": transformers_serve}
