"""A report takes whatever the other verbs leave, knows each by its file, and draws it."""

import json

import pytest

from cerebras_gpt.plan.law_file import LawFile, fitted
from cerebras_gpt.plan.laws import EPOCH
from cerebras_gpt.plan.published import published_points
from cerebras_gpt.report.downstream_figures import Score, downstream_figure, read_downstream
from cerebras_gpt.report.kinds import pictures_of
from cerebras_gpt.report.page import write_report
from cerebras_gpt.report.trade_figures import trade_figure

SCORES = [{"flops": 10.0**n, "score": 0.1 * n, "error": 0.01, "name": "arc <b>"} for n in (2, 3, 4)]


@pytest.fixture
def law(tmp_path):
    path = tmp_path / "law.json"
    fitted(LawFile("power", tuple(published_points("sp"))))[0].save(path)
    return path


def test_a_law_a_check_and_scores_make_one_page(tmp_path, law):
    check, scores = tmp_path / "check", tmp_path / "scores"
    transfer = {"rates": [0.01, 0.02, 0.04], "loss_by_width": {"16": [3.0, 2.5, 2.8], "32": [2.9, 2.4, None]}}
    transfer["loss_by_width"]["32"][2] = 2.7
    for folder, name, value in (
        (check, "check.json", [{"parametrization": "mup", "transfer": transfer}]),
        (scores, "downstream.json", SCORES),
    ):
        folder.mkdir()
        (folder / name).write_text(json.dumps(value))
    page = write_report([law, check, scores], tmp_path / "page.html").read_text("utf-8")
    assert page.count("<svg") == 2 * 3  # for a desk and for a phone
    assert "90 % of runs" in page and "width 32" in page and "arc &lt;b&gt;" in page


def test_what_is_none_of_the_known_kinds_is_refused_by_its_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"known by its plan\.json, ladder\.json, check\.json"):
        pictures_of(tmp_path)


def test_scores_with_other_keys_are_refused(tmp_path):
    (tmp_path / "downstream.json").write_text('[{"flops": 1}]')
    with pytest.raises(ValueError, match="no list of flops, score, error, name"):
        read_downstream(tmp_path)


def test_every_task_is_a_line():
    figure = downstream_figure([Score(1e3, 0.1, 0.01, "a"), Score(1e4, 0.2, 0.01, "a"), Score(1e3, 0.3, 0.01, "b")])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a", "b"]


def test_more_use_asks_for_a_smaller_model():
    marks = [line for line in trade_figure(*EPOCH.optimum(1e21)).axes[0].lines if line.get_marker() == "o"]
    sizes = [float(line.get_xdata()[0]) for line in marks]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.5 * sizes[0]
