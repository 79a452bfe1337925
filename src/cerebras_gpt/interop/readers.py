"""Programs of others that open what we wrote, in the form that the proof asks of them."""

from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path

import torch
from torch import Tensor


def has_transformers() -> bool:
    """Whether transformers can be imported, without importing it."""
    return util.find_spec("transformers") is not None


class Transformers:
    """GPT2LMHeadModel and AutoTokenizer from a Hugging Face folder, in float32, from these files alone."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        finally:
            if bars:
                logging.enable_progress_bar()
        self.model = model.eval()
        self.name = f"transformers {metadata.version('transformers')}"

    def logits(self, ids: Tensor) -> Tensor:
        """Next-token logits at every position: (1, T) -> (1, T, V)."""
        return self.model(ids).logits

    def greedy(self, prompt: Sequence[int], n_tokens: int) -> list[int]:
        """The likeliest next tokens, one after the other, up to n_tokens or the end of the text."""
        ids = torch.tensor([list(prompt)])
        mask = torch.ones_like(ids)
        all_ids = self.model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=n_tokens)
        return all_ids[0, len(prompt) :].tolist()

    def encode(self, text: str) -> list[int]:
        """The ids of a text in which nothing is special."""
        return self.tokenizer(text, split_special_tokens=True)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids."""
        return str(self.tokenizer.decode(list(ids)))
