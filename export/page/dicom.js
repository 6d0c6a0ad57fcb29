// Gray intensities of a DICOM radiograph as it is meant to be seen: as data/dicom.py does.

import { int16Of, itemsOf, numberOf, textOf, uint16Of } from "./elements.js";
import { whyNotFrontal } from "./frontal.js";
import { checkSize, jpegSize, jpegToGray, NOT_READ } from "./raster.js";

const PLAIN = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"];  // little endian
const DEFLATED = "1.2.840.10008.1.2.1.99";
const JPEG_BASELINE = "1.2.840.10008.1.2.4.50";
const RAW_CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1";  // Digital X-Ray Image, for processing
const PIXEL_DATA = "x7fe00010";
const REQUIRED = { x00280002: "samples per pixel", x00280010: "rows", x00280011: "columns",
  x00280100: "bits allocated", x00280101: "bits stored", x00280103: "pixel representation" };
const LOOKUP_TABLES = ["x00283000", "x00283010"];  // Modality and VOI LUT
const FUNCTIONAL_GROUPS = ["x52009229", "x52009230"];
const VOI_FUNCTIONS = ["LINEAR", "LINEAR_EXACT", "SIGMOID"];

export class NotFrontal extends Error {}

// The intensities, in four steps: find padding among the stored values; send the other pixels
// through the rescale and the window; turn them where dense tissue is dark; and set padding to the
// lowest value that they have then.
export async function decodeDicom(bytes, rules) {
  const { set, syntax } = parse(bytes);
  const reason = whyNotFrontal(set, rules);
  if (reason) throw new NotFrontal(reason);
  checkHeader(set);
  const width = set.uint16("x00280011");
  const height = set.uint16("x00280010");
  checkSize(width, height, rules);
  const cells = await readCells(set, bytes, syntax, width, height);

  const { stored, isSigned } = cellFormat(set);
  const isPadding = paddingTest(set);
  const slope = numberOf(set, "x00281053") ?? 1;
  const intercept = numberOf(set, "x00281052") ?? 0;
  const voiWindow = windowOf(set);
  const sign = isDenseTissueDark(set) ? -1 : 1;
  const pixels = new Float32Array(width * height);
  const padded = [];
  let background = Infinity;
  for (let i = 0; i < pixels.length; i++) {
    if (isPadding(cells[i])) {
      padded.push(i);
      continue;
    }
    let value = asInteger(cells[i], stored, isSigned) * slope + intercept;
    if (voiWindow) value = applyWindow(value, voiWindow);
    pixels[i] = sign * value;
    background = Math.min(background, pixels[i]);
  }
  if (padded.length === pixels.length) throw new Error("DICOM: every pixel is padding");
  for (const i of padded) pixels[i] = background;
  return { pixels, width, height };
}

// dicom-parser throws strings, and objects that hold one.
function reasonOf(error) {
  const reason = error?.exception ?? error;
  return String(reason?.message ?? reason).replace(/^(Error: )?dicomParser\.\w+: /, "");
}

function parse(bytes) {
  let syntax;
  try {
    syntax = window.dicomParser.readPart10Header(bytes).string("x00020010");
  } catch (error) {
    throw new Error(`damaged or truncated DICOM: ${reasonOf(error)}`);
  }
  if (syntax === DEFLATED) throw new Error(`a deflated DICOM, ${NOT_READ}`);
  try {
    return { set: window.dicomParser.parseDicom(bytes), syntax };
  } catch (error) {
    throw new Error(`damaged or truncated DICOM: ${reasonOf(error)}`);
  }
}

// Refuse what is no gray image of one frame that this page can decode.
function checkHeader(set) {
  if (!set.elements[PIXEL_DATA]) throw new Error("DICOM: without pixel data");
  const photometric = textOf(set, "x00280004");
  if (!["MONOCHROME1", "MONOCHROME2"].includes(photometric)) {
    throw new Error(`DICOM: photometric interpretation ${photometric || "absent"}; expected `
      + "MONOCHROME1 or MONOCHROME2");
  }
  const frames = Number(textOf(set, "x00280008") || 1);
  if (frames !== 1) throw new Error(`DICOM: ${frames} frames; expected 1`);
  for (const [tag, name] of Object.entries(REQUIRED)) {
    if (uint16Of(set, tag) === undefined) throw new Error(`DICOM: without its ${name}`);
  }
  const samples = set.uint16("x00280002");
  if (samples !== 1) throw new Error(`DICOM: ${samples} samples per pixel; expected 1`);
  checkBits(set);
  if (LOOKUP_TABLES.some((tag) => itemsOf(set, tag).length)) {
    throw new Error(`DICOM with a lookup table, ${NOT_READ}`);
  }
  if (FUNCTIONAL_GROUPS.some((tag) => itemsOf(set, tag).length)) {
    throw new Error(`an enhanced DICOM, ${NOT_READ}`);
  }
}

function checkBits(set) {
  const allocated = set.uint16("x00280100");
  if (![8, 16].includes(allocated)) {
    throw new Error(`DICOM: ${allocated} bits per pixel, ${NOT_READ}`);
  }
  const stored = set.uint16("x00280101");
  if (stored < 1 || stored > allocated) {
    throw new Error(`DICOM: ${stored} bits stored; expected 1 to ${allocated}`);
  }
  const highBit = uint16Of(set, "x00280102");
  if (highBit !== undefined && highBit !== stored - 1) {
    throw new Error(`DICOM: ${stored} bits stored up to bit ${highBit}; expected up to `
      + `${stored - 1}`);
  }
  if (set.uint16("x00280103") > 1) throw new Error("DICOM: pixel representation; expected 0 or 1");
}

