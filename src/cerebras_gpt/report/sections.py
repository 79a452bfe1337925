"""The parts of the page, each a function from a run to HTML; every word that comes from a run is escaped here."""

import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape

import numpy as np
from matplotlib.figure import Figure

from cerebras_gpt.plan.noise import KIND as NOISE
from cerebras_gpt.plan.plan import describe, role_table
from cerebras_gpt.report.figures import FIGURES, NARROW, SMALL, WIDE
from cerebras_gpt.report.images import figure_svg
from cerebras_gpt.report.run import Row, Run, Verdict, number
from cerebras_gpt.report.words import MISSING, against, bits, count, duration, plain, share

MOMENTS = 4
"""Samples shown beside each other."""

PROMPTS = 3
"""Prompts whose samples are shown."""

LONGEST_SAMPLE = 700
"""Characters of a sample."""

CAPTIONS = {
    "loss": "How well the model foresees text it never trained on, as it reads more. A good run falls steadily, "
    "flattens late, keeps held-out close to training, and ends inside the predicted band.",
    "bits_per_byte": "The same held-out text by ordinary compressors and by counting five-byte sequences. "
    "A language model is worth its name once its bar is the shortest.",
    "learning_rate": "The size of the steps. It climbs for a short warm-up, then falls to a small share of its peak.",
    "gradient_norm": "How hard each batch pulls. Good: it settles down; lone spikes are harmless, a climb is not.",
    "throughput": "Speed. Good: flat. A drop means that something else used the machine.",
    "noise": "How noisy the gradient is: the batch, in tokens, at which signal and noise of a step are equal. Dashed, "
    "the batch that was used. Good: far below the line, for then few tokens are wasted.",
}

RESUMED = " Dotted lines mark where the run was resumed; the curve should not notice."

VERDICTS: dict[Verdict, str] = {
    "inside": "inside the predicted band",
    "better": "better than predicted",
    "worse": "worse than predicted",
}


def clean(text: str) -> str:
    """Text from a run as HTML: markup escaped, control characters shown as the replacement character."""
    return escape("".join(c if c.isprintable() or c in "\n\t\u3000" else "\ufffd" for c in text))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of ready HTML cells; the first cell of a row names it."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    named = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="scroll"><table>{named}<tbody>{body}</tbody></table></div>'


def verdict(run: Run) -> str:
    """The verdict on the prediction in words."""
    if run.verdict:
        return VERDICTS[run.verdict]
    return "no prediction" if run.plan.prediction is None else "prediction not yet judged"


def headline(run: Run) -> str:
    """Who the run is and how far it got, in one sentence."""
    shape = run.plan.architecture
    done = "trained on" if run.is_finished else "planned for"
    progress = "" if run.is_finished else f" So far {share(run.tokens / run.plan.tokens)} of the run is done."
    return (
        f"A GPT of <b>{count(shape.n_parameters)} parameters</b>, {done} <b>{count(run.plan.tokens)} tokens</b>, "
        f"{plain(run.plan.tokens_per_parameter, 3)} for each parameter.{progress}"
    )


def tile(value: str, unit: str, remark: str) -> str:
    """One figure of the headline."""
    return f'<div class="tile"><div class="value">{value}<small> {unit}</small></div><p>{remark}</p></div>'


def comparison(run: Run) -> str:
    """How the newest held-out loss stands to what must be beaten."""
    parts = [
        f"{against(run.bits_per_byte, theirs)} {clean(name)}"
        for name, theirs in run.baselines.items()
        if name != "bzip2"
    ]
    return ", ".join(parts) if parts and math.isfinite(run.bits_per_byte) else "on text it never trained on"


def planned_time(run: Run) -> str:
    """What the machine's measured speed had promised."""
    seconds = number(run.calibration.get("predicted_seconds"))
    return f"; {duration(seconds)} were expected" if math.isfinite(seconds) else ""


