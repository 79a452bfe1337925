"""The published runs on the Pile: what was trained, on how much, and the test loss per GPT-2 token it reached."""

from functools import cache
from typing import Literal, NamedTuple

from cerebras_gpt import config
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.plan import published_plan
from cerebras_gpt.plan.points import Point

PublishedFamily = Literal["sp", "mup", "pythia", "pythia-dedup", "gpt-j", "neox"]

SOURCES: dict[PublishedFamily, str] = {
    "sp": "Dey et al. 2023, tables of results; release notes of the Cerebras model zoo 1.8.0",
    "mup": "Dey et al. 2023, tables of results; release notes of the Cerebras model zoo 1.8.0",
    "pythia": "shapes and tokens: Biderman et al. 2023, table 1; losses and FLOPs: Dey et al. 2023",
    "pythia-dedup": "shapes and tokens: Biderman et al. 2023, table 1; losses and FLOPs: Dey et al. 2023",
    "gpt-j": "shape and tokens: Wang and Komatsuzaki 2021; loss and FLOPs: Dey et al. 2023",
    "neox": "shape and tokens: Black et al. 2022; loss and FLOPs: Dey et al. 2023",
}

MISPRINT = "out of line with its neighbours (1.858 and 1.724) and its plain twin (1.793): likely a misprint"


class Published(NamedTuple):
    """One published run."""

    name: str
    family: PublishedFamily
    architecture: Architecture
    """What the FLOP formula sees: others' rotary positions and untied heads do not change it."""
    n_parameters: int
    n_tokens: float
    loss: float
    """Pile test loss, nats per GPT-2 token; runs of another vocabulary were converted by Dey et al."""
    printed_flops: str
    """Training FLOPs as the tables print them."""
    note: str = ""

    @property
    def flops(self) -> float:
        """Training FLOPs by the formula of Dey et al., which printed_flops rounds."""
        return training_flops(self.architecture, self.n_tokens, "cerebras")

    @property
    def point(self) -> Point:
        """What the run says to a law of that formula."""
        return Point(self.n_parameters, self.n_tokens, self.loss, self.flops, f"{self.family} {self.name}", self.family)


OURS = {  # size: FLOPs as printed, loss in the standard parametrization and in muP
    "111M": ("2.6e18", 2.608, 2.588),
    "256M": ("1.3e19", 2.349, 2.359),
    "590M": ("6.1e19", 2.181, 2.155),
    "1.3B": ("2.8e20", 1.997, 1.984),
    "2.7B": ("1.1e21", 1.834, 1.846),
    "6.7B": ("6.3e21", 1.704, None),
    "13B": ("2.3e22", 1.572, None),
}

PYTHIA = {  # size: width, layers, heads, parameters, FLOPs as printed, loss on the plain and the deduplicated Pile
    "70M": (512, 6, 8, 70_426_624, "1.6e20", 2.504, 2.549),
    "160M": (768, 12, 12, 162_322_944, "4.1e20", 2.186, 2.204),
    "410M": (1024, 24, 16, 405_334_016, "1.1e21", 1.971, 1.989),
    "1B": (2048, 16, 8, 1_011_781_632, "2.2e21", 1.845, 1.858),
    "1.4B": (2048, 24, 16, 1_414_647_808, "3.2e21", 1.793, 1.889),
    "2.8B": (2560, 32, 32, 2_775_208_960, "6.1e21", 1.720, 1.724),
    "6.9B": (4096, 32, 32, 6_857_302_016, "1.4e22", 1.626, 1.644),
    "12B": (5120, 36, 40, 11_846_072_320, "2.4e22", 1.582, 1.601),
}
PYTHIA_TOKENS = 299.9e9

OTHERS = (
    Published("6B", "gpt-j", Architecture(4096, 28, 16, 50400), 6_053_381_344, 402e9, 1.613, "1.7e22"),
    Published("20B", "neox", Architecture(6144, 44, 64, 50432), 20_554_567_680, 472e9, 1.519, "6.4e22"),
)


def _of_the_family(family: Literal["sp", "mup"]) -> list[Published]:
    rows = []
    for name, (flops, *losses) in OURS.items():
        loss = losses[family == "mup"]
        if loss is not None:
            plan = published_plan(name, family)
            shape = plan.architecture
            rows.append(Published(name, family, shape, shape.n_parameters, plan.tokens, loss, flops))
    return rows


def _of_pythia(family: Literal["pythia", "pythia-dedup"]) -> list[Published]:
    rows = []
    for name, (width, layers, heads, n_parameters, flops, *losses) in PYTHIA.items():
        shape = Architecture(width, layers, heads, vocab_size=50304)
        note = MISPRINT if (family, name) == ("pythia-dedup", "1.4B") else ""
        loss = losses[family == "pythia-dedup"]
        rows.append(Published(name, family, shape, n_parameters, PYTHIA_TOKENS, loss, flops, note))
    return rows


@cache
def published() -> tuple[Published, ...]:
    """All published runs, family by family, small to large."""
    ours = [*_of_the_family("sp"), *_of_the_family("mup")]
    return (*ours, *_of_pythia("pythia"), *_of_pythia("pythia-dedup"), *OTHERS)


def published_points(family: str) -> tuple[Point, ...]:
    """The points of one published family, FLOPs by the formula `cerebras`."""
    if family not in SOURCES:
        raise ValueError(config.unknown("published family", family, SOURCES))
    return tuple(row.point for row in published() if row.family == family)
