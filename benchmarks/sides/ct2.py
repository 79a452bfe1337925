"""CTranslate2; it tells nothing in between, so the prompt's time is measured apart."""

import json
import os
import time

import ctranslate2

from sides import ids_of


def side(kind, folder):
    threads = int(os.environ["OMP_NUM_THREADS"])
    generator = ctranslate2.Generator(str(folder / "ct2"), compute_type=kind, intra_threads=threads)
    words = json.loads((folder / "ct2" / "vocabulary.json").read_text("utf-8"))

    def seconds(n, n_prompt, n_new):
        prompts = [[words[i] for i in ids_of(n_prompt, row)] for row in range(n)]
        began = time.perf_counter()
        generator.generate_batch(prompts, max_length=n_new, min_length=n_new, include_prompt_in_result=False)
        return time.perf_counter() - began

    def run(n, n_prompt, n_new):
        first = seconds(n, n_prompt, 1)
        return first, n * (n_new - 1), max(1e-9, seconds(n, n_prompt, n_new) - first) if n_new > 1 else 1.0

    return run