def tiles(run: Run) -> str:
    """The figures that a person wants first."""
    band = run.plan.prediction
    expected = f"between {bits(band.low)} and {bits(band.high)}" if band else "no law was given to the plan"
    speed = share(run.median("flops_share"))
    return '<div class="tiles">{}</div>'.format(
        "".join(
            (
                tile(bits(run.bits_per_byte), "held-out bits per byte", comparison(run)),
                tile(bits(band.bits_per_byte) if band else MISSING, "predicted", f"<b>{verdict(run)}</b>, {expected}"),
                tile(duration(run.seconds), "of training", f"for {count(run.tokens)} tokens{planned_time(run)}"),
                tile(
                    count(run.median("tokens_per_second")),
                    "tokens per second",
                    "typical speed" if speed == MISSING else f"{speed} of what this machine can compute",
                ),
            )
        )
    )


def comparison_table(runs: Sequence[Run]) -> str:
    """Several runs, one a line."""
    head = ("run", "parameters", "tokens", "bits per byte", "predicted", "verdict", "time", "tokens/s")
    return table(head, (_comparison_row(run) for run in runs))


def _comparison_row(run: Run) -> tuple[str, ...]:
    band = run.plan.prediction
    return (
        clean(run.name),
        count(run.plan.architecture.n_parameters),
        count(run.tokens),
        bits(run.bits_per_byte),
        f"{bits(band.low)} to {bits(band.high)}" if band else MISSING,
        run.verdict or MISSING,
        duration(run.seconds),
        count(run.median("tokens_per_second")),
    )


def figure(name: str, draw: Callable[[float], Figure], widths: Mapping[str, float], words: str) -> str:
    """A picture drawn for every kind of screen, and its sentence."""
    drawn = "".join(
        f'<div class="{kind}">{figure_svg(draw, f"{name}-{width:g}".replace(".", "-"), width, words)}</div>'
        for kind, width in widths.items()
    )
    return f'<figure id="{name}">{drawn}<figcaption>{words}</figcaption></figure>'


def picture(name: str, runs: Sequence[Run]) -> str:
    """A picture and its sentence; a large one is drawn for a desk and for a phone."""
    words = CAPTIONS[name] + (RESUMED if name == "loss" and len(runs) == 1 and runs[0].resumed_at else "")
    widths = {"wide": WIDE, "narrow": NARROW} if name in ("loss", "bits_per_byte") else {"any": SMALL}
    return figure(name, partial(FIGURES[name], runs), widths, words)


MEASURED_AS = {"noise": NOISE}
"""Pictures of what short runs do not measure -> the kind of its rows."""


def is_measured(name: str, runs: Sequence[Run]) -> bool:
    """Whether any of the runs has something for the picture to show, or may yet have."""
    return name not in MEASURED_AS or any(run.of(MEASURED_AS[name]) for run in runs)


def pictures(runs: Sequence[Run], names: Iterable[str] = FIGURES) -> str:
    """The named pictures one after the other."""
    return "".join(picture(name, runs) for name in names)


def moments(rows: Sequence[Row]) -> list[Row]:
    """A few samples of one prompt, first and last included, early ones denser: there a model changes fastest."""
    chosen = np.unique(np.geomspace(1, len(rows), MOMENTS).round().astype(int)) - 1
    return [rows[i] for i in chosen]


def samples(run: Run) -> str:
    """What the model wrote at several moments, one row of cards for each prompt."""
    by_prompt: dict[str, list[Row]] = {}
    for row in run.of("sample"):
        by_prompt.setdefault(str(row.get("prompt") or ""), []).append(row)
    rows = [
        f'<div class="cards">{"".join(card(prompt, row) for row in moments(of_prompt))}</div>'
        for prompt, of_prompt in list(by_prompt.items())[:PROMPTS]
    ]
    return "".join(rows) or '<p class="quiet">No samples yet.</p>'


def card(prompt: str, row: Row) -> str:
    """One sample with its prompt in front."""
    text = str(row.get("text") or "").removeprefix(prompt)
    cut = text[:LONGEST_SAMPLE] + ("…" if len(text) > LONGEST_SAMPLE else "")
    heading = f"after {count(number(row.get('tokens')))} tokens"
    return f'<article><h4>{heading}</h4><p class="text"><b>{clean(prompt)}</b>{clean(cut)}</p></article>'


