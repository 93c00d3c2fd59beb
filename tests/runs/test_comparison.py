"""Runs ranked without labels: the order, the correlation, the figure, and what does not compare."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import rankdata

from diet_lightning.__main__ import main
from diet_lightning.errors import ConfigurationError
from diet_lightning.figures.curves import loss_against_probe
from diet_lightning.figures.style import COLOURS, save_figure
from diet_lightning.runs.comparison import PROBE, choose_metric, rank_agreement, ranked, read_run, read_runs


def entropy(count, smoothing):
    """Of the smoothed target, from its definition."""
    target = np.full(count, smoothing / count)
    target[0] += 1.0 - smoothing
    return float(-(target[target > 0] * np.log(target[target > 0])).sum())


def write_run(folder, gaps, accuracies=None, smoothing=0.8, count=1347, ranks=None, **changes):
    """A run's folder as `diet fit` leaves it, but for its checkpoint."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    record = {
        "num_samples": count,
        "fingerprint": "0" * 32,
        "input_shape": [1, 8, 8],
        "num_classes": 10,
        "class_names": None,
        "source": "digits",
        "backbone": "resnet8",
        "target": "index",
        "label_smoothing": smoothing,
        "data": None,
        "batch_size": 128,
        "versions": {"torch": "2.6"},
    }
    (folder / "run.json").write_text(json.dumps(record))
    model = {"head": {"temperature": 1.0}}
    data = {"subset": None, "image_size": None, "strength": 3, **changes}
    trainer = {"max_epochs": len(gaps), "max_steps": -1, "max_time": None}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    rows = [{"step": "9", "train/loss_step": "7.2"}, {"epoch": 0, "step": 9, "train/loss_step": 7.1}]
    for epoch, gap in enumerate(gaps):
        if accuracies is not None and accuracies[epoch] is not None:
            rows.append({"epoch": epoch, "step": 10, PROBE: accuracies[epoch]})
        row = {"epoch": epoch, "train/loss": np.float32(gap + entropy(count, smoothing)), "train/loss_gap": gap}
        rows.append(row | ({"val/rankme": ranks[epoch]} if ranks else {}))
    names = sorted({name for row in rows for name in row})
    with (folder / "metrics.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
    return str(folder)


def diet_compare(capsys, *args):
    """Output and the last line's object."""
    assert main(["compare", *map(str, args)]) == 0
    output = capsys.readouterr().out
    return output, json.loads(output.splitlines()[-1])


def test_run_of_diet_fit_is_read_as_it_was(caplog, tmp_path):
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    options = ["--model.backbone=resnet8_w16", "--data.subset=300", "--model.label_smoothing=0.3"]
    assert main(["fit", "--config", "debug", "--run_dir", "run", *quiet, *options]) == 0
    (tmp_path / "run/checkpoints/last.ckpt").unlink()
    run = read_run("run")
    assert (run.record.backbone, run.epochs, run.planned_epochs, run.record.num_samples) == ("resnet8_w16", 2, 2, 300)
    assert run.group == ("digits, subset 300", "index", 0.3)
    (gap, accuracy) = run.paired(PROBE)[-1]
    (finished,) = [line for line in caplog.messages if line.startswith("Finished")]
    for name, value in (("train/loss_gap", gap), (PROBE, accuracy)):
        assert f"{name} {value:.4f}" in finished


def test_number_of_samples_is_the_records_to_the_last_digit(capsys):
    said = diet_compare(capsys, write_run("run", [0.9, 0.8], count=123_457, smoothing=0.0))[1]
    assert said["ranking"][0]["num_samples"] == 123_457


def test_run_without_a_configuration_is_named_by_its_data(capsys):
    for name, gap in (("a", 0.9), ("b", 0.8)):
        write_run(name, [gap])
        Path(name, "config.yaml").unlink()
    record = json.loads(Path("b/run.json").read_text())
    Path("b/run.json").write_text(json.dumps({**record, "source": None, "backbone": None, "fingerprint": "ab" * 16}))
    rows = diet_compare(capsys, "a", "b")[1]["ranking"]
    assert [(row["data"], row["backbone"]) for row in rows] == [
        ("data set abababababababab", "custom module"),
        ("digits", "resnet8"),
    ]
    assert [row["planned_epochs"] for row in rows] == [None, None]


def test_ranked_by_the_gap_of_the_last_epoch_within_a_smoothing(capsys):
    write_run("worst", [0.6, 0.9], [0.5, 0.9])
    write_run("best", [0.9, 0.7], [0.5, 0.8])
    write_run("middle", [0.9, 0.8], [0.5, 0.6])
    write_run("other", [3.0, 2.0], [0.5, 0.95], smoothing=0.2)
    output, said = diet_compare(capsys, "worst/", "best", "other", "middle")
    order = [(row["label_smoothing"], row["place"], row["run"]) for row in said["ranking"]]
    assert order == [(0.2, 1, "other"), (0.8, 1, "best"), (0.8, 2, "middle"), (0.8, 3, "worst")]
    assert [output.index(name) for name in ("other", "best", "middle", "worst")] == sorted(
        output.index(name) for name in ("other", "best", "middle", "worst")
    )
    assert "are comparable at one label smoothing only" in output
    # gaps 0.9, 0.7, 0.8 with accuracies 0.9, 0.8, 0.6: ranks of -gap 1, 3, 2 and of accuracy 3, 2, 1
    (few, three) = said["correlations"]
    assert (few["runs"], few["spearman"]) == (1, None)
    assert (three["runs"], three["spearman"]) == (3, pytest.approx(1 - 6 * (4 + 1 + 1) / (3 * 8)))
    assert "label smoothing 0.2: none, n = 1 (needs three runs" in output
    assert said["over_all"]["runs"] == 4
    rows = list(csv.DictReader(Path("compare/compare.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["other", "best", "middle", "worst"]
    assert [float(row["train/loss_gap"]) for row in rows] == [2.0, 0.7, 0.8, 0.9]
    assert Path("compare/figure1.png").read_bytes()[:4] == b"\x89PNG"


def test_correlation_is_spearmans_and_its_sign_is_that_of_agreement():
    generator = np.random.default_rng(0)
    gaps = generator.normal(size=40)
    accuracies = -gaps + generator.normal(size=40)
    accuracies[:6] = accuracies[6]  # ties
    found = rank_agreement(list(gaps), list(accuracies))
    by_hand = np.corrcoef(rankdata(-gaps), rankdata(accuracies))[0, 1]
    assert found.spearman == pytest.approx(by_hand)

    draws = [generator.integers(40, size=40) for _ in range(2000)]
    resampled = [np.corrcoef(rankdata(-gaps[d]), rankdata(accuracies[d]))[0, 1] for d in draws]
    assert found[2:] == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.1)
    assert rank_agreement([0.3, 0.2, 0.1], [0.1, 0.2, 0.3])[:3] == (3, pytest.approx(1.0), None)
    assert rank_agreement([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4])[:3] == (4, pytest.approx(-1.0), None)


@pytest.mark.parametrize(
    ("gaps", "accuracies"),
    [([], []), ([0.2, 0.1], [0.1, 0.2]), ([0.1, 0.1, 0.1], [0.1, 0.2, 0.3]), ([0.1, 0.2, 0.3], [0.5, 0.5, 0.5])],
)
def test_no_correlation_where_there_is_none(gaps, accuracies):
    assert rank_agreement(gaps, accuracies) == (len(gaps), None, None, None)


def test_without_labels_the_table_ranks_and_says_what_it_cannot(capsys):
    for name, gap in (("a", 0.8), ("b", 0.7), ("c", 0.75)):
        write_run(name, [0.9, gap], ranks=[20.0, 100 * gap])
    output, said = diet_compare(capsys, "a", "b", "c")
    assert [row["run"] for row in said["ranking"]] == ["b", "c", "a"]
    assert (said["metric"], said["correlations"], said["over_all"]) == (None, [], None)
    assert [row["val/rankme"] for row in said["ranking"]] == [70.0, 75.0, 80.0]
    assert "RankMe" in output
    assert "top1" not in output.rpartition("\n{")[0]
    assert "accuracy is unknown, and Figure 1 cannot be drawn" in " ".join(output.split())
    assert {path.name for path in Path("compare").iterdir()} == {"compare.csv"}


def test_metric_falls_back_and_can_be_chosen(capsys):
    for name, gap, top1 in (("a", 0.8, 0.5), ("b", 0.7, 0.7), ("c", 0.75, 0.6)):
        write_run(name, [0.9, gap])
        entry = {"value": top1, "low": top1 - 0.1, "high": top1 + 0.1}
        Path(name, "evaluation.json").write_text(json.dumps({"test/linear_top1": entry}))
    output, said = diet_compare(capsys, "a", "b", "c")
    assert said["metric"] == "test/linear_top1"
    assert said["correlations"][0]["spearman"] == pytest.approx(1.0)
    assert "70.0%" in output
    write_run("d", [0.9, 0.6], [0.3, None])
    output, said = diet_compare(capsys, "a", "b", "c", "d", "--output", "two")
    assert said["metric"] == PROBE
    assert said["ranking"][0][PROBE] == 0.3  # the last that was measured
    assert "Without val/probe_top1, so ranked only: b, c, a." in " ".join(output.split())
    _, said = diet_compare(capsys, "a", "b", "c", "d", "--metric", "test/linear_top1", "--output", "three")
    assert said["correlations"][0]["runs"] == 3
    with pytest.raises(ConfigurationError, match=r"one of \['test/linear_top1', 'val/probe_top1'\], but got 'top1'"):
        choose_metric(read_runs(["a", "d"]), "top1")
    with pytest.raises(ConfigurationError, match="Expected argument `runs` to name run folders, but got none"):
        read_runs([])


def test_runs_of_different_data_or_targets_are_ranked_apart(capsys):
    names = [write_run(f"digits{n}", [0.9 - n / 10], [0.5 + n / 10]) for n in range(3)]
    names += [write_run(f"part{n}", [0.9 - n / 10], [0.5], subset=200, count=200) for n in range(2)]
    output, said = diet_compare(capsys, *names)
    assert [(row["data"], row["place"]) for row in said["ranking"]] == [
        ("digits", 1),
        ("digits", 2),
        ("digits", 3),
        ("digits, subset 200", 1),
        ("digits, subset 200", 2),
    ]
    text = " ".join(output.split())
    assert "different data are not comparable, so each is ranked separately: digits; digits, subset 200." in text
    assert said["over_all"] is None
    assert [each["runs"] for each in said["correlations"]] == [3, 2]
    assert not Path("compare/figure1.png").exists()


def test_what_moves_the_loss_besides_is_said(capsys):
    write_run("a", [0.9])
    write_run("b", [0.8], strength=1)
    write_run("c", [0.7], count=1000)
    write_run("d", [2.7], smoothing=0.2, strength=2)
    text = " ".join(diet_compare(capsys, "a", "b", "c", "d")[0].split())
    assert "differ in data.strength, which changes the loss by itself" in text
    assert "number of samples differs within digits (1,000 to 1,347)" in text


def test_unfinished_run_says_how_far_it_came(capsys):
    write_run("a", [0.9, 0.8])
    config = yaml.safe_load(Path("a/config.yaml").read_text())
    config["trainer"]["max_epochs"] = 40
    Path("a/config.yaml").write_text(yaml.safe_dump(config))
    output, said = diet_compare(capsys, "a")
    assert "2 of 40" in output
    assert (said["ranking"][0]["epochs"], said["ranking"][0]["planned_epochs"]) == (2, 40)


def test_gaps_that_are_no_numbers_do_not_rank():
    write_run("a", [0.9, 0.8, math.nan])
    assert read_run("a").loss_gap == 0.8
    write_run("b", [math.inf])
    with pytest.raises(ConfigurationError, match="Run 'b' has no train/loss_gap"):
        read_run("b")


@pytest.fixture
def wrong(tmp_path):
    """Folders that are no runs."""
    write_run("good", [0.9], [0.5])
    (tmp_path / "empty").mkdir()
    for name in ("stepless", "listed", "binary", "torn", "unrecorded", "halved"):
        write_run(name, [0.9])
    (tmp_path / "stepless/metrics.csv").unlink()
    (tmp_path / "listed/config.yaml").write_text("- 1\n")
    (tmp_path / "binary/metrics.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "torn/evaluation.json").write_text('{"test/lin')
    (tmp_path / "unrecorded/run.json").unlink()
    (tmp_path / "halved/run.json").write_text('{"num_sam')
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/compare.csv").write_text("precious")
    (tmp_path / "file").write_text("in the way")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["good", "nowhere"], "Run folder 'nowhere' holds no run.json: give the folder of a run of `diet fit`, or"),
        (["empty"], "Run folder 'empty' holds no run.json"),
        (["unrecorded"], "Run folder 'unrecorded' holds no run.json"),
        (["halved"], "'halved/run.json' cannot be read (JSONDecodeError"),
        (["good", "stepless"], "Run 'stepless' has no train/loss_gap in metrics.csv"),
        (["listed"], "config.yaml of run 'listed' cannot be read (AttributeError"),
        (["binary"], "'binary/metrics.csv' cannot be read"),
        (["torn"], "'torn/evaluation.json' cannot be read"),
        (["good", "empty/../good"], "Run 'empty/../good' is given twice ('good')"),
        (["good", "--metric", "f1"], "one of ['val/probe_top1'], but got 'f1'"),
        (["good", "--output", "taken"], "'taken/compare.csv' exists: move it, or choose another `output`"),
        (["good", "--output", "file/below"], "'file/below/compare.csv' cannot be written"),
    ],
)
def test_bad_input_is_told_in_a_sentence(wrong, tmp_path, capsys, args, words):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["compare", *args]) == 1
    said = capsys.readouterr().err
    assert said.startswith("diet: error: ")
    assert len(said.splitlines()) == 1
    assert words in said
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_no_runs_at_all_name_the_argument(capsys):
    assert main(["compare"]) == 2
    assert "Missing argument: RUN" in capsys.readouterr().err


