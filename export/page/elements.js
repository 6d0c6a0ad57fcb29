// Elements of a DICOM data set, by dicom-parser: "x00280010" is (0028,0010).

export function itemsOf(set, tag) {
  const items = set.elements[tag]?.items ?? [];
  return items.map((item) => item.dataSet);
}

// An element as text in capitals; "" where it is absent.
export function textOf(set, tag) {
  return (set.string(tag) ?? "").trim().toUpperCase();
}

// The first number of an element of decimal text; undefined where it is absent or empty.
export function numberOf(set, tag) {
  if (!textOf(set, tag)) return undefined;
  const number = set.floatString(tag, 0);
  if (!Number.isFinite(number)) throw new Error(`DICOM: element ${tag.slice(1)} is no number`);
  return number;
}

// A whole number of 16 bits; undefined where it is absent or empty.
export function uint16Of(set, tag) {
  return hasTwoBytes(set, tag) ? set.uint16(tag) : undefined;
}

export function int16Of(set, tag) {
  return hasTwoBytes(set, tag) ? set.int16(tag) : undefined;
}

function hasTwoBytes(set, tag) {
  return set.elements[tag]?.length >= 2;
}
