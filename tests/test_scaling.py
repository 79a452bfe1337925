"""The verbs fit and predict: from run folders and tables to a law, its file, its picture and its predictions."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from cerebras_gpt.files import replace_text
from cerebras_gpt.plan.flops import training_flops
from cerebras_gpt.plan.law_file import KINDS, LawFile, fitted
from cerebras_gpt.plan.laws import HOFFMANN, PUBLISHED_SP
from cerebras_gpt.plan.points import BITS, NATS, read_table
from cerebras_gpt.plan.published import published_points
from cerebras_gpt.record import Metrics
from cerebras_gpt.report.law_points import run_point

COMPUTES = np.geomspace(1e15, 1e18, 6)


def table(path, column="loss"):
    """A CSV table of six exact points of the published law."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "flops", column])
        rows.writerows([f"run {i}", f"{c:.9g}", f"{PUBLISHED_SP.loss(c):.9g}"] for i, c in enumerate(COMPUTES))
    return path


def grid(path):
    """A JSON table of parameters and tokens around the optimum of four budgets."""
    shapes = [
        (c, HOFFMANN.optimum(c).n_parameters * k) for c in (1e18, 1e19, 1e20, 1e21) for k in (0.4, 0.7, 1, 1.5, 3)
    ]
    rows = [{"parameters": n, "tokens": c / 6 / n, "flops": c, "loss": HOFFMANN.loss(n, c / 6 / n)} for c, n in shapes]
    path.write_text(json.dumps(rows))
    return path


