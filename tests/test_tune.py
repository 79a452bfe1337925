"""The verb `tune`: a search whose result, picture and table are there, and which feeds `plan`."""

import json
import shutil
from dataclasses import replace

import matplotlib.image
import pytest
import typer
from typer.testing import CliRunner

from cerebras_gpt.cli.app import app
from cerebras_gpt.plan.plan import Plan, role_table
from cerebras_gpt.plan.tuned import Tuned
from cerebras_gpt.report.page import write_report
from cerebras_gpt.report.tune_figures import Surface, surface_figure, surface_of, write_surface
from cerebras_gpt.train.crew import Processes
from cerebras_gpt.train.execution import Execution
from cerebras_gpt.train.search import Finalist, Findings, Proxy, Range, Sample, Search, Space
from cerebras_gpt.train.trial import Outcome
from cerebras_gpt.tune import PICTURE, RECORD, proxy_template, table, tune

N = 5
QUICK = Execution("float32", 8)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def search(data):
    return Search(Proxy(proxy_template(data, 32, 2, 10)), Space(), N)


@pytest.fixture(scope="module")
def tuning(search, data, tmp_path_factory):
    return tune(search, data, tmp_path_factory.mktemp("tuned"), Processes(1), QUICK)


def test_the_chosen_point_is_in_the_file_with_its_cost(tuning, search, data):
    tuned = Tuned.load(tuning.out)
    best = tuning.findings.best
    assert tuned == tuning.tuned
    assert (tuned.peak_lr, tuned.base.init_std, tuned.base.embedding_scale) == best.point
    assert (tuned.base.d_model, tuned.base.n_layers, tuned.parametrization) == (32, 2, "mup")
    assert tuned.held_out == best.mean and tuned.noise > 0
    assert tuned.tokens == (N + 8) * search.proxy.template.tokens and tuned.seconds > 0
    assert len((tuning.out / RECORD).read_text().splitlines()) == N + 8
    assert len(tuned.data_fingerprint) == 64


def test_tuning_again_changes_no_byte(tuning, search, data, tmp_path):
    shutil.copy(tuning.out / RECORD, tmp_path)
    again = tune(search, data, tmp_path, Processes(1), QUICK)
    assert (tmp_path / "tuned.json").read_bytes() == (tuning.out / "tuned.json").read_bytes()
    assert table(again).splitlines()[:-1] == table(tuning).splitlines()[:-1]


def test_the_picture_is_there_and_is_not_empty(tuning):
    pixels = matplotlib.image.imread(tuning.out / PICTURE)
    assert pixels.shape[1] > 1500 and pixels.shape[0] > 400
    assert pixels[..., :3].std() > 0.02


def test_the_table_names_the_choice_and_the_next_command(tuning, data):
    lines = table(tuning).splitlines()
    assert len(lines) >= N + 4
    assert f"{tuning.tuned.peak_lr:.4g}" in lines[1]  # the chosen one comes first
    assert lines[-1] == (
        f"next: cerebras-gpt plan --minutes 5 --data {data} --tuned {tuning.out / 'tuned.json'} --out plan.json"
    )


def test_the_verb_plans_with_what_was_tuned(tuning, tmp_path):
    result = run("plan", "111M", "--mup", "--tuned", tuning.out, "--out", tmp_path / "plan.json")
    assert result.exit_code == 0 and tuning.tuned.hash in result.output
    plan = Plan.load(tmp_path / "plan.json")
    rows = {row.role: row for row in role_table(plan)}
    assert rows["embedding"].peak_lr == tuning.tuned.peak_lr
    assert rows["hidden"].peak_lr == pytest.approx(tuning.tuned.peak_lr / 24)  # 768 / 32


def test_the_verb_tunes_goes_on_and_gives_json(tuning, data, tmp_path):
    shutil.copy(tuning.out / RECORD, tmp_path)
    (tmp_path / "calibration.json").write_text(
        json.dumps(
            {
                "execution": {"dtype": "float32", "micro_batch_size": 8, "device": "cpu"},
                "tokens_per_second": 1.0,
                "peak_flops": 1.0,
                "predicted_seconds": 1.0,
            }
        )
    )
    words = ("--samples", N, "--width", 32, "--steps", 10, "--workers", 1, "--json")
    result = run("tune", "--data", data, "--out", tmp_path, *words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(tuning.tuned.to_json())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--peak-lr", "0.1:0.01"], "peak_lr from 0.1 to 0.01 is no range"),
        (["--init-std", "a:b"], "--init-std 'a:b' is no range; write LOW:HIGH"),
        (["--samples", "0"], "0 samples find nothing"),
        (["--steps", "1"], "1 steps teach a proxy nothing"),
        (["--width", "33"], "d_model 33 is not a multiple of 32"),
        (["--layers", "0"], "n_layers is 0"),
        (["--parametrization", "mop"], "did you mean 'mup'"),
        (["peak"], "'peak' is not key=value"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_trained(data, tmp_path, words, line):
    result = run("tune", "--data", data, "--out", tmp_path / "out", *words)
    assert isinstance(result.exception, ValueError) and line in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_ranges_of_the_command_line_are_those_of_the_search():
    options = {p.name: p.default for p in typer.main.get_command(app).commands["tune"].params}
    for axis, range_ in Space().axes().items():
        assert options[axis] == f"{range_.low:g}:{range_.high:g}"


def test_a_surface_with_diverged_samples_and_a_fixed_value_is_drawn(tmp_path):
    space = Space(embedding_scale=Range(10.0, 10.0))
    points = space.points(12, 0)
    samples = [Sample(p, Outcome("s", 1.0, float("inf") if i % 4 == 0 else 4.0 + i, 1.0)) for i, p in enumerate(points)]
    findings = Findings(samples, [Finalist(points[1], (5.0,))], {})
    assert len(surface_figure(surface_of(findings, space)).axes) == 4  # three panels and the scale of colours
    write_surface(surface_of(findings, space), tmp_path / "surface.png")
    assert (tmp_path / "surface.png").stat().st_size > 10_000
    assert Surface.load(tmp_path) == surface_of(findings, space)


def test_a_report_draws_the_search_again(tuning, tmp_path):
    page = write_report([tuning.out], tmp_path / "page.html").read_text("utf-8")
    assert page.count("<svg") == 2 and f"Held-out loss of {N} samples on a proxy of width 32; in a ring" in page


@pytest.mark.parametrize("text", [None, "{}", '{"points": [[1]], "best": [], "space": {}}'])
def test_a_search_whose_surface_is_not_there_says_what_makes_it(tuning, tmp_path, text):
    shutil.copy(tuning.out / "tuned.json", tmp_path)
    if text is not None:
        (tmp_path / "surface.json").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=r"surface.*run .*`cerebras-gpt tune`"):
        write_report([tmp_path], tmp_path / "page.html")


def test_a_choice_at_the_end_of_a_range_is_told(tuning):
    best = tuning.findings.best.point
    narrow = Space(peak_lr=Range(best.peak_lr, best.peak_lr * 2))
    told = table(replace(tuning, search=replace(tuning.search, space=narrow)))
    assert "peak_lr is at the end of its range: widen it and search again" in told
