"""SP, muP and CompleteP at one published size, side by side: one table of roles with three sets of values.

python examples/mup_table.py 111M
"""

import sys
from collections.abc import Iterable

from cerebras_gpt.model.parametrization import ROLES, Parametrization, Row
from cerebras_gpt.plan.families import COMPLETEP_BASE, completep, mup, standard
from cerebras_gpt.plan.sizes import MUP_PEAK_LR, SIZES, architecture

LINE = "{:<16} {:>12} {:>12} {:>12}"
MEANING = {
    "init_std": "init std",
    "lr_scale": "peak lr times",
    "decay_scale": "decay times",
    "eps_scale": "epsilon times",
}
FORWARD = ("embedding_scale", "attention_scale", "residual_scale", "logit_scale")


def show(title: str, figures: Iterable[object]) -> None:
    """One line: a title and three figures."""
    print(LINE.format(title, *(f"{figure:.5g}" if isinstance(figure, float) else str(figure) for figure in figures)))


def show_roles(tables: list[Parametrization]) -> None:
    """What each role of tensor starts with and how it learns."""
    for field in Row._fields:
        print(f"\n{MEANING[field]}")
        for role in ROLES:
            show(f"  {role}", [getattr(table.row(role), field) for table in tables])


def main() -> None:
    """Prints a block for each column of the table, then the scales of the forward pass."""
    size = sys.argv[1] if len(sys.argv) > 1 else "111M"
    shape = architecture(size)
    show(size, ["SP", "muP", "CompleteP"])
    show("peak lr", [SIZES[size].peak_lr, MUP_PEAK_LR, "to be tuned"])
    tables = [standard(shape), mup(shape), completep(shape)]
    show("width times", [table.width_multiplier for table in tables])
    show("depth times", [table.depth_multiplier for table in tables])
    show_roles(tables)
    print("\nforward")
    for name in FORWARD:
        show(f"  {name.replace('_', ' ')}", [getattr(table, name) for table in tables])
    print(f"\nCompleteP is shown from a proxy of width {COMPLETEP_BASE.d_model} and depth {COMPLETEP_BASE.n_layers}.")


if __name__ == "__main__":
    main()
