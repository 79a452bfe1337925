"""Tuning as a whole: a search on the proxy, its record, the chosen point in tuned.json, and a picture."""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from cerebras_gpt.data.shards import Shards
from cerebras_gpt.files import replace_text
from cerebras_gpt.plan.budget import Text, small_plan
from cerebras_gpt.plan.plan import Plan, overridden
from cerebras_gpt.plan.tuned import FILE, Tuned
from cerebras_gpt.record import duration
from cerebras_gpt.report.tune_figures import surface_of, write_surface
from cerebras_gpt.train.calibrate import calibrated
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.search import Findings, Search, rises
from cerebras_gpt.train.speed import Stopwatch
from cerebras_gpt.train.trial import Workers

RECORD, PICTURE = "trials.jsonl", "tuned.png"
N_SHOWN = 10
FEWEST_STEPS = 10


@dataclass(frozen=True)
class Tuning:
    """A finished search and the point that it chose."""

    search: Search
    findings: Findings
    tuned: Tuned
    data: Path
    out: Path


def proxy_template(data: Path, d_model: int, n_layers: int, steps: int) -> Plan:
    """The proxy's run on a pack: the recipe of `plan --minutes` at that width, with a depth of its own."""
    if steps < FEWEST_STEPS:
        raise ValueError(f"{steps} steps teach a proxy nothing; give {FEWEST_STEPS} or more, such as 200")
    train = Shards.open(data, "train", verify=False)
    plan = small_plan(d_model, Text(train.vocab_size, train.n_tokens, train.n_bytes), steps)
    return overridden(plan, {"architecture.n_layers": str(n_layers)})


def measured_execution(search: Search, out: Path) -> Execution:
    """How this machine computes the proxy fastest; kept in the folder, so that a search goes on to the same bits."""
    return calibrated(search.proxy.template, out, Stopwatch(0.4)).execution


def tune(search: Search, data: Path, out: Path, workers: Workers, execution: Execution) -> Tuning:
    """Searches, chooses, and writes tuned.json and its picture; the same call goes on after any interruption."""
    findings = search.run(data, out / RECORD, workers, execution)
    best = findings.best
    trials = {sample.outcome.name: sample.outcome for sample in findings.samples} | findings.repeats
    tuned = Tuned(
        parametrization=search.proxy.parametrization,
        base=search.proxy.base(best.point),
        peak_lr=best.point.peak_lr,
        proxy=search.proxy.trial(best.point, search.proxy.template.seed).plan,
        data_fingerprint=Shards.open(data, "train", verify=False).fingerprint,
        held_out=best.mean,
        noise=findings.noise,
        n_seeds=len(best.held_out),
        n_samples=search.n_samples,
        rises=rises(findings.samples, best.point),
        tokens=len(trials) * search.proxy.template.tokens,
        seconds=round(math.fsum(outcome.seconds for outcome in trials.values()), 1),
        outcomes=RECORD,
    )
    replace_text(out / FILE, tuned.to_json())
    write_surface(surface_of(findings, search.space), out / PICTURE)
    return Tuning(search, findings, tuned, data, out)


def table(tuning: Tuning) -> str:
    """The best samples and the chosen point as aligned lines."""
    findings, tuned = tuning.findings, tuning.tuned
    means = {finalist.point: finalist.mean for finalist in findings.finalists}
    ranked = sorted(findings.samples, key=lambda sample: sample.outcome.held_out)[:N_SHOWN]
    ranked.sort(key=lambda sample: means.get(sample.point, math.inf))
    lines = [
        f"{'peak lr':>10} {'init std':>10} {'embedding scale':>16} {'held-out':>10} {f'{tuned.n_seeds} seeds':>10}"
    ]
    for point, outcome in ranked:
        lr, std, scale = point
        repeated = f"{means[point]:.4f}" if point in means else ""
        lines.append(f"{lr:>10.4g} {std:>10.4g} {scale:>16.4g} {outcome.held_out:>10.4f} {repeated:>10}".rstrip())
    return "\n".join([*lines, "", *_remarks(tuning)])


def _remarks(tuning: Tuning) -> list[str]:
    """What the table means, what to doubt, and what to type next."""
    tuned, best = tuning.tuned, tuning.findings.best
    n_bad = sum(math.isinf(sample.outcome.held_out) for sample in tuning.findings.samples)
    lines = [
        f"chosen: {best.point}: {tuned.held_out:.4f} nats per token, "
        f"{tuned.noise:.4f} standard deviation between seeds",
        f"cost: {tuned.tokens:,} tokens, {duration(tuned.seconds)} of a thread; {n_bad} of {tuned.n_samples} diverged",
    ]
    if tuned.rises:
        costs = ", ".join(f"{axis} {rise:.4f}" for axis, rise in tuned.rises.items())
        lines.append(f"a factor of two off costs, in nats per token: {costs}")
    for axis in tuning.search.space.edges(best.point):
        lines.append(f"{axis} is at the end of its range: widen it and search again")
    data, file = shlex.quote(str(tuning.data)), shlex.quote(str(tuning.out / FILE))
    return [*lines, f"next: cerebras-gpt plan --minutes 5 --data {data} --tuned {file} --out plan.json"]
