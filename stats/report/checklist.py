"""The checklists CLAIM and TRIPOD+AI, of `checklist.md`, filled in from what a report knows."""

from collections import defaultdict
from pathlib import Path
from string import Template

from stats.report import show
from stats.report.tables import remarks


def checklist(studies, settings, answers, cautions, method):
    """Both checklists as Markdown; what the runs' own files do not answer is "to be written"."""
    models = [m for s in studies for m in s.models]
    runs = [run for m in models for run in m.runs]
    chosen = [item for run in runs for item in (run.settings or {}).items()]
    versions = [item for run in runs for item in (run.versions or {}).items() if item[1]]
    split = "; ".join({run.split_hash: 0 for run in runs if run.split_hash})
    facts = {  # what there is to say of each; nothing, where it is not known
        "answers": answers, "cautions": cautions, "statistics": [method],
        "question": [f"{show.pair(c)} on {show.corpus(s)}" for s in studies
                     for c in s.comparisons],
        "technology": [f"deep learning: {run.arch}" for run in runs if run.arch],
        "inits": [m.init and show.model(m.init) for m in models],
        "data": [f"{show.corpus(s)}, {s.images:,} test radiographs"
                 + (f" of {s.patients:,} patients" if s.patients else "") for s in studies],
        "missing": [f"see {show.corpus(s)}: left out, in report.md" for s in studies
                    if remarks(s, settings)],
        "truth": [s.truth["file"] for s in studies if s.truth],
        "partitions": [split and f"split.json of each run (hash {split})"],
        "internal": [split and f"the held-out patients of {show.corpus(s)}" for s in studies
                     if not s.trained_on],
        "disjoint": [split and "patient"], "predictors": ["the radiograph alone"] if chosen else [],
        "imbalance": ["each label's positives are weighted in the loss"] if chosen else [],
        "software": [f"{name} {version}" for name, version in versions],
        "training": [f"{name} {value}" for name, value in chosen],
        "metrics": [show.metric_title(x) for x in models[0].mean],
        "external": [show.corpus(s) for s in studies if s.trained_on],
        "groups": [f"subgroups of {row.attribute} in report.md" for s in studies
                   if s.subgroups for row in s.subgroups.groups],
        "code": [version for name, version in versions if name == "git"]}
    for key, names in (("cohort", ("cohort", "uncertain")), ("selection", ("keep",)),
                       ("preprocessing", ("image_size", "normalize"))):
        facts[key] = [f"{name} {value}" for name, value in chosen if name in names]
    filled = {key: "; ".join(dict.fromkeys(x.replace("|", "/") for x in found if x))
              for key, found in facts.items()}
    text = Path(__file__).with_name("checklist.md").read_text()
    return Template(text).substitute(defaultdict(lambda: "*to be written*", {
        key: fact for key, fact in filled.items() if fact}))
