"""A run becomes a classifier of texts: python examples/tune_a_classifier.py RUN labelled.csv --text "some text"."""

import argparse
from pathlib import Path

from cerebras_gpt import checkpoint
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.adapt import Adaptation
from cerebras_gpt.tasks.classification import Classification
from cerebras_gpt.tasks.tuning_data import read_tuning_data
from cerebras_gpt.tasks.tuning_plan import Tuning


def main() -> None:
    """Tunes on a file with the columns text and label, and classifies one text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/classifier"))
    parser.add_argument("--epochs", type=float, default=5.0)
    arguments = parser.parse_args()

    folder = checkpoint.resolve(arguments.run)
    lm = LM.load(folder)
    data = read_tuning_data("classification", arguments.data, None, lm.tokenizer, lm.model.architecture.seq_len)
    print(*data.lines(), sep="\n")
    print(Adaptation(folder, arguments.out, data, Tuning(epochs=arguments.epochs)).run())

    assert isinstance(data.task, Classification)
    label, probability = data.task.classify(LM.load(arguments.out), [arguments.text])[0]
    print(f"{arguments.text!r} is {label} ({probability:.0%})")


if __name__ == "__main__":
    main()
