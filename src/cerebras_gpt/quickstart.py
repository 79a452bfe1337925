"""The main job: raw text -> tokenizer -> shards -> plan for this machine -> training -> samples -> report.

Every stage leaves its result in the run folder and is skipped when it is there, so an interrupted quickstart goes on.
"""

import json
import math
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cerebras_gpt import record
from cerebras_gpt.data.accounting import Accounting
from cerebras_gpt.data.corpora import CORPORA
from cerebras_gpt.data.documents import Document, read_documents
from cerebras_gpt.data.held_out import split_documents
from cerebras_gpt.data.shards import Shards, pack
from cerebras_gpt.distributed import World
from cerebras_gpt.evaluate.baselines import measure_baselines
from cerebras_gpt.files import read_json, replace_text
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.generate.sampling import Sampling
from cerebras_gpt.plan.budget import vocabulary_for
from cerebras_gpt.plan.plan import Plan, describe
from cerebras_gpt.report.page import write_report
from cerebras_gpt.text.tokenizer import train_tokenizer_up_to
from cerebras_gpt.train.calibrate import keep
from cerebras_gpt.train.pilot import held_out_bits, plan_here
from cerebras_gpt.train.pretrain import pretrain
from cerebras_gpt.train.trainer import Hook, Trainer

VAL_FRACTION = 0.05
FEWEST_BYTES = 20_000
"""Of training text: less gives neither a vocabulary nor a held-out part worth the name."""
N_SAMPLES = 6
SAMPLE_TOKENS = 120
PROMPT_WORDS = 6
SAMPLING = Sampling(temperature=0.8, top_p=0.95)


