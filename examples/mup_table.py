"""The standard and the muP recipe of one published size side by side, role by role.

python examples/mup_table.py 111M
"""

import sys

from cerebras_gpt.plan.plan import Plan, published_plan, role_table

ROW = "{:<16} {:>12} {:>12}   {:>12} {:>12}"


def forward_scales(plan: Plan) -> dict[str, float]:
    """The three factors that act in the forward pass."""
    table = plan.parametrization
    return {
        "embedding scale": table.embedding_scale,
        "attention scale": table.attention_scale,
        "logit scale": table.logit_scale,
    }


def main() -> None:
    """Prints init std and peak learning rate of each role, then the forward scales."""
    size = sys.argv[1] if len(sys.argv) > 1 else "111M"
    sp, mup = published_plan(size, "sp"), published_plan(size, "mup")
    print(ROW.format(size, "SP init std", "SP peak lr", "muP init std", "muP peak lr"))
    for ours, theirs in zip(role_table(sp), role_table(mup), strict=True):
        figures = (ours.init_std, ours.peak_lr, theirs.init_std, theirs.peak_lr)
        print(ROW.format(ours.role, *(f"{figure:.5g}" for figure in figures)))
    print()
    for (name, ours), theirs in zip(forward_scales(sp).items(), forward_scales(mup).values(), strict=True):
        print(ROW.format(name, f"{ours:.5g}", "", f"{theirs:.5g}", ""))


if __name__ == "__main__":
    main()
