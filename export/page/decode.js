// Radiographs to gray intensities, and what is refused: as data/decode.py and export/dicom.py do.
// Each decoder gives { pixels: Float32Array, width, height }. `rules` is of page.json.

const NOT_READ = "which this page does not read; use export.predict";
const PLAIN = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"];  // little endian
const DEFLATED = "1.2.840.10008.1.2.1.99", JPEG_BASELINE = "1.2.840.10008.1.2.4.50";
const RAW_CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1";  // Digital X-Ray Image, for processing
const ORIENTATION = 0x0112;  // a tag of EXIF

const luma = (r, g, b) => (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;  // as Pillow

export async function decode(bytes, rules) {
  const starts = (...values) => values.every((value, i) => bytes[i] === value);
  if (!bytes.length) throw new Error("is empty");
  if (starts(0x89, 0x50, 0x4e, 0x47)) return decodePng(bytes, rules);
  if (starts(0xff, 0xd8)) return decodeJpeg(bytes, rules);
  if (String.fromCharCode(...bytes.subarray(128, 132)) === "DICM") return decodeDicom(bytes, rules);
  if (starts(2, 0) || starts(8, 0)) {
    throw new Error(`maybe DICOM, but without its preamble, ${NOT_READ}`);
  }
  throw new Error("not a PNG, JPEG or DICOM file");
}

function checkSize(width, height, { minSide, maxPixels }) {
  if (Math.min(width, height) < minSide) {
    throw new Error(`${width} x ${height} pixels; expected at least ${minSide} x ${minSide}`);
  }
  if (width * height > maxPixels) {
    throw new Error(`${width} x ${height} pixels; expected at most ${maxPixels}`);
  }
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// The orientation in the first directory of EXIF (a TIFF header); 1 where it is absent or damaged.
function orientationOf(exif) {
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  try {
    const little = view.getUint16(0) === 0x4949, first = view.getUint32(4, little);
    const entries = view.getUint16(first, little);
    for (let i = 0; i < entries; i++) {
      const entry = first + 2 + 12 * i;
      if (view.getUint16(entry, little) === ORIENTATION) return view.getUint16(entry + 8, little);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

function turnUpright(image, orientation) {
  if (!(orientation >= 2 && orientation <= 8)) return image;
  const { pixels, width, height } = image, transposed = orientation >= 5;
  const flipX = [2, 3, 7, 8].includes(orientation), flipY = [3, 4, 6, 7].includes(orientation);
  const turned = { pixels: new Float32Array(pixels.length), width: transposed ? height : width,
    height: transposed ? width : height };
  for (let y = 0; y < turned.height; y++) {
    for (let x = 0; x < turned.width; x++) {
      const [across, down] = transposed ? [y, x] : [x, y];
      const column = flipX ? width - 1 - across : across, row = flipY ? height - 1 - down : down;
      turned.pixels[y * turned.width + x] = pixels[row * width + column];
    }
  }
  return turned;
}

async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new Error("damaged or truncated: its pixels cannot be inflated");
  }
}

async function decodePng(bytes, rules) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let at = 8, header = null, palette = null, exif = null, kind = "";
  const parts = [];
  while (kind !== "IEND") {
    if (at + 12 > bytes.length) throw new Error("truncated");
    const length = view.getUint32(at), body = bytes.subarray(at + 8, at + 8 + length);
    kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (at + 12 + length > bytes.length) throw new Error("truncated");
    if (crc32(bytes.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length)) {
      throw new Error(`damaged: wrong checksum in the chunk at byte ${at}`);
    }
    if (kind === "eXIf") exif = body;
    if (kind === "IHDR") header = new DataView(body.buffer, body.byteOffset, length);
    if (kind === "PLTE") palette = body;
    if (kind === "IDAT") parts.push(body);
    at += length + 12;
  }
  if (header?.byteLength < 13 || !header) throw new Error("damaged: without a header");
  const width = header.getUint32(0), height = header.getUint32(4);
  const depth = header.getUint8(8), color = header.getUint8(9);
  checkSize(width, height, rules);
  if (header.getUint8(12)) throw new Error(`an interlaced PNG, ${NOT_READ}`);
  const channels = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }[color];
  const stride = Math.ceil((width * channels * depth) / 8);
  const step = Math.max(1, (channels * depth) / 8);
  const raw = await inflate(parts);
  if (raw.length < height * (stride + 1)) throw new Error("truncated");
  const pixels = new Float32Array(width * height);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)];
    const row = raw.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1));
    for (let i = 0; filter && i < stride; i++) {
      const left = i < step ? 0 : row[i - step], corner = i < step ? 0 : above[i - step];
      const p = left + above[i] - corner;
      const [a, b, c] = [Math.abs(p - left), Math.abs(p - above[i]), Math.abs(p - corner)];
      const paeth = a <= b && a <= c ? left : b <= c ? above[i] : corner;
      row[i] += [0, left, above[i], (left + above[i]) >> 1, paeth][filter];
    }
    const sample = (i) => depth === 8 ? row[i] : depth === 16 ? row[2 * i]  // of color, the upper 8
      : (row[(i * depth) >> 3] >> (8 - depth - ((i * depth) & 7))) & ((1 << depth) - 1);
    for (let x = 0; x < width; x++) {
      const i = x * channels;
      let value = sample(i);
      if (color === 0 && depth === 16) value = row[2 * i] * 256 + row[2 * i + 1];
      else if (color === 3) value = luma(...palette.subarray(3 * value, 3 * value + 3));
      else if (channels > 2) value = luma(value, sample(i + 1), sample(i + 2));
      pixels[y * width + x] = value;
    }
    above = row;
  }
  return turnUpright({ pixels, width, height }, exif ? orientationOf(exif) : 1);
}

