// Which DICOM is no frontal chest radiograph: as export/dicom.py, by the lists of data/views.py.

import { itemsOf, textOf } from "./elements.js";

function wordsOf(text, { separators }) {
  return text.toUpperCase().split(new RegExp(separators)).filter((word) => word);
}

function classify(words, { otherWords, frontalWords }) {
  if (words.some((word) => otherWords.includes(word))) return "other";
  if (words.some((word) => frontalWords.includes(word))) return "frontal";
  return "unknown";
}

function isOtherPart(words, { otherParts, chestWords }) {
  if (words.some((word) => chestWords.includes(word))) return false;
  return words.some((word) => otherParts.includes(word));
}

// Of a free text; single letters tell nothing.
function isOtherByDescription(text, views) {
  const words = wordsOf(text, views).filter((word) => word.length > 1);
  return isOtherPart(words, views) || classify(words, views) === "other";
}

// Which tag says that an image is no frontal chest radiograph, in words; null if none does.
export function whyNotFrontal(set, { views, modalities }) {
  const modality = textOf(set, "x00080060");
  const bodyPart = textOf(set, "x00180015");
  const view = textOf(set, "x00185101");
  const description = textOf(set, "x0008103e");
  if (modality && !modalities.includes(modality)) {
    return `DICOM of modality ${modality}; expected a radiograph (${modalities.join(", ")})`;
  }
  if (isOtherPart(wordsOf(bodyPart, views), views)) {
    return `BodyPartExamined is ${bodyPart}; the model reads chest radiographs`;
  }
  if (classify(wordsOf(view, views), views) === "other") {
    return `ViewPosition is ${view}; the model reads frontal views`;
  }
  if (view) return null;
  for (const item of itemsOf(set, "x00540220")) {
    const code = textOf(item, "x00080104");
    if (isOtherByDescription(code, views)) {
      return `ViewCodeSequence says ${code}; the model reads frontal views`;
    }
  }
  const orientation = textOf(set, "x00200020");
  if (["A", "P"].includes(orientation[0])) {  // rows run from front to back
    return `PatientOrientation is ${orientation.replace("\\", "/")}, a side view; the model reads `
      + "frontal views";
  }
  if (isOtherByDescription(description, views)) {
    return `SeriesDescription is ${description}; the model reads frontal chest radiographs`;
  }
  return null;
}
