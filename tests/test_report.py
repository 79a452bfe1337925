import dataclasses
import json
import math
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cerebras_gpt.cli.app import app
from cerebras_gpt.model.architecture import Architecture
from cerebras_gpt.model.parametrization import Parametrization
from cerebras_gpt.plan.plan import Plan, Prediction
from cerebras_gpt.report import words
from cerebras_gpt.report.figures import COLOURS, FIGURES, MOST_POINTS, WIDE, spread, thin
from cerebras_gpt.report.images import figure_svg, write_figures
from cerebras_gpt.report.page import write_report
from cerebras_gpt.report.run import read_run
from cerebras_gpt.report.sections import moments

SAMPLES = (
    "ttttt  e eeeeae  tn oo  e   aeee   o  i  tt, e",
    "the the of the and the of and the to the the in of the, and of the",
    "the people of the United States, and the Government has been the same to the country, and the first of the year.",
    "the present condition of our foreign commerce. The revenue of the last year exceeded the estimates, and the "
    "Congress will be asked to consider whether the duties upon imports may now be reduced.",
)


def synthetic_plan(**changes: object) -> Plan:
    """A plan such as the quickstart makes on two cores in a few minutes."""
    plan = Plan(
        name="quickstart-1.9M",
        architecture=Architecture(d_model=160, n_layers=4, n_heads=5, vocab_size=4096, seq_len=256),
        parametrization=Parametrization(n_layers=4, d_head=32, width_multiplier=2.5, attention_power=1.0),
        batch_size=16,
        steps=1200,
        warmup_steps=60,
        peak_lr=6e-3,
        prediction=Prediction("quickstart ladder of three runs", 1.565, 1.52, 1.62),
        reasons=(
            "6 minutes on this machine: 4.9M tokens.",
            "Batch of 16: the machine is busy & memory suffices.",
        ),
    )
    return dataclasses.replace(plan, **changes)


def synthetic_rows(plan: Plan, upto: float = 1.0, fall: float = 4.7) -> list[dict[str, object]]:
    """What training writes: a power law with noise, a resumption from step 480."""
    rng = np.random.default_rng(plan.seed)
    start = {"torch": "2.10.0", "processes": 1, "dtype": "bfloat16", "threads": 2, "processor": "x86_64, 2 cores"}
    rows: list[dict[str, object]] = [{"kind": "start", "step": 0, "time": "2026-03-01T09:00:00", **start}]
    for step in range(1, plan.steps + 1):
        if step > upto * plan.steps:
            break
        tokens = step * plan.tokens_per_step
        done = {"step": step, "tokens": tokens}
        seconds = {"seconds": 0.31 * step}
        if step == 481:
            rows.append({"kind": "start", "step": 480, "time": "2026-03-01T09:10:00", **start})
        warm, left = min(1, step / plan.warmup_steps), 1 - step / plan.steps
        mean = 3.03 + fall * (1 + step / 25) ** -0.62
        train = {"loss": mean + rng.normal(0, 0.07), "lr": plan.peak_lr * min(warm, 0.1 + 0.9 * left)}
        train |= {"grad_norm": 0.35 + 2.5 / step**0.6 + rng.exponential(0.06)}
        train |= {"tokens_per_second": rng.normal(13200, 180), "flops_share": rng.normal(0.44, 0.01)}
        rows.append({"kind": "train", **done, **train, **seconds})
        if step % 60 == 0 or step in (5, 15, 30):
            loss = mean + 0.05 + 0.04 * step / plan.steps
            rows.append({"kind": "held_out", **done, "loss": loss, "bits_per_byte": loss * 0.445, **seconds})
        if step % 100 == 0:
            noise = {"noise_scale": 900.0 * step**0.5, "variance": 9.0 * step, "squared_gradient": 0.01}
            rows.append({"kind": "noise", **done, **noise})
        if step % 240 == 0 or step == 20:
            text = SAMPLES[(step >= 240) + (step >= 480) + (step >= 1200)]
            rows.append({"kind": "sample", **done, "prompt": "Fellow citizens, ", "text": text})
            rows.append({"kind": "sample", **done, "prompt": "In the year 1900 ", "text": text.upper().capitalize()})
    return rows


