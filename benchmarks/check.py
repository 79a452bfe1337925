"""The check's verdict on SP, muP and CompleteP over width, head width and depth, with several sets of seeds.

    python benchmarks/check.py --out benchmarks/results/DATE-check.json       (minutes a set of seeds)

Each is one call of `cerebras-gpt check` along all three; of its slopes those are kept that the verdict is about. Seeds
that are already in FILE are not repeated.
"""

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

from cerebras_gpt.doctor import environment

MACHINE = ("processor", "cores", "instructions", "python", "torch", "numpy")
NAMES = ("sp", "mup", "completep")


def verdict(name, first_seed):
    axes = [word for axis in ("width", "head", "depth") for word in ("--along", axis)]
    command = ["check", "--parametrization", name, *axes, "--first-seed", str(first_seed), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "cerebras_gpt", *command], stdout=subprocess.PIPE, text=True, check=False
    )
    (found,) = json.loads(done.stdout)
    last = max(slope["step"] for slope in found["slopes"])
    return {
        "exit_code": done.returncode,
        "seconds": found["seconds"],
        "direct": found["direct"],
        "n_broken": len(found["broken"]),
        "slopes": [
            [s["axis"], s["quantity"], s["step"], round(s["power"], 3), round(s["error"], 3), s["holds"]]
            for s in found["slopes"]
            if s["step"] in (0, last)
        ],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first-seeds", type=int, nargs="+", default=[0, 100])
    asked = parser.parse_args()
    known = json.loads(asked.out.read_text())["verdicts"] if asked.out.exists() else {}
    for first_seed in asked.first_seeds:
        for name in NAMES:
            key = f"{name} from seed {first_seed}"
            if key in known:
                continue
            known[key] = verdict(name, first_seed)
            found = environment()
            told = {
                "date": date.today().isoformat(),
                "machine": {item: found[item] for item in MACHINE},
                "columns": ["axis", "quantity", "step", "power", "standard error", "holds"],
                "verdicts": known,
            }
            asked.out.write_text(json.dumps(told, indent=1) + "\n")
            print(key, known[key]["exit_code"], f"{known[key]['seconds']:.0f} s", known[key]["n_broken"], "broken")


if __name__ == "__main__":
    main()
