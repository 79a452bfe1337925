"""The whole Cerebras-GPT system as one small package: plan, train, predict, check, use, serve.

The names below are its public face. Each is imported when it is first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cerebras_gpt.data.batches import PackedBatches
    from cerebras_gpt.data.shards import Shards, pack
    from cerebras_gpt.exporting import export_model
    from cerebras_gpt.generate.lm import LM
    from cerebras_gpt.generate.sampling import Sampling
    from cerebras_gpt.importing import import_model
    from cerebras_gpt.model.architecture import Architecture
    from cerebras_gpt.model.gpt import GPT
    from cerebras_gpt.model.parametrization import Parametrization
    from cerebras_gpt.plan.plan import Plan, published_plan
    from cerebras_gpt.report.page import write_report
    from cerebras_gpt.text.tokenizer import Tokenizer, gpt2_tokenizer, train_tokenizer
    from cerebras_gpt.train.pretrain import pretrain

__version__ = "0.1.0"

__all__ = [
    "GPT",
    "LM",
    "Architecture",
    "PackedBatches",
    "Parametrization",
    "Plan",
    "Sampling",
    "Shards",
    "Tokenizer",
    "__version__",
    "export_model",
    "gpt2_tokenizer",
    "import_model",
    "pack",
    "pretrain",
    "published_plan",
    "train_tokenizer",
    "write_report",
]

_HOMES = {
    "data.batches": ("PackedBatches",),
    "data.shards": ("Shards", "pack"),
    "exporting": ("export_model",),
    "generate.lm": ("LM",),
    "generate.sampling": ("Sampling",),
    "importing": ("import_model",),
    "model.architecture": ("Architecture",),
    "model.gpt": ("GPT",),
    "model.parametrization": ("Parametrization",),
    "plan.plan": ("Plan", "published_plan"),
    "report.page": ("write_report",),
    "text.tokenizer": ("Tokenizer", "gpt2_tokenizer", "train_tokenizer"),
    "train.pretrain": ("pretrain",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
