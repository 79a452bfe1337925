"""A ladder in words: its rungs as a table, the prediction, the verdict, and the twin."""

from cerebras_gpt.plan.ladder_law import Climbed, Rung, compared
from cerebras_gpt.report.words import count


def ladder_table(climbed: Climbed) -> str:
    """All of a ladder as lines to print."""
    told = climbed.foretold
    law = told.law
    lines = [
        f"{'rung':<18} {'parameters':>10} {'tokens':>8} {'FLOPs':>9} {'bits/byte':>10} {'seeds':>6} {'off the law':>12}"
    ]
    lines += [_row(rung, law.loss(rung.flops)) for rung in (*climbed.rungs, *climbed.twin)]
    held = "inside" if climbed.is_inside else "outside"
    lines += [
        "",
        f"law: L(C) = (C / {law.scale_flops:.3g})^-{law.exponent:.4g} + {law.irreducible:.4g} bits per byte, "
        f"C by the formula {law.formula!r}; one run scatters by {100 * told.noise:.2f} %",
        f"predicted before training: {told.bits_per_byte:.4f}, 90 % interval {told.low:.4f} to {told.high:.4f}",
        f"measured: {climbed.last.mean:.4f}, {held} the interval, error {100 * climbed.error:+.2f} %",
    ]
    return "\n".join([*lines, *_twin(climbed)])


def _row(rung: Rung, expected: float) -> str:
    off = 100 * (rung.mean / expected - 1)
    return (
        f"{rung.name:<18} {count(rung.n_parameters):>10} {count(rung.n_tokens):>8} {rung.flops:>9.3g} "
        f"{rung.mean:>10.4f} {len(rung.bits_per_byte):>6} {f'{off:+.2f} %':>12}"
    )


def _twin(climbed: Climbed) -> list[str]:
    if not climbed.twin:
        return []
    found = compared(climbed.rungs, climbed.twin)
    ratio = found.twin_spread / found.spread
    return [
        f"against SP: {100 * found.difference:+.2f} % loss at equal size and tokens, "
        f"{100 * found.about_twin_law:+.2f} % about SP's law (paper: -0.43 %)",
        f"spread about its own law: {100 * found.spread:.2f} %, SP {100 * found.twin_spread:.2f} %, "
        f"{ratio:.1f} times as much (paper: 16)",
    ]
