"""llama.cpp through its C interface, without sampling but for the largest score."""

import ctypes
import os
import time

import llama_cpp as lib
import numpy as np

from sides import ids_of

V = 50257


def loaded(path):
    """A model and a context of 1,280 tokens for each of eight sequences."""
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    settings = lib.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 8 * 1280, 2048, 512, 8
    settings.n_threads = settings.n_threads_batch = int(os.environ["OMP_NUM_THREADS"])
    return lib.llama_init_from_model(model, settings)


def side(kind, folder):
    silence = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(silence, ctypes.c_void_p(0))
    context, batch = loaded(folder / f"{kind}.gguf"), lib.llama_batch_init(2048, 0, 1)

    def feed(tokens):
        """(id, position, sequence, whether its scores are wanted) of each; the likeliest ids where wanted."""
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        assert lib.llama_decode(context, batch) == 0
        rows = [i for i, token in enumerate(tokens) if token[3]]
        return [int(np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (V,)).argmax()) for i in rows]

    def run(n, n_prompt, n_new):
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        began, last = time.perf_counter(), []
        for sequence in range(n):
            prompt = ids_of(n_prompt, sequence)
            last += feed([(token, at, sequence, at == n_prompt - 1) for at, token in enumerate(prompt)])
        first = time.perf_counter()
        for step in range(n_new - 1):
            last = feed([(token, n_prompt + step, sequence, True) for sequence, token in enumerate(last)])
        return first - began, n * (n_new - 1), time.perf_counter() - first

    run.kept = silence
    return run