def test_figure_shows_every_epoch_and_end_by_smoothing_and_model(tmp_path):
    losses = [np.array([0.9, 0.8]), np.array([4.0, 3.0, 2.0]), [0.7]]
    accuracies = [np.array([0.2, 0.5]), np.array([0.1, 0.6, 0.7]), [0.8]]
    notes = {0.2: "Spearman 0.90", 0.8: "none"}
    figure = loss_against_probe(losses, accuracies, [0.8, 0.2, 0.8], ["net_w8", "net_w16", "net_w16"], notes)
    (axis,) = figure.axes
    lines, ends = axis.get_lines()[::2], axis.get_lines()[1::2]
    for line, end, loss, accuracy in zip(lines, ends, losses, accuracies, strict=True):
        np.testing.assert_allclose(line.get_xydata(), np.stack([loss, 100 * np.asarray(accuracy)], axis=1))
        np.testing.assert_allclose(end.get_xydata(), [[loss[-1], 100 * accuracy[-1]]])
    assert [end.get_color() for end in ends] == [COLOURS[1], COLOURS[0], COLOURS[1]]
    assert [end.get_marker() for end in ends] == ["o", "s", "s"]
    written = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert written == ["smoothing 0.2: Spearman 0.90", "smoothing 0.8: none", "net_w8", "net_w16"]
    save_figure(figure, tmp_path / "f.png")
    many = loss_against_probe([[1.0]] * 8, [[0.5]] * 8, [n / 10 for n in range(8)], ["one"] * 8)
    assert len({end.get_color() for end in many.axes[0].get_lines()[1::2]}) == 8
    assert len(many.legends) == 1


def test_groups_keep_their_order():
    names = [
        write_run(f"r{n}", [gap], smoothing=smoothing) for n, (gap, smoothing) in enumerate([(0.9, 0.8), (2, 0.1)])
    ]
    assert [group.label_smoothing for group in ranked(read_runs(names))] == [0.1, 0.8]
