"""Rows about what was found: compute, losses, accuracies, and parity as measured here."""

import numpy as np
from paper_rows import NANO_SORT, PARITY, PILE, PUBLISHED, RESULTS, STATED, of_fields, percent, read, row

from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.laws import PUBLISHED_SP
from cerebras_gpt.plan.plan import published_plan
from cerebras_gpt.plan.sizes import FAMILIES, architecture


def compute():
    columns = {
        "cerebras": ("flops_table", "test_the_cerebras_formula_prints_the_results_tables"),
        "cerebras-readme": ("flops_readme", "test_the_readme_formula_prints_the_training_table"),
    }
    for formula, (column, test) in columns.items():
        for name, size in PUBLISHED["sizes"].items():
            flops = training_flops(architecture(name), published_plan(name).tokens, formula)
            missed = "test_the_readme_formula_misses_the_training_table_at_111m"
            right = printed(flops) == size[column]
            yield row(f"{name} (`{formula}`)", [(size[column], f"{flops:.3e}")], test if right else missed, same(right))


def printed(flops):
    """As the paper prints FLOPs, in two digits."""
    return f"{flops:.1e}".replace("e+", "e")


def same(right):
    return "0 in its digits" if right else "differs"


def others():
    for name, other in PUBLISHED["others"].items():
        flops = flops_of_other(other)
        test = "test_22_of_23_printed_figures_of_compute_follow_from_one_formula"
        right = printed(flops) == other["flops_table"]
        yield row(name, [(other["flops_table"], f"{flops:.3e}")], test, same(right))


def flops_of_other(other):
    shape = Architecture(other["d_model"], other["n_layers"], other["n_heads"], other["vocab_size"], 2048)
    return training_flops(shape, other["tokens"])


def above_law(loss, flops):
    return 100 * (loss / PUBLISHED_SP.loss(flops) - 1)


def law():
    names = ("exponent", "scale_flops", "irreducible")
    pairs = of_fields(PUBLISHED["law"], PUBLISHED_SP, *names)
    yield row("exponent · scale · irreducible", pairs, "test_the_published_constants")
    tests = {
        "sizes": "test_the_published_law_passes_by_every_model_as_far_as_published",
        "mup": "test_mup_models_lie_below_the_published_law",
    }
    for family, test in tests.items():
        for name, size in PUBLISHED[family].items():
            pair = (f"{size['loss']:.3f}", f"{PUBLISHED_SP.loss(flops_of(name)):.4f}")
            label = "SP" if family == "sizes" else "muP"
            yield row(f"{label} {name}", [pair], test, f"{above_law(size['loss'], flops_of(name)):+.2f} %")


def deviations(family, by_print=False):
    return [
        above_law(size["loss"], float(PUBLISHED["sizes"][name]["flops_table"]) if by_print else flops_of(name))
        for name, size in PUBLISHED[family].items()
    ]


def flops_of(name):
    return training_flops(architecture(name), published_plan(name).tokens)


def stated():
    score = {name: size["mean"] for name, size in RESULTS["zero_shot"].items()}
    gain = 100 * (np.mean([score[f"muP {name}"] / score[f"SP {name}"] for name in FAMILIES["mup"]]) - 1)
    pair = (STATED["mup_mean_deviation"], np.mean(deviations("mup")))
    yield percent("muP above the law, mean", pair, "test_the_stated_gain_of_mup_is_its_mean_distance_from_the_law")
    test = "test_the_stated_spread_of_the_standard_runs_is_about_the_law_at_the_printed_flops"
    for flops, by_print in (("printed", True), ("exact", False)):
        pair = (STATED["sp_residual_std"], np.std(deviations("sizes", by_print)))
        yield percent(f"spread of SP about the law at the {flops} FLOPs", pair, test)
    pair = (STATED["deviation_13B"], abs(deviations("sizes", by_print=True)[-1]))
    yield percent("13B off the law, less than", pair, test)
    test = "test_other_families_lie_above_the_law_as_far_as_stated"
    for name, key in (("Pythia 12B", "pythia_12b_deviation"), ("GPT-NeoX 20B", "neox_deviation")):
        other = PUBLISHED["others"][name]
        yield percent(f"{name} above the law", (STATED[key], above_law(other["loss"], flops_of_other(other))), test)
    test = "test_the_stated_downstream_gain_of_mup_is_the_mean_over_the_sizes"
    yield percent("downstream gain of muP, mean", (STATED["mup_downstream_gain"], gain), test)


def means():
    test = "test_every_printed_mean_is_that_of_the_seven_tasks"
    for shots in ("zero_shot", "five_shot"):
        for name, printed_row in RESULTS[shots].items():
            mean = float(np.mean(printed_row["accuracy"]))
            pair = (f"{printed_row['mean']:.3f}", f"{mean:.4f}")
            yield row(f"{name}, {shots.replace('_', '-')}", [pair], test, f"{abs(mean - printed_row['mean']):.4f}")


def pile():
    raw, weight, _, effective, _ = np.array(list(PILE["components"].values())).T
    totals = PILE["totals"]
    pairs = [(totals["raw_gib"], raw.sum()), (100, weight.sum()), (totals["effective_gib"], effective.sum())]
    pairs = [(total, round(float(of_ours), 2)) for total, of_ours in pairs]
    yield row("22 components: raw GiB · weights, % · effective GiB", pairs, "test_the_pile_adds_up")
    most = published_plan("13B").tokens
    test = "test_no_published_run_repeats_the_pile"
    yield row("tokens there · most tokens of a run", [(PILE["tokens"], most)], test, "no repeats")


def parity():
    found = read("benchmarks", "results", PARITY)
    shown = {f"{name} in miniature": row for name, row in found["miniature"].items()}
    shown |= {f"111M in miniature, {name}": row for name, row in found["variants"].items()}
    shown |= {name: row for name, row in found.items() if name.startswith("111M") and "gradients" in row}
    for name, figures in shown.items():
        yield f"| {name} | {figures['logits']:.1e} | {figures['gradients']:.1e} | {figures['tensors']} |"
    for name, logits in found["folded"].items():
        m = published_plan(name, "mup").parametrization.width_multiplier
        yield f"| muP {name} in miniature, m = {m:g}, folded | {logits:.1e} | | |"


def training():
    found = read("benchmarks", "results", PARITY)
    for name, run in found.items():
        if "lockstep" in name:
            first, last = run["first_and_last_loss"]
            label = "111M in miniature" if name == "lockstep" else name
            figures = f"{run['steps']} | {first:.3f} to {last:.3f} | {run['losses']:.1e} | {run['weights']:.1e}"
            yield f"| {label} | {figures} |"


def nano_sort():
    found = read("benchmarks", "results", NANO_SORT)
    right, n_inputs = found["sorted"]
    yield f"| {len(found['differences'])} recorded tensors, largest absolute difference | {found['largest']:.1e} |"
    yield f"| inputs sorted | {right} of {n_inputs} |"