// How a cell of 16 bits holds a value: `checkHeader` has seen that the elements are there.
function cellFormat(set) {
  return { allocated: set.uint16("x00280100"), stored: set.uint16("x00280101"),
    isSigned: set.uint16("x00280103") === 1 };
}

// The cells of the pixels, with the bits that are not stored: a Uint16Array.
async function readCells(set, bytes, syntax, width, height) {
  if (syntax === JPEG_BASELINE) return readJpegCells(set, width, height);
  if (PLAIN.includes(syntax)) return readPlainCells(set, bytes, width * height);
  throw new Error(`DICOM compressed as ${syntax}, ${NOT_READ}`);
}

function readPlainCells(set, bytes, pixelCount) {
  const element = set.elements[PIXEL_DATA];
  const { allocated } = cellFormat(set);
  const expected = (pixelCount * allocated) / 8;
  const length = Math.min(element.length, bytes.length - element.dataOffset);
  if (length < expected) {
    throw new Error(`truncated, or wrong rows or columns: ${length} bytes of pixels; expected `
      + `${expected}`);
  }
  if (length >= 2 * expected) {
    throw new Error(`${length} bytes of pixels; expected ${expected}, one gray frame`);
  }
  const data = new DataView(bytes.buffer, bytes.byteOffset + element.dataOffset, expected);
  const cells = new Uint16Array(pixelCount);
  for (let i = 0; i < pixelCount; i++) {
    cells[i] = allocated === 8 ? data.getUint8(i) : data.getUint16(2 * i, true);
  }
  return cells;
}

async function readJpegCells(set, width, height) {
  const frame = readFrame(set);
  const size = jpegSize(frame);
  if (size.width !== width || size.height !== height) {
    throw new Error(`compressed pixels of ${size.width} x ${size.height}; expected `
      + `${width} x ${height}, as the DICOM header has it`);
  }
  if (size.components !== 1) {
    throw new Error(`compressed pixels of ${size.components} components; expected 1`);
  }
  if (cellFormat(set).isSigned) throw new Error(`signed pixels as JPEG, ${NOT_READ}`);
  const { pixels } = await jpegToGray(frame, "none");
  return Uint16Array.from(pixels);
}

// The compressed bytes of the one frame, which may lie in several fragments.
function readFrame(set) {
  const { dicomParser } = window;
  const element = set.elements[PIXEL_DATA];
  const count = element.fragments?.length;
  if (!count) throw new Error("DICOM: compressed pixels without a frame");
  if (element.basicOffsetTable.length) {
    return dicomParser.readEncapsulatedImageFrame(set, element, 0);
  }
  return dicomParser.readEncapsulatedPixelDataFromFragments(set, element, 0, count);
}

// A value of so many bits, read as signed or unsigned.
function asInteger(value, bits, isSigned) {
  const unsigned = value & ((1 << bits) - 1);
  const isNegative = isSigned && unsigned >> (bits - 1) === 1;
  return isNegative ? unsigned - (1 << bits) : unsigned;
}

// A function of a cell: whether it is padding, both ends of the range inclusive.
function paddingTest(set) {
  const value = uint16Of(set, "x00280120");
  if (value === undefined) return () => false;
  const { allocated, stored, isSigned } = cellFormat(set);
  const limit = uint16Of(set, "x00280121") ?? value;
  const ends = [value, limit].map((end) => asInteger(end, 16, isSigned));
  const low = Math.min(...ends);
  const high = Math.max(...ends);
  const isWithin = (number) => number >= low && number <= high;

  // Some devices pad beyond the stored bits, as with 65535 beside 12 bits: then the whole cell
  // tells.
  const lowest = isSigned ? -(2 ** (stored - 1)) : 0;
  const highest = lowest + 2 ** stored - 1;
  const isBeyond = low < lowest || high > highest;
  return (cell) => isWithin(asInteger(cell, stored, isSigned))
    || (isBeyond && isWithin(asInteger(cell, allocated, isSigned)));
}

// The first window; null without one.
function windowOf(set) {
  const center = numberOf(set, "x00281050");
  const width = numberOf(set, "x00281051");
  if (center === undefined || width === undefined) return null;
  if (!(width > 0)) throw new Error(`Window Width ${width}; expected more than 0`);
  let kind = textOf(set, "x00281056") || "LINEAR";
  if (!VOI_FUNCTIONS.includes(kind)) {
    throw new Error(`DICOM: VOI LUT function ${kind}; expected LINEAR, LINEAR_EXACT or SIGMOID`);
  }
  if (kind === "LINEAR" && width < 1) kind = "LINEAR_EXACT";  // LINEAR takes 1 off the width
  return { center, width, kind };
}

// PS3.3 C.11.2.1.2 and C.11.2.1.3, up to an offset and a factor, which do not change the result.
function applyWindow(value, { center, width, kind }) {
  if (kind === "SIGMOID") return 1 / (1 + Math.exp((-4 * (value - center)) / width));
  let middle = center;
  let half = width / 2;
  if (kind === "LINEAR") {
    middle = center - 0.5;
    half = (width - 1) / 2;
  }
  if (half === 0) return value > middle ? 1 : 0;
  return Math.min(Math.max(value, middle - half), middle + half);
}

function isDenseTissueDark(set) {
  const intent = textOf(set, "x00080068");
  const isRaw = intent === "FOR PROCESSING" || (!intent && textOf(set, "x00080016") === RAW_CLASS);
  const sign = int16Of(set, "x00281041");  // 1: low values are dense tissue
  if (isRaw && (sign === 1 || sign === -1)) return sign === 1;
  return textOf(set, "x00280004") === "MONOCHROME1";
}