@dataclass(frozen=True)
class Quickstart:
    """From raw text to a model that speaks, in one folder."""

    out: Path
    minutes: float = 5.0
    corpus: str = "sotu"
    """Built-in corpora joined by +; not used when data is given."""
    data: tuple[str, ...] = ()

    def run(self) -> None:
        """All stages in order; those already done are only mentioned."""
        self.check()
        self.make_text()
        self.make_baselines()
        plan = self.make_plan()
        trainer = self.train(plan)
        self.finish(trainer)

    @cached_property
    def screen(self) -> record.Screen:
        """Where a person reads along."""
        return record.Screen()

    @property
    def pack(self) -> Path:
        """Where the shards are."""
        return self.out / "data"

    @property
    def corpora(self) -> list[str]:
        """Names of the built-in corpora to learn from; none when the text is the user's."""
        return [] if self.data else self.corpus.split("+")

    @property
    def source(self) -> str:
        """The options that name the text."""
        return " ".join(f"--data {shlex.quote(path)}" for path in self.data) or f"--corpus {self.corpus}"

    @property
    def settings(self) -> dict[str, object]:
        """What must stay the same when it goes on."""
        return {"minutes": self.minutes, "corpus": self.corpus, "data": list(self.data)}

    def check(self) -> None:
        """Refuses what is no time, and to continue a folder that was begun with other settings."""
        if not 0 < self.minutes < math.inf:
            raise ValueError(f"--minutes {self.minutes:g} is not a time; give a positive number such as 5")
        if "-" in self.data:
            raise ValueError(
                "quickstart reads its text again when it goes on; give a file instead of standard input (-)"
            )
        file = self.out / "quickstart.json"
        before = read_json(file) if file.exists() else self.settings
        for name, value in self.settings.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{self.out} was begun with {name} {before.get(name)}, now it is {value}; "
                    "give another --out, or the settings it began with"
                )
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"{self.out} is a file; give a folder with --out")
        for name in self.corpora:
            if name not in CORPORA:
                raise ValueError(f"unknown corpus {name!r}; choose sotu, wiki or sotu+wiki, or give --data")
        if not (self.pack / "manifest.json").exists():
            next(self.documents())  # what cannot be read is refused before anything is shown

    def documents(self, accounting: Accounting | None = None) -> Iterator[Document]:
        """The text: the user's, or the built-in corpora."""
        yield from read_documents(self.data, accounting or Accounting())
        for name in self.corpora:
            yield from CORPORA[name].documents()

    def make_text(self) -> None:
        """Stage 1: tokenizer and shards."""
        self.screen.stage(1, "text")
        for name in self.corpora:
            self.screen.say(CORPORA[name].attribution)
        if not (self.pack / "manifest.json").exists():
            self.pack_text()
        train, held_out = (Shards.open(self.pack, split, verify=False) for split in ("train", "val"))
        self.screen.say(
            f"{train.n_documents:,} documents, {train.n_bytes / 1e6:.1f} MB, {train.n_tokens:,} tokens of a vocabulary "
            f"of {train.vocab_size:,}; held out: {held_out.n_documents:,} documents, {held_out.n_bytes / 1e3:,.0f} kB"
        )

    def pack_text(self) -> None:
        """Trains the tokenizer and packs; nothing is written before all text was read and the tokenizer made."""
        accounting = Accounting()
        documents = list(self.documents(accounting))
        parts = [part.text for part in split_documents(documents, VAL_FRACTION).parts if part.split == "train"]
        n_bytes = sum(len(text.encode()) for text in parts)
        if n_bytes < FEWEST_BYTES:
            raise ValueError(f"{n_bytes:,} bytes of text are too few to learn from; give {FEWEST_BYTES:,} or more")
        tokenizer = train_tokenizer_up_to(parts, vocabulary_for(n_bytes))
        self.out.mkdir(parents=True, exist_ok=True)
        replace_text(self.out / "quickstart.json", json.dumps(self.settings) + "\n")
        for left in self.out.glob(f".{self.pack.name}.*"):  # of a pack that was killed
            shutil.rmtree(left)
        pack(documents, tokenizer, self.pack, VAL_FRACTION, accounting)

    def make_baselines(self) -> None:
        """Stage 2: what the model has to beat on the same held-out bytes."""
        self.screen.stage(2, "what to beat")
        file = self.out / "baselines.json"
        if not file.exists():
            train, held_out = (Shards.open(self.pack, split, verify=False) for split in ("train", "val"))
            replace_text(file, json.dumps(measure_baselines(train.text(), held_out.text())))
        for name, bits in read_json(file).items():
            self.screen.say(f"{name}: {bits:.3f} bits per byte")

    def make_plan(self) -> Plan:
        """Stage 3: measure this machine, and plan the minutes."""
        self.screen.stage(3, "plan")
        file = self.out / "plan.json"
        if not file.exists():
            self.screen.say("measuring a few sizes on this machine, then training a pilot on the text")
            planned = plan_here(self.minutes, self.pack, self.out / "pilot")
            keep(planned.calibration, self.out)
            replace_text(file, planned.plan.to_json())
        plan = Plan.load(file)
        for label, value in describe(plan):
            self.screen.say(f"{label:<22} {value}")
        return plan

    def train(self, plan: Plan) -> Trainer:
        """Stage 4: training, with samples on the way."""
        self.screen.stage(4, "training (interrupt it as you like, the same command goes on)")
        prompt = self.prompt()

        def sample(trainer: Trainer) -> None:
            lm = LM(trainer.model, Shards.open(self.pack, "train", verify=False).tokenizer)
            text = lm.generate(prompt, SAMPLE_TOKENS, SAMPLING)
            trainer.metrics.write("sample", step=trainer.step, tokens=trainer.tokens, prompt=prompt, text=text)

        moments = Hook(max(1, plan.steps // N_SAMPLES), sample)
        return pretrain(plan, self.pack, self.out, World(), [moments])

    def prompt(self) -> str:
        """The first words of a held-out document."""
        start = Shards.open(self.pack, "val", verify=False).text(1000).decode("utf-8", "ignore")
        return " ".join(start.split()[:PROMPT_WORDS])

    def verdict(self, plan: Plan) -> str:
        """How the result compares with what the plan predicted, in words."""
        if plan.prediction is None:
            return ""
        low, high = plan.prediction.low, plan.prediction.high
        where = "inside" if low <= held_out_bits(self.out) <= high else "outside"
        return f", {where} the predicted {low:.3f} to {high:.3f}"

    def finish(self, trainer: Trainer) -> None:
        """Stage 5: the report, a sample, and what to do next."""
        self.screen.stage(5, "result")
        page = write_report([self.out], self.out / "report.html")
        rows = record.read_metrics(self.out / "metrics.jsonl")
        held_out = [row for row in rows if row["kind"] == "held_out"][-1]
        spoken = [row for row in rows if row["kind"] == "sample"][-1]
        self.screen.say(f"held-out text: {held_out['bits_per_byte']:.3f} bits per byte{self.verdict(trainer.plan)}")
        print(f"{spoken['prompt']}{spoken['text']}\n")
        self.screen.say(f"report:  {page}")
        for command in (
            f"cerebras-gpt generate {self.out} --prompt {shlex.quote(str(spoken['prompt']))} --top-k 50 --seed 1",
            f"cerebras-gpt evaluate {self.out} --text FILE",
            f"cerebras-gpt quickstart --minutes {self.minutes * 4:g} {self.source} --out {self.out}-longer",
        ):
            self.screen.say(f"next:    {command}")