// The frame header (SOF) of a JPEG stream: ITU-T T.81 B.2.2.
function jpegSize(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 2;
  while (at + 9 < bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; }
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      const height = view.getUint16(at + 5), width = view.getUint16(at + 7);
      return { height, width, components: bytes[at + 9] };
    }
    at += 2 + view.getUint16(at + 2);
  }
  throw new Error("damaged JPEG: without a frame header");
}

function lastMarker(bytes, marker) {
  for (let at = bytes.length - 2; at >= 0; at--) {
    if (bytes[at] === 0xff && bytes[at + 1] === marker) return at;
  }
  return -1;
}

async function jpegToGray(bytes, imageOrientation) {
  const end = lastMarker(bytes, 0xd9);  // browsers fill up what is cut off
  if (end < 0 || lastMarker(bytes, 0xda) > end) {
    throw new Error("truncated JPEG: no end of the image");
  }
  const blob = new Blob([bytes], { type: "image/jpeg" });
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", imageOrientation });
  } catch {
    throw new Error("a JPEG that this browser cannot decode");
  }
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Float32Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = luma(data[4 * i], data[4 * i + 1], data[4 * i + 2]);
  }
  return { pixels, width, height };
}

function decodeJpeg(bytes, rules) {
  const { width, height, components } = jpegSize(bytes);
  checkSize(width, height, rules);
  if (components === 4) throw new Error("a CMYK image; expected gray or RGB");
  return jpegToGray(bytes, "from-image");  // upright, as EXIF says
}

// dicom-parser throws strings, and objects that hold one.
function reasonOf(error) {
  const reason = error?.exception ?? error;
  return String(reason?.message ?? reason).replace(/^(Error: )?dicomParser\.\w+: /, "");
}

