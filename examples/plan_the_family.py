"""The seven published sizes as plans: parameters, tokens, training FLOPs by both published conventions, memory.

python examples/plan_the_family.py
"""

from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.memory import checkpoint_bytes, training_memory
from cerebras_gpt.plan.plan import Plan, published_plan
from cerebras_gpt.plan.sizes import SIZES

COLUMNS = ("size", "parameters", "tokens", "steps", "FLOPs: results", "FLOPs: training", "memory GB", "checkpoint GB")
FORMAT = "{:<5} {:>15} {:>16} {:>8} {:>15} {:>16} {:>10} {:>14}"


def row(plan: Plan) -> tuple[str, ...]:
    """One size: the FLOP columns are those of the published results tables and of the published training table."""
    shape = plan.architecture
    return (
        plan.name,
        f"{shape.n_parameters:,}",
        f"{plan.tokens:,}",
        f"{plan.steps:,}",
        f"{training_flops(shape, plan.tokens, 'cerebras'):.3g}",
        f"{training_flops(shape, plan.tokens, 'cerebras-readme'):.3g}",
        f"{training_memory(shape, micro_batch_size=1).total / 1e9:.3g}",
        f"{checkpoint_bytes(shape) / 1e9:.3g}",
    )


def main() -> None:
    """Prints the table; memory is for one sequence at a time in 16 bits."""
    print(FORMAT.format(*COLUMNS))
    for name in SIZES:
        print(FORMAT.format(*row(published_plan(name))))


if __name__ == "__main__":
    main()
