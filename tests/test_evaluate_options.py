"""What evaluate.py's options change: resamples, families, metrics, margins, subgroups."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluations import CSVS, fails, write_csvs
from sklearn.metrics import roc_auc_score

import evaluate

pytest_plugins = ["evaluations"]  # here
pytestmark = pytest.mark.usefixtures("blank_figures")


def test_settings_change_what_they_say(here):
    write_csvs(here)

    def report(*arguments):
        assert evaluate.main([*CSVS, *arguments]) == 0
        return (here / "reports" / "report.md").read_text(), json.loads(
            (here / "reports" / "report.json").read_text()
        )

    def mean(found):
        return found["studies"][0]["comparisons"][0]["mean"]

    text, plain = report()
    assert "200 bootstrap resamples with seed 0 (patients drawn, each with all" in text
    assert "found anew in each resample" in text and "two-sided" in text
    text, by_image = report("--resample", "image")
    assert "radiographs drawn singly" in text
    assert mean(by_image)["sd_over_replicates"] != mean(plain)["sd_over_replicates"]
    text, one_sided = report("--p-value", "paper")
    assert "the model that is better on the whole is not" in text
    assert "called 22 % of null means" in text
    assert mean(one_sided)["p_value"] < mean(plain)["p_value"]
    _, other = report("--seed", "1")
    assert mean(other)["sd_over_replicates"] != mean(plain)["sd_over_replicates"]
    text, _ = report("--family", "report")
    assert "of a label over the labels of all comparisons of this report" in text


def test_few_resamples_are_warned_about(here, capsys):
    write_csvs(here)
    assert evaluate.main([*CSVS[:-1], "50"]) == 0
    assert "warning: with 50 resamples no p-value can go under 0.039" in capsys.readouterr().err


def test_a_billion_resamples_end_in_one_line(here, capsys):
    write_csvs(here)
    fails(capsys, [*CSVS[:-1], "1000000000000"], "n_resamples", "GiB; this machine has")


def test_the_family_is_the_one_asked_for(here):
    write_csvs(here)
    shutil.copy("A.csv", "C.csv")
    text = Path("C.csv").read_text().splitlines()
    Path("C.csv").write_text(
        "\n".join([text[0], *(f"{x},0.1" for x in (line.rpartition(",")[0] for line in text[1:]))])
    )
    arguments = ["--predictions", "A.csv", "B.csv", "C.csv", *CSVS[3:]]
    sizes = []
    for family in ("comparison", "report"):
        assert evaluate.main([*arguments, "--family", family]) == 0
        found = json.loads(Path("reports/report.json").read_text())["studies"][0]["comparisons"]
        sizes.append(found[0]["labels"]["Edema"]["family_size"])
        assert found[0]["mean"]["family_size"] == 3
    assert sizes == [2, 6]


def test_further_metrics_margins_and_max_t(here, capsys):
    from sklearn.metrics import average_precision_score, brier_score_loss

    write_csvs(here)
    asked = ["--metrics", "average_precision", "brier", "--margin", "40", "--adjust", "max-t"]
    assert evaluate.main([*CSVS, *asked]) == 0
    assert "equivalent within 40 points" in capsys.readouterr().out
    found = json.loads(Path("reports/report.json").read_text())
    assert found["settings"]["margin"] == 40 and found["settings"]["adjust"] == "max-t"
    (found,) = found["studies"]
    assert found["margin"] == 0.4  # of AUC
    assert evaluate.main([*CSVS, "--out", "bh"]) == 0
    (other,) = json.loads(Path("bh/report.json").read_text())["studies"]
    adjusted, by_bh = ([t["p_adjusted"] for t in s["comparisons"][0]["labels"].values()]
                       for s in (found, other))
    assert adjusted != by_bh and max(adjusted) < 1
    truth, a = (np.loadtxt(f"{name}.csv", delimiter=",", skiprows=1, usecols=2)
                for name in ("truth", "A"))
    cells = found["models"][0]["labels"]["Edema"]["metrics"]
    assert cells["average_precision"]["value"] == pytest.approx(average_precision_score(truth, a))
    assert cells["brier"]["value"] == pytest.approx(brier_score_loss(truth, a))
    assert found["comparisons"][0]["mean"]["p_equivalent"] < 0.05
    assert evaluate.main([*CSVS, "--metrics", "all", "--net-benefit-at", "0.3"]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    calls, n = a >= 0.3, len(a)
    benefit = (calls & (truth == 1)).sum() / n - (calls & (truth == 0)).sum() / n * 0.3 / 0.7
    cells = found["models"][0]["labels"]["Edema"]["metrics"]
    assert cells["net_benefit"]["value"] == pytest.approx(benefit)
    shutil.rmtree("reports")
    capsys.readouterr()
    fails(capsys, [*CSVS, "--margin", "0"], "--margin 0.0: expected points")
    fails(capsys, [*CSVS, "--net-benefit-at", "1.5"], "--net-benefit-at 1.5: expected a prob")


def write_people(folder, columns):
    """`write_csvs` with further columns in A."""
    write_csvs(folder)
    header, *lines = (folder / "A.csv").read_text().splitlines()
    rows = [",".join([line, *(str(of(k)) for of in columns.values())])
            for k, line in enumerate(lines)]
    (folder / "A.csv").write_text("\n".join([",".join([header, *columns]), *rows, ""]))


def test_subgroups_of_a_csv_and_of_covariates(here, capsys):
    write_people(here, {"sex": lambda k: "fm"[k // 2 % 2], "age": lambda k: 20 + k // 2,
                        "view": lambda k: ["PA", "AP", ""][k % 3]})
    Path("sites.csv").write_text("id,scanner,site\n" + "".join(
        f"s{k},{'xy'[k % 2]},\n" for k in range(70)))
    Path("patients.csv").write_text("patient,scanner\n" + "".join(
        f"{k},{'xy'[k % 2]}\n" for k in range(35)))
    asked = ["--subgroups", "sex", "age", "view", "scanner", "--min-count", "4"]
    assert evaluate.main([*CSVS, *asked, "--covariates", "sites.csv"]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    assert sorted(found["labels"]) == ["Edema", "Effusion"]  # sex, age and view are none
    groups = {(row["attribute"], row["group"]): row for row in found["subgroups"]["groups"]}
    assert list(groups) == [("sex", "F"), ("sex", "M"), ("age", "0 to 39"), ("age", "40 to 59"),
                            ("view", "AP"), ("view", "PA"), ("scanner", "x"), ("scanner", "y")]
    truth, a = (np.loadtxt(f"{name}.csv", delimiter=",", skiprows=1, usecols=columns)
                for name, columns in (("truth", (2, 3)), ("A", (2, 1))))
    everybody = np.arange(80)
    for key, rows in ((("sex", "F"), everybody // 2 % 2 == 0), (("view", "AP"), everybody % 3 == 1),
                      (("age", "40 to 59"), everybody >= 40),
                      (("scanner", "x"), (everybody < 70) & (everybody % 2 == 0))):
        assert groups[key]["images"] == rows.sum()
        expected = np.mean([roc_auc_score(truth[rows, k], a[rows, k]) for k in range(2)])
        assert groups[key]["models"]["A"]["auroc"]["value"] == pytest.approx(expected)
    assert evaluate.main([*CSVS, *asked, "--covariates", "patients.csv"]) == 0
    (found,) = json.loads(Path("reports/report.json").read_text())["studies"]
    (row,) = [row for row in found["subgroups"]["groups"] if row["group"] == "x"]
    assert row["images"] == 36 and row["patients"] == 18
    Path("others.csv").write_text("id,site\nt1,a\nt2,b\n")
    capsys.readouterr()
    assert evaluate.main([*CSVS, "--subgroups", "site", "--covariates", "others.csv"]) == 0
    assert "warning: predictions: not compared: site: not known" in capsys.readouterr().err
    shutil.rmtree("reports")
    capsys.readouterr()
    fails(capsys, [*CSVS, "--subgroups", "gender"], "--subgroups gender: expected sex, age, view")
    fails(capsys, [*CSVS, "--covariates", "sites.csv"], "--covariates: say which of its columns")
    Path("two.csv").write_text("id,site\ns0,a\ns0,b\n")
    fails(capsys, [*CSVS, "--subgroups", "site", "--covariates", "two.csv"],
          "two.csv: site: an id is in two groups")
    write_people(here, {"sex": lambda k: "x"})
    fails(capsys, CSVS, "A.csv: line 2, sex: expected F, M or nothing, found 'x'")