def write_run(folder: Path, plan: Plan, rows: list[dict[str, object]]) -> Path:
    """A run folder with everything that a report can read."""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(plan.to_json(), "utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "baselines.json").write_text('{"xz": 1.700, "bzip2": 1.912, "byte 5-gram": 1.618}', "utf-8")
    speed = {"tokens_per_second": 13050.0, "peak_flops": 4.1e11, "predicted_seconds": 377.0}
    execution = {"dtype": "bfloat16", "micro_batch_size": 8, "device": "cpu"}
    (folder / "calibration.json").write_text(json.dumps({"execution": execution, **speed}), "utf-8")
    return folder


class Strict(HTMLParser):
    """Follows open elements, so that a page that does not close them is seen."""

    VOID = ("meta", "link", "br", "hr", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for key, value in attrs if key == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for key, value in attrs if key == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(*runs: Path) -> str:
    """The page about these runs, checked as every page must be."""
    page = write_report(runs, runs[0].parent / "pages" / "report.html").read_text("utf-8")
    parser = Strict()
    parser.feed(page)
    assert not parser.open
    assert len(set(parser.ids)) == len(parser.ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(parser.ids)
    assert page.count("<figure") == len(FIGURES) - ('id="noise"' not in page)
    for forbidden in ("http", "<script", "<link", "@import", "src=", " onload"):
        assert forbidden not in page
    assert len(page) < 1_000_000
    return page


@pytest.fixture
def plan() -> Plan:
    return synthetic_plan()


@pytest.fixture
def run(tmp_path: Path, plan: Plan) -> Path:
    return write_run(tmp_path / "run", plan, synthetic_rows(plan))


def test_page_tells_what_a_person_wants_to_know(run):
    page = page_of(run)
    for said in (
        "quickstart-1.9M",
        "1.93M parameters",
        "4.92M tokens",
        "1.576",
        "7 % below xz",
        "3 % below byte 5-gram",
    ):
        assert said in page
    for said in (
        "inside the predicted band",
        "6 min 12 s",
        "13.2k",
        "44 %",
        "1.520 to 1.620; quickstart ladder",
        "residual out",
    ):
        assert said in page
    for said in ("6 minutes on this machine", "busy &amp; memory", "Resumed 1 time", f"cerebras-gpt generate {run}"):
        assert said in page


def test_page_of_several_runs_compares_them(tmp_path, plan):
    plans = [dataclasses.replace(plan, name=name, seed=seed) for seed, name in enumerate(("small", "a & b", "$cost$"))]
    page = page_of(*(write_run(tmp_path / str(p.seed), p, synthetic_rows(p, fall=3 + 2 * p.seed)) for p in plans))
    assert "3 runs" in page
    for verdict in ("better", "inside", "worse"):
        assert f"<td>{verdict}</td>" in page
    assert "a &amp; b" in page
    assert "$cost$" in page


@pytest.mark.parametrize("upto", [0.3, 1.0])
def test_every_command_of_the_page_exists(tmp_path, plan, upto):
    page = page_of(write_run(tmp_path / "run", plan, synthetic_rows(plan, upto)))
    told = set(re.findall(r"cerebras-gpt (\w+)", page))
    assert told
    assert told <= {command.callback.__name__ for command in app.registered_commands if command.callback}


def test_words_of_a_run_are_escaped(tmp_path, plan):
    evil = '<script>alert("1")</script>\x00\x1b[31m & $title </article> \u202e'
    rows = [{"kind": "start", "step": 0, "machine": evil}]
    rows += [{"kind": "sample", "step": 1, "tokens": 4096, "prompt": evil, "text": evil + " and on"}]
    plan = dataclasses.replace(plan, name=evil, reasons=(evil,), prediction=Prediction(evil, 1.5, 1.4, 1.6))
    page = page_of(write_run(tmp_path / "<b>run", plan, rows))
    assert "&lt;script&gt;alert(&quot;1&quot;)" in page
    assert "<b>run" not in page
    assert not set("\x00\x1b\u202e") & set(page)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 8, 400])
def test_page_of_a_run_in_progress(tmp_path, plan, rows):
    page = page_of(write_run(tmp_path / "run", plan, synthetic_rows(plan)[:rows]))
    assert "prediction not yet judged" in page
    assert "cerebras-gpt pretrain" in page


def test_page_of_a_folder_that_holds_only_a_plan(tmp_path, plan):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text(dataclasses.replace(plan, prediction=None).to_json(), "utf-8")
    page = page_of(tmp_path / "run")
    assert "no prediction" in page
    assert "nothing measured yet" in page


@pytest.mark.parametrize("hole", [math.nan, math.inf, None, "?"])
def test_page_survives_values_that_are_no_numbers(tmp_path, plan, hole):
    rows = synthetic_rows(plan)
    for row in rows[::3]:
        row.update({key: hole for key in ("loss", "bits_per_byte", "lr", "grad_norm", "seconds") if key in row})
    for row in rows[1::5]:
        row.pop("tokens_per_second", None)
        row.pop("loss", None)
    page_of(write_run(tmp_path / "run", plan, rows))


def test_page_of_a_run_that_diverged_at_once(tmp_path, plan):
    rows = [{**row, "loss": math.nan, "bits_per_byte": math.nan} for row in synthetic_rows(plan, upto=0.1)]
    assert "nothing measured yet" in page_of(write_run(tmp_path / "run", plan, rows))


def test_equal_runs_give_equal_pages(run):
    assert page_of(run) == page_of(run)


def test_a_folder_without_a_plan_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no run, ladder"):
        write_report([tmp_path], tmp_path / "report.html")


def test_no_run_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give at least one"):
        write_report([], tmp_path / "report.html")


def test_a_damaged_file_is_named(run):
    (run / "baselines.json").write_text('{"xz": 1.', "utf-8")
    with pytest.raises(ValueError, match=r"baselines\.json is not JSON"):
        read_run(run)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("n_runs", [1, 2])
def test_figures_have_named_axes(run, name, n_runs):
    for ax in FIGURES[name]([read_run(run)] * n_runs).axes:
        assert ax.get_xlabel()
        assert ax.get_ylabel()


@pytest.mark.parametrize("name", FIGURES)
def test_svg_takes_its_colours_from_the_page(run, name):
    svg = figure_svg(partial(FIGURES[name], [read_run(run)]), name, WIDE, "words")
    assert not re.findall(r"(?:fill|stroke): #", svg)
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= set(COLOURS)


def test_style_sheet_knows_every_colour_light_and_dark(run):
    style = re.search(r"<style>(.*?)</style>", page_of(run), re.DOTALL)
    assert style is not None
    for name in COLOURS:
        assert style[1].count(f"--{name}:") == 2


def test_long_series_stay_light(tmp_path, plan):
    plan = dataclasses.replace(plan, steps=12_000, warmup_steps=600)
    assert len(page_of(write_run(tmp_path / "run", plan, synthetic_rows(plan)))) < 300_000


@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("n", [1, 7, MOST_POINTS, MOST_POINTS + 1, 9999])
def test_thinning_keeps_short_series_and_the_range_of_long_ones(n, growing):
    x = np.arange(n) + 1.0
    thin_x, thin_y = thin(x, 2 * x, growing)
    assert len(thin_x) <= MOST_POINTS
    assert thin_y == pytest.approx(2 * thin_x)
    assert (np.diff(thin_x) > 0).all()
    assert thin_x[-1] == pytest.approx(n, rel=0.02)
    assert growing or n > MOST_POINTS or (thin_x == x).all()


@pytest.mark.parametrize("heights", [[0.5], [0.5, 0.5, 0.5], [0.1, 0.9, 0.11], [0.3, 0.2, 0.1, 0.25]])
def test_labels_are_spread_in_their_order(heights):
    moved = np.array(spread(heights, gap=0.08))
    order = np.argsort(heights, kind="stable")
    assert (np.diff(moved[order]) > 0.08 - 1e-9).all()
    assert np.abs(moved - heights).max() < 0.08 * len(heights)


def test_png_files_are_small(run, tmp_path):
    paths = write_figures(run, tmp_path / "pictures")
    assert [path.stem for path in paths] == list(FIGURES)
    assert all(path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size < 300_000 for path in paths)


def test_moments_keep_the_first_and_the_last():
    rows = [{"step": step} for step in range(20)]
    assert [row["step"] for row in moments(rows)] == [0, 2, 6, 19]
    assert [moments(rows[:n]) for n in (1, 2)] == [rows[:1], rows[:2]]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.count(1_234_567), "1.23M"),
        (words.count(999_999), "1M"),
        (words.count(512), "512"),
        (words.count(math.nan), words.MISSING),
        (words.duration(3725), "1 h 2 min"),
        (words.duration(59.7), "1 min"),
        (words.duration(0.42), "0.42 s"),
        (words.duration(200_000), "2 d 7 h"),
        (words.share(0.314), "31 %"),
        (words.share(1.0), "100 %"),
        (words.share(0.0042), "0.4 %"),
        (words.against(1.5, 2.0), "25 % below"),
        (words.against(2.0, 1.5), "33 % above"),
        (words.against(1.0, 1.001), "level with"),
    ],
)
def test_numbers_read_as_people_say_them(said, expected):
    assert said == expected


