"""Writes the tables of docs/paper.md and docs/paper-results.md: published, ours, difference, and the test of it.

    python benchmarks/paper_tables.py

Published figures come from tests/golden, ours from the tables of the package, those of parity from benchmarks/results.
Words of the pages are written by hand; each table stands between two comments and is written by this program.
tests/test_paper.py fails if one is out of date.
"""

import json
import math
import re
from pathlib import Path

import numpy as np

from cerebras_gpt.interop.gpt2 import gpt2_config
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.parametrization import TRUNCATION
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.laws import PUBLISHED_SP
from cerebras_gpt.plan.plan import TOKENS_PER_PARAMETER, WARMUP_TOKENS, optimal_steps, published_plan, warmup_steps
from cerebras_gpt.plan.sizes import FAMILIES, architecture
from cerebras_gpt.train.optim import learning_rate

ROOT = Path(__file__).parents[1]
PARITY, NANO_SORT = "2026-11-23-parity.json", "2026-11-23-nano-sort.json"
PAGES = ("paper.md", "paper-results.md")


def read(*parts):
    return json.loads(ROOT.joinpath(*parts).read_text("utf-8"))


PUBLISHED, RESULTS, PILE = (read("tests", "golden", f"{name}.json") for name in ("published", "results", "pile"))
COMMON, PROXY, STATED = PUBLISHED["common"], PUBLISHED["proxy"], PUBLISHED["transfer"]


def said(value):
    """A figure as the tables print it."""
    if isinstance(value, float) and (value > 1e15 or not value.is_integer()):
        return f"{value:.6g}"
    return f"{value:,.0f}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def apart(pairs):
    """The largest relative difference of pairs of figures; words must be equal."""
    words = [(a, b) for a, b in pairs if isinstance(a, str | bool)]
    if any(a != b for a, b in words):
        return "differs"
    largest = max((abs(b / a - 1) if a else abs(b) for a, b in pairs if (a, b) not in words), default=0.0)
    return "0" if largest < 1e-12 else f"{100 * largest:.2g} %"


def row(name, pairs, test, difference=None):
    """One line of a table: what it is about, their figures, ours, how far apart, and the test."""
    theirs, ours = (" · ".join(map(said, figures)) for figures in zip(*pairs, strict=True))
    return f"| {name} | {theirs} | {ours} | {difference or apart(pairs)} | `{test}` |"


def table(about, rows):
    """A table whose first column says what the figures of each row are."""
    return "\n".join([f"| {about} | published | ours | difference | test |", "| --- " * 5 + "|", *rows])


def of_fields(published, ours, *fields):
    return [(published[field], getattr(ours, field)) for field in fields]


def shapes():
    fields = ("n_layers", "d_model", "n_heads", "d_head", "d_ffn", "n_parameters", "n_embedding_parameters")
    for name, size in PUBLISHED["sizes"].items():
        shape = architecture(name)
        rest = (size["n_other_parameters"], shape.n_parameters - shape.n_embedding_parameters)
        yield row(name, [*of_fields(size, shape, *fields), rest], "test_shapes_match_the_release")


def recipes():
    fields = ("peak_lr", "decay", "batch_size", "tokens_per_step", "warmup_steps", "steps", "adam_eps")
    for name, size in PUBLISHED["sizes"].items():
        plan = published_plan(name)
        decay = (size["decay_steps"], plan.steps - plan.warmup_steps)
        tokens = (size["steps"] * size["tokens_per_step"], plan.tokens)
        pairs = [*of_fields(size, plan, *fields), decay, tokens, (20, plan.tokens_per_parameter)]
        yield row(name, pairs, "test_the_schedule_matches_the_release")


def stds():
    for name, size in PUBLISHED["sizes"].items():
        for family in ("sp", "sp-yaml"):
            std = published_plan(name, family).parametrization.row("residual_out").init_std
            if family == "sp" or name in PUBLISHED["yaml"]["residual_out_std"]:
                pair = (size["residual_out_std"], std)
                yield row(f"{name} ({family})", [pair], "test_the_rule_or_the_released_file_gives_the_residual_std")


def mups():
    for name, size in PUBLISHED["mup"].items():
        plan = published_plan(name, "mup")
        made = plan.parametrization
        pairs = [
            (size["width_multiplier"], made.width_multiplier),
            (size["hidden_std"], made.row("hidden").init_std),
            (size["residual_out_std"], made.row("residual_out").init_std),
            (size["hidden_lr"], plan.peak_lr * made.row("hidden").lr_scale),
            (size["logit_scale"], made.logit_scale),
            (size["attention_divisor"], 1 / made.attention_scale),
        ]
        yield row(name, pairs, "test_mup_learning_rates_and_stds_match_the_release")


def proxies():
    for depth, n_parameters in PROXY["n_parameters"].items():
        shape = Architecture(PROXY["d_model"], int(depth), PROXY["n_heads"])
        pairs = [*of_fields(PROXY, shape, "d_head", "d_ffn"), (n_parameters, shape.n_parameters)]
        test = "test_the_proxy_has_the_published_shape_at_either_depth"
        yield row(f"proxy of {depth} layers: d_head · d_ffn · parameters", pairs, test)
    seen = PROXY["steps"] * PROXY["batch_size"] * COMMON["seq_len"]
    yield row("tokens of a trial", [(PROXY["tokens"], seen)], "test_the_proxy_sees_the_published_tokens")


