"""Rows about plans: shapes, recipes, parametrizations."""

import math

from paper_rows import COMMON, PROXY, PUBLISHED, of_fields, row

from cerebras_gpt.interop.gpt2 import gpt2_config
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.parametrization import TRUNCATION
from cerebras_gpt.plan.plan import TOKENS_PER_PARAMETER, WARMUP_TOKENS, optimal_steps, published_plan, warmup_steps
from cerebras_gpt.plan.sizes import architecture
from cerebras_gpt.train.optim import learning_rate


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
