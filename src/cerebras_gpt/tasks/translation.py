"""Translation: a text, a tag that says which languages, and the same in the other language."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cerebras_gpt.data.example_batches import prompt_ids, shortened
from cerebras_gpt.data.examples import Example
from cerebras_gpt.generate.beam import Beam, beam_search
from cerebras_gpt.generate.lm import LM
from cerebras_gpt.tasks.answers import answers
from cerebras_gpt.tasks.rows import Columns, Findings, Row, fields
from cerebras_gpt.tasks.task import Scores, filled

MAX_TOKENS = 128
PAIR = ("pair", "languages", "direction")


@dataclass(frozen=True)
class Translation:
    """Texts and their translations, of one or more pairs of languages."""

    pairs: tuple[str, ...] = ("",)
    """Tags such as en-de; the empty one where the data names none."""
    template: str = "{source}\n{pair}=>"

    columns: ClassVar[Columns] = {
        "source": ("source", "src", "text"),
        "target": ("target", "tgt", "translation"),
    }

    def __post_init__(self) -> None:
        if "{source}" not in self.template:
            raise ValueError(f"the template {self.template!r} has no {{source}}; say where the text goes")

    @classmethod
    def of(cls, rows: Sequence[Row], template: str) -> "Translation":
        """The pairs that the rows name."""
        pairs = {found.get("pair", "") for _, found in fields(rows, _columns(rows), Findings())}
        return cls(tuple(sorted(pairs)) or ("",), **({"template": template} if template else {}))

    def examples(self, rows: Sequence[Row], findings: Findings) -> list[Example]:
        """One for each row."""
        found = []
        for line, row in fields(rows, _columns(rows), findings):
            pair = row.get("pair", "")
            if pair in self.pairs:
                found.append(Example(self.prompt(row["source"], pair), f" {row['target']}", name=f"line {line}"))
            else:
                findings.refuse(line, f"languages {pair!r} are none that were learned")
        return found

    def prompt(self, source: str, pair: str = "") -> str:
        """What the model reads of a text."""
        return filled(self.template, source=source, pair=pair)

    def translate(self, lm: LM, texts: Sequence[str], pair: str, beam: Beam) -> list[str]:
        """The texts in the other language."""
        if pair not in self.pairs:
            raise ValueError(f"unknown languages {pair!r}; choose one of {', '.join(self.pairs)}")
        return [search(lm, self.prompt(text, pair), beam) for text in texts]

    def score(self, lm: LM, examples: Sequence[Example]) -> Scores:
        """BLEU and chrF of greedy translations, as sacreBLEU computes them."""
        return of_translations(answers(lm, [example.prompt for example in examples], MAX_TOKENS), examples)

    def score_beam(self, lm: LM, examples: Sequence[Example], beam: Beam) -> Scores:
        """The same of what beam search finds."""
        return of_translations([search(lm, example.prompt, beam) for example in examples], examples)


def search(lm: LM, prompt: str, beam: Beam) -> str:
    """What beam search finds after a prompt."""
    n_new = min(MAX_TOKENS, lm.model.architecture.seq_len // 2)
    ids = shortened(prompt_ids(prompt, lm.tokenizer), lm.model.architecture.seq_len + 1 - n_new)
    return lm.tokenizer.decode(beam_search(lm.model, ids, n_new, lm.tokenizer.end_of_text, beam)).strip()


def of_translations(said: Sequence[str], examples: Sequence[Example]) -> Scores:
    """BLEU and chrF against the right answers."""
    try:
        import sacrebleu
    except ImportError:
        raise ValueError('scores of translations need sacrebleu; pip install "cerebras-gpt[tasks]"') from None
    truths = [[example.answer.strip() for example in examples]]
    bleu, chrf = sacrebleu.corpus_bleu(list(said), truths), sacrebleu.corpus_chrf(list(said), truths)
    return Scores({"bleu": float(bleu.score), "chrf": float(chrf.score)}, said)


def _columns(rows: Sequence[Row]) -> Columns:
    """The columns of a file: with that of the languages if it has one."""
    there = {key.lower() for row in rows for key in row.values}
    return {**Translation.columns, **({"pair": PAIR} if there & set(PAIR) else {})}
