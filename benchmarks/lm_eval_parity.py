"""One model, three evaluators: ours, lm-eval through our adapter, lm-eval through transformers on the export.

    python benchmarks/lm_eval_parity.py RUN --data FOLDER --out benchmarks/results/DATE-lm-eval-parity.json

RUN is any run folder; FOLDER holds hellaswag_val/, zero_shot/, blimp/ and crows_pairs/ in the layouts of llama.cpp,
llm-foundry and their authors. They are written as the records that the Hub has, and all three read that one file;
lm-eval asks by its own task files. Rows that the result already has are kept. Needs lm-eval, datasets and transformers;
nothing is downloaded.
"""

import argparse
import json
import os
import tempfile
from datetime import date
from importlib import metadata
from pathlib import Path

SCRATCH = tempfile.mkdtemp()
os.environ.update(HF_HOME=SCRATCH, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", DISABLE_MULTIPROC="1")

import lm_eval  # noqa: E402  after the settings that keep it from the network
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402

from cerebras_gpt.doctor import environment  # noqa: E402
from cerebras_gpt.evaluate.lm_eval import CerebrasGPT  # noqa: E402
from cerebras_gpt.evaluate.records import records, sources  # noqa: E402
from cerebras_gpt.evaluate.score import Ask, score  # noqa: E402
from cerebras_gpt.exporting import export_model  # noqa: E402

MACHINE = ("processor", "cores", "instructions", "python", "torch", "numpy", "tokenizers")
PROGRAMS = ("lm-eval", "transformers", "datasets")
N_SHOTS = {"hellaswag": 1, "arc-easy": 2, "winogrande": 3}
"""Also asked with solved examples, which come from the records after those asked."""
LETTERS = "ABCDEFGH"
SHOWN = ("acc", "acc_norm", "perplexity", "stereotype", "difference")
THEIRS = {"stereotype": "pct_stereotype", "difference": "likelihood_diff"}


def hellaswag(row):
    """The Hub's record; the last sentence of the context, begun but not ended, is its second part."""
    activity, _, context = row["query"].partition(": ")
    before, stop, begun = context.rpartition(". ")
    first, second = (before + stop.rstrip(), begun) if stop else (context, "")
    parts = {"activity_label": activity, "ctx_a": first, "ctx_b": second}
    return {**parts, "endings": row["choices"], "label": str(row["gold"])}


def piqa(row):
    goal = row["query"].removeprefix("Question: ").rstrip("\n")
    return {"goal": goal, "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["gold"]}


def winogrande(row):
    """The options are what differs between the two beginnings."""
    one, two = row["context_options"]
    n_same = next(i for i, (a, b) in enumerate(zip(f"{one}\n", f"{two}\n", strict=False)) if a != b)
    same = one[: one.rfind(" ", 0, n_same) + 1]
    options = {"option1": one[len(same) :], "option2": two[len(same) :]}
    return {"sentence": f"{same}_ {row['continuation']}", **options, "answer": str(row["gold"] + 1)}


def question(key):
    def build(row):
        labels = list(LETTERS[: len(row["choices"])])
        asked = row["query"].removeprefix("Question: ")
        return {key: asked, "choices": {"text": row["choices"], "label": labels}, "answerKey": labels[row["gold"]]}

    return build


def pair(row):
    return {key: row[key] for key in ("sent_more", "sent_less", "bias_type")}


TASKS = {  # ours: file, record of the Hub, lm-eval's task file
    "hellaswag": ("hellaswag_val/hellaswag_val_full.txt.bz2", hellaswag, "hellaswag/hellaswag.yaml"),
    "piqa": ("zero_shot/commonsense_reasoning/piqa.jsonl", piqa, "piqa/piqa.yaml"),
    "winogrande": ("zero_shot/language_understanding/winogrande.jsonl", winogrande, "winogrande/default.yaml"),
    "lambada": (
        "zero_shot/language_understanding/lambada_openai.jsonl",
        lambda row: {"text": f"{row['context']} {row['continuation']}"},
        "lambada/lambada_openai.yaml",
    ),
    "arc-easy": ("zero_shot/world_knowledge/arc_easy.jsonl", question("question"), "arc/arc_easy.yaml"),
    "arc-challenge": ("zero_shot/world_knowledge/arc_challenge.jsonl", question("question"), "arc/arc_challenge.yaml"),
    "openbookqa": (
        "zero_shot/commonsense_reasoning/openbook_qa.jsonl",
        question("question_stem"),
        "openbookqa/openbookqa.yaml",
    ),
    "blimp": ("blimp/BLiMP.zip", dict, "blimp/adjunct_island.yaml"),
    "crows-pairs": ("crows_pairs/crows_pairs_anonymized.csv", pair, "crows_pairs/crows_pairs_english.yaml"),
}


def written(task, data, work, limit):
    """The records asked, and those to draw solved examples from, as two files."""
    name, build, _ = TASKS[task]
    source = sources(data / name)[0]  # of BLiMP the first paradigm
    rows = [build(record.fields) for record, _ in zip(records(source), range(2 * limit), strict=False)]
    files = []
    for part, some in (("asked", rows[:limit]), ("shots", rows[limit:])):
        files.append(work / f"{task}-{part}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in some), "utf-8")
    return files


def theirs(task, model, asked, shots, n_shots):
    """Metrics and, for each question, the log-probabilities, by lm-eval."""
    settings = load_yaml(Path(lm_eval.__file__).parent / "tasks" / TASKS[task][2])
    parts = {name: str(asked) for name in (settings.get("validation_split"), settings.get("test_split")) if name}
    if settings.get("training_split"):
        parts[settings["training_split"]] = str(shots)
    name = settings["task"]
    settings |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": parts}}
    made = lm_eval.simple_evaluate(model, tasks=[settings], num_fewshot=n_shots, bootstrap_iters=1000)
    samples = sorted(made["samples"][name], key=lambda sample: sample["doc_id"])
    logprobs = [[float(one[0]) for one in sample["filtered_resps"]] for sample in samples]
    values = {key: made["results"][name].get(f"{THEIRS.get(key, key)},none") for key in SHOWN}
    errors = {key: made["results"][name].get(f"{THEIRS.get(key, key)}_stderr,none") for key in SHOWN}
    return {k: v for k, v in values.items() if v is not None}, {k: errors[k] for k in SHOWN if k in errors}, logprobs


def furthest(a, b):
    """Greatest distance between two sets of log-probabilities."""
    return max(abs(x - y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))


def compared(run, task, n_shots, files, models):
    """One task by all three."""
    asked, shots = files
    made = score(run, Ask(task, asked, n_shots, shots if n_shots else None))
    ours = {key: one.value for key, one in made.metrics.items() if key in SHOWN}
    lines = [json.loads(line) for line in made.answers.read_text("utf-8").splitlines()[1:]]
    logprobs = [line["logprobs"] for line in sorted(lines, key=lambda line: line["place"])]
    found = {name: theirs(task, model, asked, shots, n_shots) for name, model in models.items()}
    shares = [key for key in ours if key not in ("perplexity", "difference")]
    return {
        "n_shots": n_shots,
        "n_examples": made.n_examples,
        "n_cut": made.n_cut,
        "ours": ours,
        "stderr": {key: made.metrics[key].stderr for key in ours},
        **{name: values for name, (values, _, _) in found.items()},
        "stderr_lm_eval": {k: v for k, v in found["adapter"][1].items() if k in ours},
        "identical": all(values[key] == ours[key] for values, _, _ in found.values() for key in shares),
        "furthest_logprob": {name: furthest(logprobs, theirs) for name, (_, _, theirs) in found.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    work = Path(SCRATCH)
    export_model(given.run, "hf", work / "hf")
    models = {
        "adapter": CerebrasGPT(str(given.run)),
        "transformers": HFLM(pretrained=str(work / "hf"), device="cpu", dtype="float32", batch_size=8),
    }
    machine = {key: value for key, value in environment().items() if key in MACHINE}
    machine |= {name: metadata.version(name) for name in PROGRAMS}
    found = {"date": str(date.today()), "machine": machine, "run": given.run.name, "tasks": {}}
    if given.out and given.out.exists():  # begun before
        found["tasks"] = json.loads(given.out.read_text("utf-8"))["tasks"]
    for task in given.tasks:
        files = written(task, given.data, work, given.limit)
        for n_shots in dict.fromkeys((0, N_SHOTS.get(task, 0))):
            if f"{task}, {n_shots}-shot" in found["tasks"]:
                continue
            found["tasks"][f"{task}, {n_shots}-shot"] = row = compared(given.run, task, n_shots, files, models)
            print(task, json.dumps(row), flush=True)
            if given.out:
                given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
