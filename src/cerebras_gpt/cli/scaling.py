"""Verbs about scaling laws: fit, predict."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cerebras_gpt.cli.app import AsJson, app

Tables = Annotated[list[Path] | None, typer.Argument(help="Finished run folders, or .csv and .json tables of points.")]
Families = Annotated[
    list[str] | None,
    typer.Option(help="Published runs too: sp, mup, pythia, pythia-dedup, gpt-j, neox; may be given again."),
]


@app.command(epilog="Example: cerebras-gpt fit --published sp --beside pythia --out law.json --picture law.png")
def fit(
    runs: Tables = None,
    law: Annotated[str, typer.Option(help="power, robust, parametric or isoflop.")] = "power",
    formula: Annotated[str, typer.Option(help="How FLOPs are counted: cerebras, standard, 6nd...")] = "cerebras",
    published: Families = None,
    irreducible: Annotated[
        float | None, typer.Option(help="Loss that no compute removes, given instead of fitted; 0 with few runs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the law to this file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw it to this PNG file.")] = None,
    beside: Annotated[
        list[str] | None, typer.Option(help="Published runs to draw beside it, not fitted; may be given again.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="A benchmark that `evaluate` scored of each run: its accuracy against compute.")
    ] = None,
    flops: Annotated[float | None, typer.Option(help="With --task: predict at this compute too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a scaling law to finished runs, with intervals, deviations and a test on the largest."""
    if task is not None:
        _fit_task(runs or [], task, formula, flops, out, as_json)
        return
    from cerebras_gpt.plan.law_file import LawFile, fitted
    from cerebras_gpt.plan.published import published_points
    from cerebras_gpt.report.law_points import gather
    from cerebras_gpt.report.law_words import fit_text, fit_values

    LawFile(law, (), formula, irreducible=irreducible)  # refuses a misspelt name before anything is read
    given = gather(runs or [], published or [], formula)
    compared = [point for family in beside or [] for point in published_points(family)]
    file, made = fitted(LawFile(law, given.points, formula, given.unit, irreducible))
    if out is not None:
        file.save(out)
    if picture is not None:
        from cerebras_gpt.report.law_figures import write_picture

        write_picture(made, file.unit, picture, compared)
    print(json.dumps(fit_values(file, made), indent=1) + "\n" if as_json else fit_text(file, made), end="")


def _fit_task(runs: list[Path], task: str, formula: str, flops: float | None, out: Path | None, as_json: bool) -> None:
    """The downstream law of runs that were evaluated."""
    from cerebras_gpt.plan.downstream_law import fit_downstream
    from cerebras_gpt.report.downstream_figures import Score, add_scores
    from cerebras_gpt.report.downstream_words import downstream_text, downstream_values, results

    points, chance = results(runs, task, formula)
    made = fit_downstream(points, chance, formula)
    if out is not None:
        add_scores(out, [Score(one.flops, one.accuracy, one.stderr, task) for one in made.results])
    values, text = downstream_values(task, made, flops), downstream_text(task, made, flops)
    print(json.dumps(values, indent=1) + "\n" if as_json else text, end="")


@app.command(
    epilog="Example: cerebras-gpt predict published-sp --size 13B    or: cerebras-gpt predict law.json --flops 1e18"
)
def predict(
    law: Annotated[str, typer.Argument(help="A law.json, or published-sp, published-mup, epoch, hoffmann.")],
    flops: Annotated[float | None, typer.Option(help="Training compute.")] = None,
    size: Annotated[str | None, typer.Option(help="A published size: 111M to 13B.")] = None,
    parameters: Annotated[float | None, typer.Option(help="Parameters of the model.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens that it is trained on.")] = None,
    inference_tokens: Annotated[
        float | None, typer.Option(help="Tokens of use: also the size that costs least in all, at the same loss.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict the loss of a run from a law, with its interval and how far that reaches."""
    from cerebras_gpt.plan.predict import asked, law_named, used
    from cerebras_gpt.plan.predict import predict as expect
    from cerebras_gpt.report.law_words import expected_text, expected_values, used_text

    named = law_named(law)
    expected = expect(named, asked(named, flops, size, parameters, tokens))
    cost = None if inference_tokens is None else used(named, expected, inference_tokens)
    if as_json:
        best = {} if cost is None else {"with_use": cost.trade._asdict()}
        print(json.dumps({**expected_values(expected), **best}, indent=1))
    else:
        print(expected_text(expected) + ("" if cost is None else used_text(cost)), end="")
