"""What the main job reaches: runs `quickstart` on several texts and writes plan, prediction, result and baselines.

    python benchmarks/quickstart.py --minutes 5 --out benchmarks/results/DATE-quickstart.json sotu wiki
    python benchmarks/quickstart.py --minutes 1 --out FILE shakespeare=input.txt stories=stories.txt

Texts are built-in corpora, or name=path. Each runs in a process of its own, as a user would start it; its folder stays
in --folder, where it can be looked at, and is taken up where it is when the benchmark is run again.
"""

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

from cerebras_gpt.doctor import environment
from cerebras_gpt.plan.plan import Plan
from cerebras_gpt.record import read_metrics

MACHINE = ("processor", "cores", "instructions", "python", "torch", "numpy", "tokenizers")


def measure(text, minutes, folder):
    name, _, path = text.partition("=")
    out = folder / f"{name}-{minutes:g}min"
    source = ["--data", path] if path else ["--corpus", name]
    command = [
        sys.executable,
        "-m",
        "cerebras_gpt",
        "quickstart",
        "--minutes",
        f"{minutes:g}",
        "--out",
        str(out),
        *source,
    ]
    subprocess.run(command, check=True)
    plan, rows = Plan.load(out), read_metrics(out / "metrics.jsonl")
    held_out = [row for row in rows if row["kind"] == "held_out"][-1]
    return {
        "plan": plan.name,
        "shape": [plan.architecture.d_model, plan.architecture.n_layers, plan.architecture.vocab_size],
        "n_parameters": plan.architecture.n_parameters,
        "steps": plan.steps,
        "tokens": plan.tokens,
        "seconds_of_training": held_out["seconds"],
        "bits_per_byte": held_out["bits_per_byte"],
        "nats_per_token": held_out["loss"],
        "predicted": [plan.prediction.low, plan.prediction.bits_per_byte, plan.prediction.high],
        "baselines": json.loads((out / "baselines.json").read_text()),
        "calibration": json.loads((out / "calibration.json").read_text()),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    machine = {key: value for key, value in environment().items() if key in MACHINE}
    found = {"date": date.today().isoformat(), "minutes": given.minutes, "machine": machine, "runs": {}}
    for text in given.texts:
        found["runs"][text.partition("=")[0]] = measure(text, given.minutes, given.folder)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{'text':<14} {'parameters':>11} {'tokens':>11} {'bits/byte':>9}  {'predicted':<15} baselines")
    for name, run in found["runs"].items():
        low, _, high = run["predicted"]
        others = ", ".join(f"{other} {bits:.2f}" for other, bits in run["baselines"].items())
        size = f"{run['n_parameters']:>11,} {run['tokens']:>11,} {run['bits_per_byte']:>9.3f}"
        print(f"{name:<14} {size}  {f'{low:.2f} to {high:.2f}':<15} {others}")


if __name__ == "__main__":
    main()
