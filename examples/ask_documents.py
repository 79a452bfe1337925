"""Ask a folder of documents, with the source of the answer: python examples/ask_documents.py RUN folder/ "question"."""

import argparse
from pathlib import Path

from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.documents import Library
from cerebras_gpt.tasks.question_answering import QuestionAnswering
from cerebras_gpt.tasks.table import load_task


def main() -> None:
    """Finds the passage that fits best and lets the model answer from it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="best one adapted to question-answering")
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    arguments = parser.parse_args()

    learned = load_task(arguments.run)
    task = learned if isinstance(learned, QuestionAnswering) else QuestionAnswering()
    answer = Library.read(arguments.folder).ask(LM.load(arguments.run), task, arguments.question)
    print(answer.text, f"({answer.source})" if answer.source else "")


if __name__ == "__main__":
    main()