def test_the_noise_scale_is_drawn_with_the_batch_and_only_where_it_was_measured(tmp_path, plan):
    rows = synthetic_rows(plan)
    measured = read_run(write_run(tmp_path / "long", plan, rows))
    noise, batch = FIGURES["noise"]([measured]).axes[0].lines
    assert list(noise.get_ydata()) == [row["noise_scale"] for row in rows if row["kind"] == "noise"]
    assert set(batch.get_ydata()) == {plan.tokens_per_step} and batch.is_dashed()
    short = write_run(tmp_path / "short", plan, [row for row in rows if row["kind"] != "noise"])
    page = write_report([short], tmp_path / "page.html").read_text("utf-8")
    assert page.count("<figure") == len(FIGURES) - 1 and 'id="noise"' not in page


def test_ticks_are_plain_numbers(tmp_path, plan):
    rows = synthetic_rows(plan)
    slow = [{**row, "tokens_per_second": 800.0} if row["kind"] == "train" else row for row in rows]
    figure = FIGURES["throughput"]([read_run(write_run(tmp_path / "run", plan, slow))])
    figure.draw_without_rendering()
    said = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert said[:2] == ["0", "200"]


def test_a_start_at_either_end_is_no_resumption(tmp_path, plan):
    rows = [{"kind": "start", "step": step} for step in (0, 480, plan.steps)]
    assert read_run(write_run(tmp_path / "run", plan, rows)).resumed_at == [480 * plan.tokens_per_step]
