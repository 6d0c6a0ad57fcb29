"""Which predictions are compared with each other, and under which names."""

from dataclasses import dataclass, replace

import numpy as np

from stats.predictions import align

SHARED = "labels shared with MIMIC-CXR"


@dataclass(frozen=True)
class Group:
    """Models that are compared on the same images and labels, aligned and with `meta["name"]`.

    `trained_on` is their corpus where it is not that of the images; `variant` says which labels
    these are where they are not all of the corpus's, `label_set` which of the paper's tables is
    about them: "all" (none), "table3" or "mimic-overlap"; `left_out` are labels that some lack.
    """

    corpus: str
    synthetic: bool
    trained_on: str | None
    variant: str | None
    label_set: str
    models: list
    left_out: list


def comparison_groups(found, table3, overlap, *, by_labels, only_shared=False):
    """Sort `Predictions` into `Group`s of the same test set.

    `table3` and `overlap` are dicts of corpus -> labels: all of the paper's corpora, and those that
    they share with MIMIC-CXR. `by_labels` compares models of the same labels only, rather than on
    the labels that they have in common; `only_shared` keeps those shared with MIMIC-CXR alone. If
    models were tested on another corpus than their own, the labels that all corpora have are kept.
    """
    only = overlap if only_shared else None
    if any(p.meta.get("trained_on") for p in found):
        shared = [x for x in merged(found[0].labels) if all(x in merged(p.labels) for p in found)]
        only = dict.fromkeys([p.meta["corpus"] for p in found], shared)
    order = {corpus: at for at, corpus in enumerate(table3)}
    tests = {}
    for p in sorted(_with_corpus(found), key=lambda p: order.get(p.meta["corpus"], len(order))):
        key = p.meta["corpus"], bool(p.meta.get("synthetic")), p.meta.get("trained_on")
        tests.setdefault(key, []).append(p)
    groups = []
    for (corpus, synthetic, trained_on), models in tests.items():
        variants = {None: models}
        if by_labels and not only:
            variants = _by_labels(models, table3.get(corpus, models[0].labels),
                                  overlap.get(corpus, models[0].labels))
        for variant, same in variants.items():
            same = _named(same)
            if only and corpus not in only:
                raise ValueError("--labels mimic-overlap: "
                                 f"{same[0].meta['name']} is of no known corpus")
            same, left_out = align([keep_labels(m, only[corpus]) for m in same] if only else same)
            left_out = {*left_out, *(x for m in same for x in m.meta.get("labels_left_out", ()))}
            named, wanted = (("mimic-overlap", overlap) if only or variant == SHARED else
                             ("table3", table3))
            # The paper's tables are about the whole of a corpus's own test set.
            known = set(same[0].labels) == set(wanted.get(corpus, ())) and not any(
                m.meta.get(key) for m in same for key in ("trained_on", "truth", "excluded"))
            groups.append(Group(corpus, synthetic, trained_on, variant, named if known else "all",
                                same, sorted(left_out)))
    return groups


def _by_labels(models, table3, overlap):
    """Models of the same labels: dict of variant -> models, those of all the labels first."""
    variants = {frozenset(table3): None}
    variants.setdefault(frozenset(overlap), SHARED)  # where these are not all
    others = sorted({frozenset(m.labels) for m in models} - set(variants), key=sorted)
    variants |= {labels: f"other labels {number}" for number, labels in enumerate(others, 1)}
    found = {variant: [m for m in models if frozenset(m.labels) == labels]
             for labels, variant in variants.items()}
    return {variant: same for variant, same in found.items() if same}


def _with_corpus(found):
    """With `meta["corpus"]`: files that do not say it have that of a file of the same images."""
    known = {frozenset(p.image_id.tolist()): p.meta for p in found if p.meta.get("corpus")}
    for p in found:
        of = known.get(frozenset(p.image_id.tolist()), {"corpus": "predictions"})
        of = p.meta if p.meta.get("corpus") else of
        yield replace(p, meta=p.meta | {key: of.get(key) for key in ("corpus", "synthetic")})


def _named(models):
    """With `meta["name"]`, which runs of one init share; the paper's inits come first.

    A name that was given stays. Else it is the init, with every setting in which runs of that init
    differ; or the run, where the init is not known.
    """
    order = {init: at for at, init in enumerate(("dinov2", "imagenet", "mimic"))}
    models = sorted(models, key=lambda m: order.get(m.meta.get("init"), len(order)))
    kinds = [{"arch": m.meta.get("arch"), "labels": len(m.labels)} | (m.meta.get("settings") or {})
             for m in models]
    found, seen = [], {}
    for m, mine in zip(models, kinds):
        init, run, name = (m.meta.get(key) for key in ("init", "run", "name"))
        if not name:
            same = [o for other, o in zip(models, kinds) if init and other.meta.get("init") == init]
            differ = [key for key in mine if any(o.get(key) != mine[key] for o in same)]
            name = ", ".join([init or run, *(f"{key} {mine[key]}" for key in differ)])
            if not init and name in [o.meta["name"] for o in found]:
                raise ValueError(f"two predictions of the same name: {name}; name them by "
                                 "NAME=FILE, or give runs of one init as NAME=FILE,FILE")
        key = name, m.meta.get("checkpoint_sha256") or m.y_score.tobytes()
        if key in seen:
            raise ValueError(f"{name}: {seen[key]} and {run} are one and the same run")
        seen[key] = run
        found.append(replace(m, meta=m.meta | {"name": name}))
    return found


def merged(labels):
    """The names of labels without their sides: UKA-CXR has "Pneumonia right" and "... left"."""
    return list(dict.fromkeys(x.removesuffix(" right").removesuffix(" left") for x in labels))


def keep_labels(model, wanted):
    """Some of a model's labels; "X" is made of "X right" and "X left" where it has these.

    The score is the larger of the two; the truth is positive if either side is, else unknown if
    either is, else negative. A label made so has no threshold. Wanted labels that the model lacks
    are passed over; ValueError if it has none.
    """
    columns = {}
    for label in wanted:
        names = [label] if label in model.labels else [f"{label} right", f"{label} left"]
        if set(names) <= set(model.labels):
            columns[label] = [model.labels.index(name) for name in names]
    if not columns:
        raise ValueError(f"{model.meta.get('name') or model.meta.get('run')} has none of "
                         f"{', '.join(wanted) or 'the labels that all corpora share'}")
    known = model.meta.get("thresholds")
    meta = {} if known is None else {
        "thresholds": [known[at[0]] if len(at) == 1 else None for at in columns.values()]}
    y = [model.y_true[:, at] for at in columns.values()]
    return replace(
        model, labels=list(columns), meta=model.meta | meta,
        y_true=np.stack([np.where((t == 1).any(axis=1), 1, t.max(axis=1)) for t in y], axis=1),
        y_score=np.stack([model.y_score[:, at].max(axis=1) for at in columns.values()], axis=1))