def run_folder(path, plan, bits, width=1):
    """A finished run, as its record would tell it."""
    path.mkdir(parents=True)
    replace_text(path / "plan.json", dataclasses.replace(plan, steps=plan.steps * width).to_json())
    metrics = Metrics(path / "metrics.jsonl")
    metrics.write("held_out", step=10, tokens=640, loss=9.0, bits_per_byte=9.0, final=False)
    metrics.write("held_out", step=plan.steps * width, tokens=plan.tokens * width, loss=2 * bits, bits_per_byte=bits)
    return path


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """Each test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)


def test_the_published_table_gives_its_law_with_intervals_deviations_and_a_verdict(call):
    code, out, err = call("fit", "--published", "sp")
    assert (code, err) == (0, "")
    assert re.search(r"exponent +0\.07171 +0\.05193 to 0\.1175 +a\n", out)
    assert re.search(r"sp 13B +2\.27e\+22 +1\.5720 +1\.5792 +-0\.46 %", out)
    assert "left out: sp 13B predicted 1.5989" in out and "-1.68 %, inside" in out
    assert "warning: the runs cannot tell the irreducible loss from 0" in out


def test_run_folders_are_points_in_bits_per_byte(call, tmp_path, tiny):
    folders = [run_folder(tmp_path / f"run{i}", tiny, 2.0 - 0.2 * i, width=3**i) for i in range(5)]
    point = run_point(folders[2], "standard")
    assert (point.n_parameters, point.n_tokens) == (tiny.architecture.n_parameters, 9 * tiny.tokens)
    assert point.flops == training_flops(tiny.architecture, 9 * tiny.tokens, "standard")
    assert (point.loss, point.name) == (1.6, "run2")
    code, out, _ = call("fit", *folders, "--formula", "standard", "--json")
    told = json.loads(out)
    assert code == 0 and (told["unit"], told["formula"]) == (BITS, "standard")
    assert list(told["deviations"]) == [f"run{i}" for i in range(5)]


def test_a_table_gives_back_the_law_it_came_from(call, tmp_path):
    code, out, _ = call("fit", table(tmp_path / "points.csv"), "--out", "law.json", "--json")
    told = json.loads(out)["constants"]
    assert code == 0 and told["exponent"]["value"] == pytest.approx(0.0737, rel=1e-3)
    code, out, _ = call("predict", "law.json", "--flops", "3e18", "--json")
    told = json.loads(out)
    assert told["loss"] == pytest.approx(PUBLISHED_SP.loss(3e18), rel=1e-4)
    assert told["low"] < told["loss"] < told["high"] and not told["reach"]["is_too_far"]
    assert "extrapolates further than the data supports" in call("predict", "law.json", "--flops", "1e20")[1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_law_survives_its_file(kind, tmp_path):
    given = read_table(grid(tmp_path / "grid.json"))
    law, fit = fitted(LawFile(kind, given.points, "6nd", given.unit))
    law.save(tmp_path / "law.json")
    again = LawFile.load(tmp_path / "law.json")
    assert again == law
    assert again.fit().constants() == fit.constants()


@pytest.mark.parametrize("kind", KINDS)
def test_every_law_has_words_a_picture_and_a_prediction(call, tmp_path, kind):
    given = (grid(tmp_path / "grid.json"), "--law", kind, "--formula", "6nd", "--out", "law.json")
    code, out, err = call("fit", *given, "--picture", "pictures/law.png")
    assert (code, err) == (0, "") and "95 % interval" in out
    assert (tmp_path / "pictures" / "law.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = call("predict", "law.json", "--flops", "2e21")
    assert (code, err) == (0, "") and "reach       extrapolates, as far as the data supports" in out


def test_other_families_are_drawn_beside_and_not_fitted(call, tmp_path):
    call("fit", "--published", "mup", "--picture", "a.png")
    code, out, _ = call("fit", "--published", "mup", "--beside", "pythia", "--picture", "b.png")
    assert code == 0 and "pythia" not in out
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_named_laws_predict_without_a_file(call):
    assert json.loads(call("predict", "published-sp", "--size", "13B", "--json")[1])["loss"] == pytest.approx(
        1.5808, abs=2e-4
    )
    assert "1.8463" in call("predict", "published-mup", "--size", "2.7B")[1]
    code, out, _ = call("predict", "epoch", "--parameters", "1e9", "--tokens", "2e10")
    assert code == 0 and "no interval: this law came without its runs" in out
    told = json.loads(call("predict", "hoffmann", "--flops", "1e21", "--json")[1])
    assert (told["n_parameters"], told["n_tokens"]) == pytest.approx(tuple(HOFFMANN.optimum(1e21)))


def test_use_asks_for_a_smaller_model(call):
    told = json.loads(call("predict", "epoch", "--flops", "1e21", "--inference-tokens", "1e12", "--json")[1])
    assert told["with_use"]["n_parameters"] < told["n_parameters"] / 2
    assert "for 1T tokens of use, the least at this loss by the law epoch" in call(
        "predict", "published-sp", "--size", "2.7B", "--inference-tokens", "1e12"
    )[1]  # fmt: skip


def test_a_likely_misprint_is_told(call):
    assert "warning: pythia-dedup 1.4B: out of line" in call("fit", "--published", "pythia-dedup", "--law", "robust")[1]


@pytest.fixture
def folder(tmp_path, tiny):
    """Tables and runs that are not what they should be."""
    table(tmp_path / "good.csv")
    table(tmp_path / "bits.csv", "bits_per_byte")
    (tmp_path / "three.json").write_text(json.dumps([{"flops": c, "loss": 2.0} for c in (1e18, 1e19, 1e20)]))
    (tmp_path / "same.json").write_text(json.dumps([{"flops": 1e18, "loss": 2.0}] * 5))
    (tmp_path / "word.csv").write_text("flops,loss\n1e18,good\n")
    (tmp_path / "nan.csv").write_text("flops,loss\n" + "1e18,nan\n" * 4)
    (tmp_path / "key.csv").write_text("flopss,loss\n1e18,2\n")
    (tmp_path / "none.csv").write_text("flops,tokens\n1e18,2\n")
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "object.json").write_text('{"a": 1}')
    fresh = run_folder(tmp_path / "begun", tiny, 1.0)
    (fresh / "metrics.jsonl").unlink()
    law, _ = fitted(LawFile("power", published_points("sp")))
    law.save(tmp_path / "law.json")
    text = (tmp_path / "law.json").read_text()
    (tmp_path / "edited.json").write_text(text.replace('"value": 0.0717', '"value": 0.0817'))
    (tmp_path / "key.json").write_text(text.replace('"formula"', '"formulae"'))
    (tmp_path / "kind.json").write_text(text.replace('"law": "power"', '"law": "powers"'))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("fit", "give finished run folders, tables of points, or --published FAMILY"),
        ("fit three.json", "a power law needs at least 4 finished runs, 3 given; train more sizes"),
        ("fit same.json", "the runs have fewer than 3 different computes"),
        ("fit nan.csv", "point 1 has loss nan; it must be finite and positive"),
        ("fit word.csv", "word.csv, row 1: point key 'loss' is 'good': input should be a valid number"),
        ("fit key.csv", "key.csv, row 1: unknown point key 'flopss'; did you mean 'flops'?"),
        ("fit none.csv", "none.csv needs one column of losses, loss or bits_per_byte, in every row"),
        ("fit text.json", "text.json is not JSON"),
        ("fit object.json", "object.json holds no table"),
        ("fit nowhere.csv", "nowhere.csv does not exist"),
        ("fit good.csv bits.csv", f"the losses are in {BITS} and in {NATS}; fit runs of one unit only"),
        ("fit begun", "begun is not finished; go on with `cerebras-gpt pretrain`"),
        ("fit good.csv --law powr", "unknown law 'powr'; did you mean 'power'?"),
        ("fit good.csv --formula cerebra", "unknown FLOP formula 'cerebra'; did you mean 'cerebras'?"),
        ("fit good.csv --law parametric", "run 0 has no n_parameters, which this law needs"),
        ("fit good.csv --law robust --irreducible 0", "a given irreducible loss goes with the law power, not robust"),
        ("fit good.csv --irreducible -1", "an irreducible loss of -1 must be 0 or more"),
        ("fit --published spp", "unknown published family 'spp'; did you mean 'sp'?"),
        ("fit --published sp --formula 6nd", "published runs are counted by the formula 'cerebras'"),
        ("fit good.csv --beside pyhia --out out.json", "unknown published family 'pyhia'; did you mean 'pythia'?"),
        ("predict law.json", "give one of --flops, --size and --parameters"),
        ("predict law.json --flops 1e20 --size 13B", "give one of --flops, --size and --parameters"),
        ("predict law.json --flops -1", "-1 FLOPs cannot be; give a positive number such as 1e18"),
        ("predict law.json --flops nan", "nan FLOPs cannot be"),
        ("predict law.json --size 13C", "unknown size '13C'; did you mean '13B'?"),
        ("predict law.json --parameters 1e9", "--parameters needs --tokens"),
        ("predict law.json --parameters 1e9 --tokens 1e9", "which needs a shape; give --flops or --size"),
        ("predict law.json --flops 1e20 --tokens 1e9", "--tokens goes with --parameters or --size"),
        ("predict law.json --flops 1e20 --inference-tokens -1", "-1 tokens of inference cannot be"),
        ("predict nowhere.json --flops 1e20", "no law at nowhere.json; make one with: cerebras-gpt fit"),
        ("predict epoc --flops 1e20", "unknown law 'epoc'; did you mean 'epoch'?"),
        ("predict edited.json --flops 1e20", "edited.json says exponent 0.0817"),
        (
            "predict key.json --flops 1e20",
            "key.json is not a law: unknown lawfile key 'formulae'; did you mean 'formula'?",
        ),
        ("predict kind.json --flops 1e20", "kind.json is not a law: unknown law 'powers'; did you mean 'power'?"),
    ],
)
def test_a_mistake_is_one_line(call, folder, command, words):
    before = sorted(folder.rglob("*"))
    code, out, err = call(*command.split())
    assert (code, out) == (2, ""), err
    assert words in err and err.startswith("cerebras-gpt: ") and err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_evaluated_runs_give_a_law_of_accuracy(call, tmp_path, tiny):
    folders = [run_folder(tmp_path / f"run{i}", tiny, 2.0, width=4**i) for i in range(5)]
    for i, folder in enumerate(folders):
        loss = 0.5 + 2.0 * 0.8**i
        metrics = {"acc": {"value": 0.5 + 0.5 / (1 + np.exp(2 * loss - 2)), "stderr": 0.01}}
        found = {"chance": 0.5, "metrics": {**metrics, "bits_per_byte": {"value": loss, "stderr": 0.01}}}
        (folder / "evaluations").mkdir()
        (folder / "evaluations" / "blimp-0-abc.json").write_text(json.dumps(found))
    code, out, _ = call("fit", *folders, "--task", "blimp", "--flops", "1e12", "--json")
    told = json.loads(out)
    assert code == 0 and [point["name"] for point in told["points"]] == [f"run{i}" for i in range(5)]
    assert told["sigmoid"]["steepness"] == pytest.approx(2, rel=0.01)
    (predicted,) = told["predicted"]
    assert predicted["accuracy"]["low"] < predicted["accuracy"]["value"] < predicted["accuracy"]["high"]
    assert "1e+12 predicted" in call("fit", *folders, "--task", "blimp", "--flops", "1e12")[1]
    code, _, told = call("fit", *folders, "--task", "piqa")
    assert code == 2 and "has no zero-shot score of piqa" in told