def realised_share():
    """Std of a unit normal that is cut at TRUNCATION."""
    density = math.exp(-(TRUNCATION**2) / 2) / math.sqrt(2 * math.pi)
    return math.sqrt(1 - 2 * TRUNCATION * density / math.erf(TRUNCATION / math.sqrt(2)))


def common():
    plan, settings = published_plan("111M"), "test_the_optimizer_has_the_published_settings"
    yield row(
        "vocabulary · length · d_ffn / d_model · activation · LayerNorm epsilon · tied",
        of_fields(
            COMMON, plan.architecture, "vocab_size", "seq_len", "ffn_multiple", "activation", "layer_norm_eps", "tied"
        ),
        "test_every_shape_has_what_all_have_in_common",
    )
    yield row("dropout", [(COMMON["dropout"], 0)], "test_nothing_drops_out")
    betas = list(zip(COMMON["betas"], plan.betas, strict=True))
    fields = ("weight_decay", "grad_clip", "final_lr_fraction")
    yield row("betas · weight decay · clip · last rate / peak", [*betas, *of_fields(COMMON, plan, *fields)], settings)
    pairs = [(COMMON["warmup_tokens"], WARMUP_TOKENS), (COMMON["tokens_per_parameter"], TOKENS_PER_PARAMETER)]
    yield row("warm-up tokens · tokens per parameter", pairs, settings)
    pairs = [(COMMON["init_std"], plan.parametrization.base_init_std), (COMMON["realised_std"], realised_share())]
    test = "test_weights_are_cut_at_two_stds_which_leaves_the_published_share"
    yield row("init std · share of it after the cut at two stds", pairs, test)
    rates = [learning_rate(plan, step) for step in (0, plan.warmup_steps, plan.steps)]
    test = "test_the_rate_is_the_released_schedule_at_every_tenth"
    yield row("rate of 111M: start · end of warm-up · end", list(zip((0, 6e-4, 6e-5), rates, strict=True)), test)
    yield from mup_common()
    yield from thirteen()


def mup_common():
    plan, base = published_plan("2.7B", "mup"), PUBLISHED["mup_common"]
    made = plan.parametrization
    pairs = [(base["peak_lr"], plan.peak_lr), (base["init_std"], made.base_init_std)]
    pairs += of_fields(base, made, "embedding_scale", "output_alpha")
    pairs += [(base["final_lr"], learning_rate(plan, plan.steps)), (base["decay"], plan.decay)]
    name = "muP: peak · init std · embedding scale · alpha · last rate · decay"
    yield row(name, pairs, "test_mup_ends_at_the_published_rate")


def thirteen():
    plan, (first, second) = published_plan("13B"), PUBLISHED["phases_13B"].values()
    pairs = [
        (first["whole_steps"], optimal_steps(plan.architecture, first["batch_size"])),
        (first["warmup_steps"], warmup_steps(first["tokens_per_step"])),
        (second["to_step"], plan.steps),
        (second["decay_steps"], plan.steps - plan.warmup_steps),
    ]
    test = "test_the_two_phases_of_13b_are_plans_of_their_batch_sizes"
    yield row("13B: steps and warm-up at 720 · steps and decay at 1,080", pairs, test)
    steps = second["to_step"] - second["from_step"]
    tokens = first["steps_run"] * first["tokens_per_step"] + steps * second["tokens_per_step"]
    test = "test_13b_takes_as_many_tokens_as_its_two_published_phases"
    yield row("13B: tokens of both phases", [(tokens, plan.tokens)], test)
    config, release = gpt2_config(plan.architecture, 50256), PUBLISHED["hugging_face"]
    same = sum(config[key] == value for key, value in release.items())
    test = "test_a_13b_of_ours_is_configured_as_the_hugging_face_release"
    yield row("13B: keys of config.json, and those that agree", [(len(release), same)], test)


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


def percent(name, pair, test):
    published, ours = pair
    words = (f"{published} %", f"{ours:.2f} %")
    return row(name, [words], test, f"{abs(ours - published):.2f} points")


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


def headed(*columns):
    """The head of a table with columns of its own."""
    return f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|\n"


def tables():
    """Every table by the name in its comment."""
    recipe = "peak · decay · batch · its tokens · warm-up · steps · epsilon · decay steps · tokens · per parameter"
    return {
        "shapes": table("layers · d_model · heads · d_head · d_ffn · parameters · of tables · rest", shapes()),
        "recipes": table(recipe, recipes()),
        "stds": table("init std of residual projections", stds()),
        "mup": table("multiplier · hidden std · residual std · hidden rate · logit scale · attention divisor", mups()),
        "proxy": table("proxy", proxies()),
        "common": table("all sizes", common()),
        "compute": table("training FLOPs", compute()),
        "others": table("training FLOPs", others()),
        "law": table("loss, and what the law says", law()),
        "stated": table("statement", stated()),
        "means": table("mean accuracy of seven tasks", means()),
        "pile": table("the Pile", pile()),
        "parity": headed("network", "logits", "worst gradient", "tensors") + "\n".join(parity()),
        "training": headed("run", "steps", "loss", "losses differ by", "weights at the end") + "\n".join(training()),
        "nano sort": headed("nano sort", "found") + "\n".join(nano_sort()),
    }


def filled(page):
    """A page with its tables as they should be."""
    made = tables()

    def fill(found):
        return f"<!-- table: {found[1]} -->\n{made[found[1]]}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def main():
    for name in PAGES:
        page = ROOT / "docs" / name
        page.write_text(filled(page.read_text("utf-8")), "utf-8")
        print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
