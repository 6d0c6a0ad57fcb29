"""The checklists CLAIM and TRIPOD+AI, of `checklist.md`, filled in from what a report knows."""

from collections import defaultdict
from pathlib import Path
from string import Template

from stats.report import show
from stats.report.tables import remarks

EACH = "see the tables of each label in report.md"


def checklist(studies, settings, answers, cautions, method):
    """Both checklists as Markdown; what the runs' own files do not answer is "to be written"."""
    models = [m for s in studies for m in s["models"]]
    runs = [run for m in models for run in m["runs"]]
    chosen = [(f"{name} {value}", name) for run in runs
              for name, value in (run.get("settings") or {}).items()]

    def join(values):
        return "; ".join(dict.fromkeys(str(value) for value in values if value))

    def of_runs(*names):
        return join(text for text, name in chosen if name in names)

    split = join(run.get("split_hash") for run in runs)
    groups = join(row["attribute"] for s in studies if s.get("subgroups")
                  for row in s["subgroups"]["groups"])
    facts = {
        "answers": join(answers), "cautions": join(cautions), "tables": EACH, "events": EACH,
        "question": join(f"{show.pair(c)} on {show.corpus(s)}" for s in studies
                         for c in s["comparisons"]),
        "technology": join(run.get("arch") for run in runs),
        "inits": join(show.model(m["init"]) for m in models if m["init"]),
        "data": join(f"{show.corpus(s)}, {s['images']:,} test radiographs"
                     + (f" of {s['patients']:,} patients" if s["patients"] else "")
                     for s in studies),
        "cohort": of_runs("cohort", "uncertain"),
        "preprocessing": of_runs("image_size", "normalize"),
        "missing": join(f"{show.corpus(s)}: {line}" for s in studies
                        for line in remarks(s, settings)),
        "truth": join(s["truth"]["file"] for s in studies if s.get("truth")),
        "partitions": split and f"split.json of each run (hash {split})",
        "disjoint": split and "patient", "internal": split and EACH,
        "predictors": chosen and "the radiograph alone",
        "imbalance": chosen and "each label's positives weighted in the loss",
        "software": join(f"{name} {of}" for run in runs
                         for name, of in (run.get("versions") or {}).items() if of),
        "training": join(text for text, _ in chosen), "selection": of_runs("keep"),
        "metrics": join(show.METRICS[x] for x in models[0]["mean"]),
        "statistics": method, "thresholds": chosen and EACH,
        "external": join(show.corpus(s) for s in studies if s.get("trained_on")),
        "groups": groups and f"subgroups of {groups} in report.md",
        "details": "report.json: settings, versions, SHA-256 of each file",
        "code": join((run.get("versions") or {}).get("git") for run in runs)}
    text = Path(__file__).with_name("checklist.md").read_text()
    filled = {name: fact.replace("|", "/") for name, fact in facts.items() if fact}
    return Template(text).substitute(defaultdict(lambda: "*to be written*", filled))
