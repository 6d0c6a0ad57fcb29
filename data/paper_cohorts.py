"""The paper's cohorts: Tables 1 and 2 of Tayebi Arasteh et al., Eur Radiol Exp 8:10 (2024)."""

# Table 1. "ap" is the percentage of AP views, the rest being PA; None where the paper says n/a.
TABLE1 = {
    "vindr": {"images": 18_000, "train": 15_000, "test": 3_000, "patients": None, "ap": 0.0},
    "cxr14": {"images": 112_120, "train": 86_524, "test": 25_596, "patients": 30_805, "ap": 40.0},
    "chexpert": {"images": 157_878, "train": 128_356, "test": 29_320, "patients": 65_240,
                 "ap": 84.5},
    "mimic": {"images": 213_921, "train": 170_153, "test": 43_768, "patients": 65_379, "ap": 58.2},
    "ukacxr": {"images": 193_361, "train": 153_537, "test": 39_824, "patients": 54_176,
               "ap": 100.0},
    "padchest": {"images": 110_525, "train": 88_480, "test": 22_045, "patients": 67_213,
                 "ap": 17.1},
}

# Table 2: certain positives in the whole cohort. Where the printed scan has a misread digit, as the
# percentage beside it and the release's tables show (CheXpert's Support devices), it is corrected.
TABLE2 = {
    "vindr": {
        "Atelectasis": 148, "Calcification": 371, "Cardiomegaly": 2_126, "Consolidation": 217,
        "Edema": 1, "Emphysema": 17, "Enlarged PA": 29, "ILD": 373, "Lung opacity": 631,
        "Lung cavity": 29, "Lung cyst": 6, "Lung tumor": 214, "Mediastinal shift": 105,
        "Nodule/mass": 585, "Pleural effusion": 745, "Pleural thickening": 1_051, "Fibrosis": 1_234,
        "Fracture": 55, "COPD": 9, "Infiltrates": 303, "Pneumonia": 717, "Pneumothorax": 76,
        "Tuberculosis": 646, "Aortic enlargement": 2_566, "No finding": 12_652},
    "cxr14": {
        "Atelectasis": 11_559, "Cardiomegaly": 2_776, "Consolidation": 4_667, "Edema": 2_303,
        "Emphysema": 2_516, "Nodule": 6_331, "Mass": 5_782, "Pleural effusion": 13_317,
        "Pleural thickening": 3_385, "Fibrosis": 1_686, "Infiltration": 19_894, "Pneumonia": 1_431,
        "Pneumothorax": 5_302, "Hernia": 227, "No finding": 60_361},
    "chexpert": {
        "Atelectasis": 26_313, "Cardiomegaly": 19_890, "Consolidation": 9_542, "Edema": 43_213,
        "Lung opacity": 73_961, "Lung lesion": 5_829, "Enlarged cardiomediastinum": 7_787,
        "Pleural effusion": 65_142, "Pleural other": 2_035, "Fracture": 6_445, "Pneumonia": 3_964,
        "Pneumothorax": 16_277, "Support devices": 90_967, "No finding": 17_000},
    "mimic": {
        "Atelectasis": 42_760, "Cardiomegaly": 42_480, "Consolidation": 8_603, "Edema": 24_663,
        "Lung opacity": 40_876, "Lung lesion": 5_648, "Enlarged cardiomediastinum": 6_527,
        "Pleural effusion": 48_716, "Pleural other": 1_751, "Fracture": 4_104, "Pneumonia": 13_916,
        "Pneumothorax": 9_866, "Support devices": 61_358, "No finding": 81_117},
    "ukacxr": {
        "Atelectasis right": 18_761, "Atelectasis left": 15_082, "Cardiomegaly": 90_348,
        "Pleural effusion right": 15_609, "Pleural effusion left": 12_571,
        "Pneumonia right": 22_513, "Pneumonia left": 15_993, "Congestion": 16_371,
        "No finding": 74_455},
    "padchest": {
        "Atelectasis": 6_166, "Cardiomegaly": 9_845, "Consolidation": 1_666, "Emphysema": 1_102,
        "Nodule/mass": 4_747, "Pleural effusion": 6_984, "Pleural thickening": 3_372,
        "COPD": 14_293, "Infiltrates": 4_605, "Pneumonia": 5_222, "Scoliosis": 5_573,
        "Hernia": 1_609, "Congestion": 863, "Aortic elongation": 8_116, "Kyphosis": 2_621,
        "No finding": 36_148},
}

# Cells that cannot be expected to agree, and why; --strict passes over them.
DRAWN = "the paper's draw of 80/20 is not known"
WHOLE = "the paper's number is that of the whole release"
NOT_EXPECTED = {
    "vindr": {},
    "cxr14": {},
    "chexpert": {"train": DRAWN, "test": DRAWN, "patients": WHOLE},
    "mimic": {"train": DRAWN, "test": DRAWN, "patients": WHOLE},
    "ukacxr": {"train": DRAWN, "test": DRAWN},
    "padchest": {"train": DRAWN, "test": DRAWN,
                 "patients": "of which rows the paper counted them is not known"},
}

# Images that the paper could not read. Of the tables alone these counts are known; others may be
# higher than the paper's by up to as many.
UNREADABLE = {"padchest": 29}
OF_TABLES = {"padchest": {
    "images": 110_554, "Atelectasis": 6_168, "Emphysema": 1_103, "Pleural effusion": 6_989,
    "Pleural thickening": 3_373, "Pneumonia": 5_223, "Aortic elongation": 8_116,
    "Nodule/mass": 4_749, "No finding": 36_155}}
