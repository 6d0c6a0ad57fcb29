"""The paper's own results, to print next to ours.

Tayebi Arasteh et al., "Enhancing diagnostic deep learning via self-supervised pretraining on
large-scale, unlabeled non-medical images", Eur Radiol Exp 8:10 (2024), Tables 4 and 5. All in
percent, mean±SD over 1,000 bootstrap resamples ("redraws"); for an average, the SD is over
resamples and labels together.
"""

_CORPORA = ("vindr", "cxr14", "chexpert", "mimic", "ukacxr", "padchest")
_TABLE4 = """
dinov2    auroc        88.92±4.59  79.79±6.55  80.02±6.60  80.52±6.17   89.74±3.57  87.62±4.86
imagenet  auroc        86.38±6.27  79.10±6.34  79.56±6.51  79.92±6.35   89.45±3.62  87.12±5.05
dinov2    accuracy     82.49±6.92  72.81±7.43  72.37±8.29  73.08±5.32   80.68±4.00  79.82±6.69
imagenet  accuracy     81.92±6.50  71.69±7.29  71.36±8.39  73.00±5.37   79.94±4.29  78.73±7.49
dinov2    sensitivity  83.58±6.93  73.14±8.94  75.68±6.45  74.87±10.01  83.42±4.57  81.66±6.91
imagenet  sensitivity  78.50±8.97  73.04±8.23  75.43±6.00  73.91±9.51   83.76±4.37  81.80±5.30
dinov2    specificity  81.69±7.37  73.32±8.00  70.95±9.69  72.25±6.04   80.32±4.44  79.49±6.97
imagenet  specificity  81.80±6.88  72.10±7.94  70.23±9.33  72.30±6.16   79.39±4.61  78.37±7.80
"""
# For vindr, cxr14, chexpert, ukacxr and padchest, the columns DINOv2 and MIMIC-CXR. The first cell
# is the label, or "mean".
_TABLE5 = """
Cardiomegaly     |94.53±0.52 97.17±0.34 88.51±0.47 89.54±0.44 87.96±0.31 87.27±0.31 \
85.86±0.18 85.45±0.18 92.30±0.27 92.68±0.26
Pleural effusion |97.62±0.68 98.31±0.52 81.01±0.32 82.00±0.32 87.81±0.20 87.64±0.20 \
91.23±0.19 91.41±0.19 95.66±0.26 95.85±0.24
Pneumonia        |91.99±0.98 94.46±0.66 70.17±1.03 69.85±1.04 76.42±0.88 76.29±0.84 \
92.15±0.18 91.94±0.18 83.93±0.67 84.96±0.66
Atelectasis      |88.55±1.71 92.21±1.48 75.56±0.43 75.87±0.41 69.57±0.40 69.28±0.39 \
86.36±0.23 86.30±0.24 83.62±0.58 83.59±0.55
Consolidation    |91.35±1.56 94.82±0.74 73.60±0.57 75.11±0.54 75.14±0.56 74.13±0.56 \
- - 88.26±0.82 89.95±0.76
Pneumothorax     |90.96±2.91 97.39±1.27 84.70±0.38 85.93±0.37 87.29±0.33 86.03±0.34 \
- - 86.37±2.01 92.89±1.00
Lung opacity     |86.86±1.27 87.89±1.26 - - 73.98±0.28 73.62±0.29 - - - -
Lung lesion      |- - - - 76.56±0.73 75.79±0.73 - - - -
Fracture         |- - - - 77.93±0.67 76.92±0.66 - - - -
No finding       |90.79±0.56 93.51±0.46 72.37±0.33 72.48±0.33 87.61±0.30 87.53±0.31 \
86.86±0.18 86.49±0.18 85.11±0.26 85.20±0.26
mean             |91.58±3.45 94.47±3.30 77.99±6.38 78.68±6.77 80.03±6.60 79.45±6.60 \
88.49±2.65 88.32±2.77 87.89±4.30 89.30±4.45
"""

TABLE4 = {}  # mean over each corpus's labels, {(corpus, init): {metric: (mean, sd)}}
for _line in _TABLE4.split("\n")[1:-1]:
    _init, _metric, *_cells = _line.split()
    for _corpus, _cell in zip(_CORPORA, _cells):
        TABLE4.setdefault((_corpus, _init), {})[_metric] = tuple(map(float, _cell.split("±")))

TABLE5 = {}  # ROC-AUC on the shared labels, {(corpus, init): {label or "mean": (mean, sd)}}
_COLUMNS = [(corpus, init) for corpus in _CORPORA if corpus != "mimic"
            for init in ("dinov2", "mimic")]
for _line in _TABLE5.split("\n")[1:-1]:
    _label, _cells = _line.split("|")
    for _key, _cell in zip(_COLUMNS, _cells.split()):
        if _cell != "-":
            TABLE5.setdefault(_key, {})[_label.strip()] = tuple(map(float, _cell.split("±")))
