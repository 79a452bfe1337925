"""One side: `python -m sides NAME KIND FOLDER`; for each line that comes a measure, for each answer a number."""

import sys
from importlib import import_module
from pathlib import Path

from sides import LONG, NEW, PROMPT


def main():
    name, kind, folder = sys.argv[1:]
    run = import_module(f"sides.{name}").side(kind, Path(folder))
    run(1, 8, 4)
    print("ready", flush=True)
    for line in sys.stdin:
        what, _, n = line.strip().partition(" ")
        first, made, seconds = run(int(n or 1), LONG if what == "prompt" else PROMPT, 1 if what == "prompt" else NEW)
        print(LONG / first if what == "prompt" else made / seconds, flush=True)


if __name__ == "__main__":
    main()
