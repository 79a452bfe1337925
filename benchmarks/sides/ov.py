"""OpenVINO GenAI, paged attention without prefix caching; `python -m sides.ov FOLDER` exports folder/hf for it.

All kinds come from one export. float32 and bfloat16 are hints of precision; for int8 and int4 (symmetric, a scale for
each 64; tables and head in int8) it compresses the weights, and takes what precision and cache it takes by itself.
It does not tell when a batch has its first tokens, so the prompt's time is measured apart.
"""

import os
import sys
import time
from pathlib import Path

from sides import ids_of

HINTS = {"float32": {"INFERENCE_PRECISION_HINT": "f32"}, "bfloat16": {"INFERENCE_PRECISION_HINT": "bf16"}}


FOLDERS = {"float32": "ov", "bfloat16": "ov", "int8": "ov-int8", "int4": "ov-int4"}


def export(folder):
    import nncf
    from openvino import Core, save_model
    from openvino_tokenizers import convert_tokenizer
    from optimum.intel import OVModelForCausalLM
    from transformers import AutoTokenizer

    model = OVModelForCausalLM.from_pretrained(folder / "hf", export=True, compile=False, load_in_8bit=False)
    model.save_pretrained(folder / "ov")
    settings = {
        "ov-int8": {"mode": nncf.CompressWeightsMode.INT8_ASYM},
        "ov-int4": {"mode": nncf.CompressWeightsMode.INT4_SYM, "group_size": 64, "ratio": 1.0},
    }
    for name, setting in settings.items():
        model = nncf.compress_weights(Core().read_model(folder / "ov" / "openvino_model.xml"), **setting)
        save_model(model, folder / name / "openvino_model.xml", compress_to_fp16=False)
        for told in (folder / "ov").glob("*.json"):
            (folder / name / told.name).write_bytes(told.read_bytes())
    both = convert_tokenizer(AutoTokenizer.from_pretrained(folder / "hf"), with_detokenizer=True)
    for place in ("ov", *settings):
        for made, name in zip(both, ("openvino_tokenizer.xml", "openvino_detokenizer.xml"), strict=True):
            save_model(made, folder / place / name)


def side(kind, folder):
    import numpy as np
    import openvino_genai as lib
    from openvino import Tensor

    schedule = lib.SchedulerConfig()
    schedule.enable_prefix_caching, schedule.max_num_batched_tokens, schedule.cache_size = False, 2048, 1
    properties = {"INFERENCE_NUM_THREADS": int(os.environ["OMP_NUM_THREADS"]), **HINTS.get(kind, {})}
    pipe = lib.LLMPipeline(str(folder / FOLDERS[kind]), "CPU", scheduler_config=schedule, **properties)
    counter = iter(range(10**9))

    def seconds(n, n_prompt, n_new):
        settings = lib.GenerationConfig(max_new_tokens=n_new, ignore_eos=True, do_sample=False)
        ids = np.array([ids_of(n_prompt, next(counter)) for _ in range(n)], np.int64)
        asked = lib.TokenizedInputs(Tensor(ids), Tensor(np.ones_like(ids)))
        began = time.perf_counter()
        made = pipe.generate(asked, settings)
        assert [len(row) for row in made.tokens] == [n_new] * n
        return time.perf_counter() - began

    def run(n, n_prompt, n_new):
        first = seconds(n, n_prompt, 1)
        return first, n * (n_new - 1), seconds(n, n_prompt, n_new) - first if n_new > 1 else 1.0

    return run


if __name__ == "__main__":
    export(Path(sys.argv[1]))