def plan_table(run: Run) -> str:
    """The plan with its reasons."""
    plan = run.plan
    steps = f"betas {plan.betas[0]} and {plan.betas[1]}, epsilon {plan.adam_eps:g}, gradients cut at {plan.grad_clip:g}"
    rows = [*describe(plan), ("AdamW", steps), ("seed", str(plan.seed))]
    reasons = "".join(f"<li>{clean(reason)}</li>" for reason in plan.reasons)
    told = table((), [(label, clean(value)) for label, value in rows])
    return told + (f"<h3>Why these figures</h3><ul>{reasons}</ul>" if reasons else "")


def parametrization_table(run: Run) -> str:
    """Role by role: how weights start, how fast they learn, whether they decay."""
    rows = [
        (
            row.role.replace("_", " "),
            plain(row.init_std) if row.init_std else "constant",
            plain(row.lr_scale),
            plain(row.peak_lr),
            plain(row.weight_decay) if row.weight_decay else "none",
        )
        for row in role_table(run.plan)
    ]
    return table(("role", "init std", "lr scale", "peak learning rate", "weight decay"), rows)


def shown(value: object) -> str:
    """A JSON value for reading: large numbers shortened, lists and mappings on one line."""
    if isinstance(value, float):
        return count(value) if abs(value) >= 10_000 else plain(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {shown(inner)}" for key, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def mapping_table(values: Mapping[str, object]) -> str:
    """Keys and values of a JSON mapping."""
    return table((), [(clean(key.replace("_", " ")), clean(shown(value))) for key, value in values.items()])


def environment(run: Run) -> str:
    """Where and with what the run was last started, and the machine's measured speed."""
    starts = run.of("start")
    newest = {key: value for key, value in starts[-1].items() if key not in ("kind", "step")} if starts else {}
    again = len(run.resumed_at)
    times = f'<p class="quiet">Resumed {again} time{"s" * (again > 1)} from a checkpoint.</p>' if again else ""
    measured = f"<h3>Measured before the run</h3>{mapping_table(run.calibration)}" if run.calibration else ""
    return (mapping_table(newest) if newest else '<p class="quiet">Not recorded.</p>') + times + measured + account(run)


def account(run: Run) -> str:
    """Time and memory as planned and as measured; nothing before the end of a run."""
    newest: Row = (run.of("account") or [{}])[-1]
    rows = []
    for what, key, told in (("training time", "seconds", duration), ("peak memory", "bytes", gigabytes)):
        planned, found = number(newest.get(f"planned_{key}")), number(newest.get(key, newest.get(f"peak_{key}")))
        if planned > 0 and found > 0:
            rows.append((what, told(planned), told(found), f"{found / planned - 1:+.0%}"))
    return f"<h3>As planned, and as it was</h3>{table(('', 'planned', 'measured', 'off by'), rows)}" if rows else ""


def gigabytes(n_bytes: float) -> str:
    """Bytes for reading."""
    return f"{n_bytes / 1e9:.3g} GB"


def next_commands(run: Run) -> str:
    """What to type next, for this very run."""
    folder = shlex.quote(str(run.path))
    data = shlex.quote(str(run.path / "data")) if (run.path / "data").exists() else "DATA"
    prompts = [str(row.get("prompt") or "") for row in run.of("sample")]
    prompt = shlex.quote(prompts[-1].strip() if prompts else "Once upon a time")
    go_on = [f"cerebras-gpt pretrain {folder}/plan.json --data {data} --out {folder}"]
    use = [
        f"cerebras-gpt generate {folder} --prompt {prompt}",
        f"cerebras-gpt evaluate {folder} --text FILE",
        f"cerebras-gpt report {folder} OTHER_RUN --out comparison.html",
        f"cerebras-gpt verify {folder}",
    ]
    return f"<pre>{clean(chr(10).join(use if run.is_finished else go_on))}</pre>"