function parseDicom(bytes) {
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

function itemsOf(set, tag) {
  return (set.elements[tag]?.items ?? []).map((item) => item.dataSet);
}

function textOf(set, tag) {
  return (set.string(tag) ?? "").trim().toUpperCase();
}

// The first number of an element of decimal text; undefined where it is absent or empty.
function numberOf(set, tag) {
  if (!textOf(set, tag)) return undefined;
  const number = set.floatString(tag, 0);
  if (!Number.isFinite(number)) throw new Error(`DICOM: element ${tag.slice(1)} is no number`);
  return number;
}

function uint16Of(set, tag) {
  return set.elements[tag]?.length >= 2 ? set.uint16(tag) : undefined;
}

function checkHeader(set) {
  const photometric = textOf(set, "x00280004");
  if (!set.elements.x7fe00010) throw new Error("DICOM: without pixel data");
  if (!["MONOCHROME1", "MONOCHROME2"].includes(photometric)) {
    throw new Error(`DICOM: photometric interpretation ${photometric || "absent"}; expected `
      + "MONOCHROME1 or MONOCHROME2");
  }
  const frames = Number(textOf(set, "x00280008") || 1);
  if (frames !== 1) throw new Error(`DICOM: ${frames} frames; expected 1`);
  const required = { x00280002: "samples per pixel", x00280010: "rows", x00280011: "columns",
    x00280100: "bits allocated", x00280101: "bits stored", x00280103: "pixel representation" };
  for (const [tag, name] of Object.entries(required)) {
    if (uint16Of(set, tag) === undefined) throw new Error(`DICOM: without its ${name}`);
  }
  const samples = set.uint16("x00280002"), allocated = set.uint16("x00280100");
  const stored = set.uint16("x00280101"), highBit = uint16Of(set, "x00280102");
  if (samples !== 1) throw new Error(`DICOM: ${samples} samples per pixel; expected 1`);
  if (![8, 16].includes(allocated)) {
    throw new Error(`DICOM: ${allocated} bits per pixel, ${NOT_READ}`);
  }
  if (stored < 1 || stored > allocated) {
    throw new Error(`DICOM: ${stored} bits stored; expected 1 to ${allocated}`);
  }
  if (highBit !== undefined && highBit !== stored - 1) {
    throw new Error(`DICOM: ${stored} bits stored up to bit ${highBit}; expected up to `
      + `${stored - 1}`);
  }
  if (set.uint16("x00280103") > 1) throw new Error("DICOM: pixel representation; expected 0 or 1");
  for (const tag of ["x00283000", "x00283010"]) {  // Modality and VOI LUT
    if (itemsOf(set, tag).length) throw new Error(`DICOM with a lookup table, ${NOT_READ}`);
  }
  for (const tag of ["x52009229", "x52009230"]) {  // functional groups
    if (itemsOf(set, tag).length) throw new Error(`an enhanced DICOM, ${NOT_READ}`);
  }
}

// The cells of uncompressed pixels, with the bits that are not stored.
function readCells(set, bytes, pixelCount) {
  const element = set.elements.x7fe00010, allocated = set.uint16("x00280100");
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
  const element = set.elements.x7fe00010, { dicomParser } = window;
  if (!element.fragments?.length) throw new Error("DICOM: compressed pixels without a frame");
  const frame = element.basicOffsetTable.length
    ? dicomParser.readEncapsulatedImageFrame(set, element, 0)
    : dicomParser.readEncapsulatedPixelDataFromFragments(set, element, 0, element.fragments.length);
  const size = jpegSize(frame);
  if (size.width !== width || size.height !== height) {
    throw new Error(`compressed pixels of ${size.width} x ${size.height}; expected `
      + `${width} x ${height}, as the DICOM header has it`);
  }
  if (size.components !== 1) {
    throw new Error(`compressed pixels of ${size.components} components; expected 1`);
  }
  if (set.uint16("x00280103") === 1) throw new Error(`signed pixels as JPEG, ${NOT_READ}`);
  const { pixels } = await jpegToGray(frame, "none");
  return Uint16Array.from(pixels);
}

// A value of so many bits, read as signed or unsigned.
function asInteger(value, bits, signed) {
  const unsigned = value & ((1 << bits) - 1);
  return signed && unsigned >> (bits - 1) ? unsigned - (1 << bits) : unsigned;
}

// Which stored values are padding, both ends inclusive; null without a padding value. Padding
// outside what the stored bits can hold is looked for in the whole cells.
function paddingOf(set, signed) {
  const value = uint16Of(set, "x00280120");
  if (value === undefined) return null;
  const limit = uint16Of(set, "x00280121") ?? value;
  const ends = [value, limit].map((end) => asInteger(end, 16, signed));
  return { low: Math.min(...ends), high: Math.max(...ends) };
}

function windowOf(set) {
  const center = numberOf(set, "x00281050"), width = numberOf(set, "x00281051");
  if (center === undefined || width === undefined) return null;
  if (!(width > 0)) throw new Error(`Window Width ${width}; expected more than 0`);
  let kind = textOf(set, "x00281056") || "LINEAR";
  if (!["LINEAR", "LINEAR_EXACT", "SIGMOID"].includes(kind)) {
    throw new Error(`DICOM: VOI LUT function ${kind}; expected LINEAR, LINEAR_EXACT or SIGMOID`);
  }
  if (kind === "LINEAR" && width < 1) kind = "LINEAR_EXACT";  // LINEAR takes 1 off the width
  return { center, width, kind };
}

function applyWindow(value, { center, width, kind }) {
  if (kind === "SIGMOID") return 1 / (1 + Math.exp((-4 * (value - center)) / width));
  const exact = kind === "LINEAR_EXACT";
  const middle = exact ? center : center - 0.5, half = (exact ? width : width - 1) / 2;
  if (half === 0) return value > middle ? 1 : 0;
  return Math.min(Math.max(value, middle - half), middle + half);
}

function isDenseTissueDark(set) {
  const intent = textOf(set, "x00080068"), sopClass = textOf(set, "x00080016");
  const sign = set.elements.x00281041?.length >= 2 ? set.int16("x00281041") : 0;
  const isRaw = intent === "FOR PROCESSING" || (!intent && sopClass === RAW_CLASS);
  if (isRaw && (sign === 1 || sign === -1)) return sign === 1;
  return textOf(set, "x00280004") === "MONOCHROME1";
}

async function decodeDicom(bytes, rules) {
  const { set, syntax } = parseDicom(bytes);
  const reason = whyNotFrontal(set, rules);
  if (reason) throw new Error(reason);
  checkHeader(set);
  const width = set.uint16("x00280011"), height = set.uint16("x00280010");
  checkSize(width, height, rules);
  let cells;
  if (syntax === JPEG_BASELINE) cells = await readJpegCells(set, width, height);
  else if (PLAIN.includes(syntax)) cells = readCells(set, bytes, width * height);
  else throw new Error(`DICOM compressed as ${syntax}, ${NOT_READ}`);

  const allocated = set.uint16("x00280100"), stored = set.uint16("x00280101");
  const signed = set.uint16("x00280103") === 1, padding = paddingOf(set, signed);
  const lowest = signed ? -(2 ** (stored - 1)) : 0, highest = lowest + 2 ** stored - 1;
  const beyond = padding && (padding.low < lowest || padding.high > highest);
  const isPadding = (value) => padding && value >= padding.low && value <= padding.high;
  const slope = numberOf(set, "x00281053") ?? 1, intercept = numberOf(set, "x00281052") ?? 0;
  const voiWindow = windowOf(set), sign = isDenseTissueDark(set) ? -1 : 1;
  const pixels = new Float32Array(width * height), padded = [];
  let background = Infinity;
  for (let i = 0; i < pixels.length; i++) {
    const value = asInteger(cells[i], stored, signed);
    if (isPadding(value) || (beyond && isPadding(asInteger(cells[i], allocated, signed)))) {
      padded.push(i);
      continue;
    }
    const rescaled = value * slope + intercept;
    pixels[i] = sign * (voiWindow ? applyWindow(rescaled, voiWindow) : rescaled);
    background = Math.min(background, pixels[i]);
  }
  if (padded.length === pixels.length) throw new Error("DICOM: every pixel is padding");
  for (const i of padded) pixels[i] = background;
  return { pixels, width, height };
}

// -- which DICOM is no frontal chest radiograph: as export/dicom.py, by the lists of data/views.py

function wordsOf(text, { separators }) {
  return text.toUpperCase().split(new RegExp(separators)).filter((word) => word);
}

function classifyWords(words, { otherWords, frontalWords }) {
  if (words.some((word) => otherWords.includes(word))) return "other";
  return words.some((word) => frontalWords.includes(word)) ? "frontal" : "unknown";
}

function isOtherPart(words, { otherParts, chestWords }) {
  return words.some((word) => otherParts.includes(word))
    && !words.some((word) => chestWords.includes(word));
}

function isOtherByDescription(text, views) {
  const words = wordsOf(text, views).filter((word) => word.length > 1);
  return isOtherPart(words, views) || classifyWords(words, views) === "other";
}

function whyNotFrontal(set, { views, modalities }) {
  const modality = textOf(set, "x00080060"), bodyPart = textOf(set, "x00180015");
  const view = textOf(set, "x00185101"), description = textOf(set, "x0008103e");
  if (modality && !modalities.includes(modality)) {
    return `DICOM of modality ${modality}; expected a radiograph (${modalities.join(", ")})`;
  }
  if (isOtherPart(wordsOf(bodyPart, views), views)) {
    return `BodyPartExamined is ${bodyPart}; the model reads chest radiographs`;
  }
  if (classifyWords(wordsOf(view, views), views) === "other") {
    return `ViewPosition is ${view}; the model reads frontal views`;
  }
  if (view) return null;
  for (const code of itemsOf(set, "x00540220").map((item) => textOf(item, "x00080104"))) {
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
