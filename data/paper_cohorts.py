"""The paper's cohorts: Tables 1 and 2 of Tayebi Arasteh et al., Eur Radiol Exp 8:10 (2024)."""

# Table 1. "ap" is the percentage of AP views, the rest being PA; ages in years and percentages of
# women, all counted per image. What the paper gives as n/a is left out.
TABLE1 = {
    "vindr": {"images": 18_000, "train": 15_000, "test": 3_000, "ap": 0.0,
              "age_median": 42, "age_mean": 54, "age_sd": 18, "age_min": 2, "age_max": 91,
              "women_train": 47.8, "women_test": 44.1},
    "cxr14": {"images": 112_120, "train": 86_524, "test": 25_596, "patients": 30_805, "ap": 40.0,
              "age_median": 49, "age_mean": 47, "age_sd": 17, "age_min": 1, "age_max": 96,
              "women_train": 42.4, "women_test": 41.9},
    "chexpert": {"images": 157_878, "train": 128_356, "test": 29_320, "patients": 65_240,
                 "ap": 84.5, "age_median": 61, "age_mean": 60, "age_sd": 18, "age_min": 18,
                 "age_max": 91, "women_train": 41.4, "women_test": 39.0},
    "mimic": {"images": 213_921, "train": 170_153, "test": 43_768, "patients": 65_379, "ap": 58.2},
    "ukacxr": {"images": 193_361, "train": 153_537, "test": 39_824, "patients": 54_176,
               "ap": 100.0, "age_median": 68, "age_mean": 66, "age_sd": 15, "age_min": 1,
               "age_max": 111, "women_train": 34.4, "women_test": 36.3},
    "padchest": {"images": 110_525, "train": 88_480, "test": 22_045, "patients": 67_213,
                 "ap": 17.1, "age_median": 63, "age_mean": 59, "age_sd": 20, "age_min": 1,
                 "age_max": 105, "women_train": 50.0, "women_test": 48.2},
}
for _row in TABLE1.values():  # the share in both sets, which does not depend on how they were drawn
    if "women_train" in _row:
        _row["women"] = (_row["train"] * _row["women_train"] + _row["test"] * _row["women_test"]
                         ) / (_row["train"] + _row["test"])
FACTS = {
    "vindr": "Hanoi, Vietnam; 2 hospitals; labeled by hand",
    "cxr14": "Maryland, USA; 1 hospital; labeled by NLP (ChestX-ray14 labeler)",
    "chexpert": "California, USA; 1 hospital; labeled by NLP (CheXpert labeler)",
    "mimic": "Massachusetts, USA; 1 hospital; labeled by NLP (CheXpert labeler)",
    "ukacxr": "Aachen, Germany; 1 hospital; labeled by hand",
    "padchest": "Alicante, Spain; 1 hospital; labeled by hand and by NLP (PadChest labeler)",
}
NO_AGE_OF_0 = ("padchest",)  # where the paper left them out

# Table 2: certain positives in the whole cohort. Where the printed scan has a misread digit, as the
# percentage beside it and the release's tables show, it is corrected: CheXpert's Support devices,
# PadChest's Cavitation and Volume loss.
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
        "Fibrosis": 715, "Chronic changes": 4_798, "Sternotomy": 1_912, "Cavitation": 353,
        "Volume loss": 1_647, "Pacemaker": 2_294, "Bronchiectasis": 1_548, "Air trapping": 3_471,
        "No finding": 36_148},
}

# Cells that cannot be expected to agree, and why; --strict passes over them.
DRAWN = "the paper's draw of 80/20 is not known"
WHOLE = "the paper's number is that of the whole release"
BY_DRAW = {"train": DRAWN, "test": DRAWN, "women_train": DRAWN, "women_test": DRAWN}
HEADERS = "DICOM headers give it for a part of the images"
SHARE = "by no known rule does the release give the paper's share"
NOT_EXPECTED = {
    "vindr": dict.fromkeys(("age_median", "age_mean", "age_sd", "age_min", "age_max", "women",
                            "women_train", "women_test"), HEADERS),
    "cxr14": {"age_min": "the release has ages from 0 to 95", "women_train": SHARE, "women": SHARE,
              "age_max": "the release has ages from 0 to 95"},
    "chexpert": BY_DRAW | {"patients": WHOLE, "age_max": "the release has ages up to 90"},
    "mimic": {"train": DRAWN, "test": DRAWN, "patients": WHOLE},
    "ukacxr": BY_DRAW,
    "padchest": BY_DRAW | {"patients": "of which rows the paper counted them is not known"},
}

# Images that the paper could not read. Of the tables alone these counts are known; others may be
# higher than the paper's by up to as many.
UNREADABLE = {"padchest": 29}
OF_TABLES = {"padchest": {
    "images": 110_554, "Atelectasis": 6_168, "Emphysema": 1_103, "Pleural effusion": 6_989,
    "Pleural thickening": 3_373, "Pneumonia": 5_223, "Aortic elongation": 8_116,
    "Nodule/mass": 4_749, "Fibrosis": 716, "Chronic changes": 4_798, "Sternotomy": 1_913,
    "Cavitation": 353, "Volume loss": 1_649, "Pacemaker": 2_295, "Bronchiectasis": 1_549,
    "Air trapping": 3_472, "No finding": 36_155}}
