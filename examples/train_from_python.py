"""The whole walk through the Python API: a text in, a small model out that continues a prompt.

python examples/train_from_python.py my.txt --out runs/from_python --steps 300
"""

import argparse
from pathlib import Path

from cerebras_gpt.data.accounting import Accounting
from cerebras_gpt.data.documents import read_documents
from cerebras_gpt.data.held_out import split_documents
from cerebras_gpt.data.shards import Shards, pack
from cerebras_gpt.distributed import World
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.plan.budget import Text, small_plan, vocabulary_for
from cerebras_gpt.plan.plan import Plan, describe, overridden
from cerebras_gpt.text.tokenizer import train_tokenizer_up_to
from cerebras_gpt.train.pretrain import pretrain

VAL_FRACTION = 0.05


def make_pack(source: str, out: Path) -> Shards:
    """Text to tokenizer to shards; the tokenizer sees only what the model will be trained on."""
    accounting = Accounting()
    documents = list(read_documents([source], accounting))
    parts = [part.text for part in split_documents(documents, VAL_FRACTION).parts if part.split == "train"]
    tokenizer = train_tokenizer_up_to(parts, vocabulary_for(sum(len(text.encode()) for text in parts)))
    pack(documents, tokenizer, out, VAL_FRACTION, accounting)
    return Shards.open(out, "train")


def make_plan(train: Shards, d_model: int, steps: int) -> Plan:
    """The muP recipe of the small sizes, scored four times on the way."""
    plan = small_plan(d_model, Text(train.vocab_size, train.n_tokens, train.n_bytes), steps)
    return overridden(plan, {"evaluations": "4", "saves": "2"})


def main() -> None:
    """From the command line to a continued prompt; run it again after an interruption and it goes on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a text file or a folder of them")
    parser.add_argument("--out", type=Path, default=Path("runs/from_python"))
    parser.add_argument("--d-model", type=int, default=128, help="a multiple of 32")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--prompt", default="The ")
    given = parser.parse_args()

    train = make_pack(given.source, given.out / "data")
    plan = make_plan(train, given.d_model, given.steps)
    for label, value in describe(plan):
        print(f"{label:<22} {value}")

    pretrain(plan, given.out / "data", given.out, World())

    lm = LM.load(given.out)
    text = lm.generate(given.prompt, max_tokens=60, sampling=Sampling(temperature=0.8, top_p=0.95))
    print(f"\n{given.prompt}{text}")


if __name__ == "__main__":
    main()
