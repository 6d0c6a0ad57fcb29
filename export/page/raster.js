// Gray intensities of PNG and JPEG: as data/raster.py does.

export const NOT_READ = "which this page does not read; use export.predict";
const EXIF_ORIENTATION = 0x0112;
const GRAY = 0;  // PNG's color types
const PALETTE = 3;
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };  // of a PNG, by its color type

// ITU-R 601, in the integers of Pillow's "L".
function luma(red, green, blue) {
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
}

export function checkSize(width, height, { minSide, maxPixels }) {
  if (Math.min(width, height) < minSide) {
    throw new Error(`${width} x ${height} pixels; expected at least ${minSide} x ${minSide}`);
  }
  if (width * height > maxPixels) {
    throw new Error(`${width} x ${height} pixels; expected at most ${maxPixels}`);
  }
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

// -- orientation ------------------------------------------------------------------------------

// The orientation in the first directory of EXIF (a TIFF header); 1 where it is absent or damaged.
function orientationOf(exif) {
  const view = viewOf(exif);
  try {
    const isLittleEndian = view.getUint16(0) === 0x4949;
    const directory = view.getUint32(4, isLittleEndian);
    const entries = view.getUint16(directory, isLittleEndian);
    for (let i = 0; i < entries; i++) {
      const entry = directory + 2 + 12 * i;
      if (view.getUint16(entry, isLittleEndian) === EXIF_ORIENTATION) {
        return view.getUint16(entry + 8, isLittleEndian);
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // of a DataView: damaged EXIF
  }
  return 1;
}

// An image turned as its EXIF orientation says, so that it is as any viewer shows it.
function turnUpright(image, orientation) {
  if (!(orientation >= 2 && orientation <= 8)) return image;
  const { pixels, width, height } = image;
  const isTransposed = orientation >= 5;
  const isFlippedAcross = [2, 3, 7, 8].includes(orientation);
  const isFlippedDown = [3, 4, 6, 7].includes(orientation);
  const turned = { pixels: new Float32Array(pixels.length), width, height };
  if (isTransposed) Object.assign(turned, { width: height, height: width });
  for (let y = 0; y < turned.height; y++) {
    for (let x = 0; x < turned.width; x++) {
      let [column, row] = [x, y];
      if (isTransposed) [column, row] = [y, x];
      if (isFlippedAcross) column = width - 1 - column;
      if (isFlippedDown) row = height - 1 - row;
      turned.pixels[y * turned.width + x] = pixels[row * width + column];
    }
  }
  return turned;
}

// -- PNG --------------------------------------------------------------------------------------

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) {
    const isOdd = crc & 1;
    crc >>>= 1;
    if (isOdd) crc ^= 0xedb88320;
  }
  return crc;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// A PNG's chunks, each held to its checksum: { IHDR, PLTE, eXIf } and the list `parts` of IDAT.
function readPngChunks(bytes) {
  const view = viewOf(bytes);
  const chunks = { parts: [] };
  let start = 8;
  let kind = "";
  while (kind !== "IEND") {
    if (start + 12 > bytes.length) throw new Error("truncated");
    const length = view.getUint32(start);
    const end = start + 8 + length;
    if (end + 4 > bytes.length) throw new Error("truncated");
    if (crc32(bytes.subarray(start + 4, end)) !== view.getUint32(end)) {
      throw new Error(`damaged: wrong checksum in the chunk at byte ${start}`);
    }
    kind = String.fromCharCode(...bytes.subarray(start + 4, start + 8));
    const body = bytes.subarray(start + 8, end);
    if (kind === "IDAT") chunks.parts.push(body);
    else chunks[kind] = body;
    start = end + 4;
  }
  return chunks;
}

function readPngHeader(body, rules) {
  if (!body || body.length < 13) throw new Error("damaged: without a header");
  const view = viewOf(body);
  const header = { width: view.getUint32(0), height: view.getUint32(4), depth: view.getUint8(8),
    color: view.getUint8(9) };
  checkSize(header.width, header.height, rules);
  const isInterlaced = view.getUint8(12) !== 0;
  if (isInterlaced) throw new Error(`an interlaced PNG, ${NOT_READ}`);
  header.channels = CHANNELS[header.color];
  if (!header.channels) throw new Error(`damaged: color type ${header.color}`);
  return header;
}

async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new Error("damaged or truncated: its pixels cannot be inflated");
  }
}

// The predictor of PNG's filter 4: whichever neighbor is nearest to left + above - corner.
function paeth(left, above, corner) {
  const estimate = left + above - corner;
  const toLeft = Math.abs(estimate - left);
  const toAbove = Math.abs(estimate - above);
  const toCorner = Math.abs(estimate - corner);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}

// Take a row's filter back in place. The neighbor to the left is `step` bytes before.
function unfilter(filter, row, above, step) {
  if (filter > 4) throw new Error(`damaged: a row with filter ${filter}`);
  if (filter === 0) return;
  for (let i = 0; i < row.length; i++) {
    const left = i < step ? 0 : row[i - step];
    const corner = i < step ? 0 : above[i - step];
    if (filter === 1) row[i] += left;
    else if (filter === 2) row[i] += above[i];
    else if (filter === 3) row[i] += (left + above[i]) >> 1;
    else row[i] += paeth(left, above[i], corner);
  }
}

// The i-th sample of a row as 8 bits or fewer: of 16 bits the upper 8.
function sampleOf(row, i, depth) {
  if (depth === 8) return row[i];
  if (depth === 16) return row[2 * i];
  const firstBit = i * depth;
  const shift = 8 - depth - (firstBit & 7);
  return (row[firstBit >> 3] >> shift) & ((1 << depth) - 1);
}

// The gray intensity of a row's x-th pixel; 16-bit gray keeps its 16 bits, alpha is ignored.
function grayOf(row, x, { depth, color, channels }, palette) {
  const first = x * channels;
  if (color === GRAY && depth === 16) return row[2 * first] * 256 + row[2 * first + 1];
  const value = sampleOf(row, first, depth);
  if (color === PALETTE) return luma(...palette.subarray(3 * value, 3 * value + 3));
  if (channels < 3) return value;
  return luma(value, sampleOf(row, first + 1, depth), sampleOf(row, first + 2, depth));
}

export async function decodePng(bytes, rules) {
  const chunks = readPngChunks(bytes);
  const header = readPngHeader(chunks.IHDR, rules);
  const { width, height, depth, color, channels } = header;
  if (color === PALETTE && !chunks.PLTE) throw new Error("damaged: without its palette");
  const stride = Math.ceil((width * channels * depth) / 8);
  const step = Math.max(1, (channels * depth) / 8);
  const raw = await inflate(chunks.parts);
  if (raw.length < height * (stride + 1)) throw new Error("truncated");
  const pixels = new Float32Array(width * height);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const start = y * (stride + 1);  // a row begins with the number of its filter
    const row = raw.subarray(start + 1, start + 1 + stride);
    unfilter(raw[start], row, above, step);
    for (let x = 0; x < width; x++) {
      pixels[y * width + x] = grayOf(row, x, header, chunks.PLTE);
    }
    above = row;
  }
  const orientation = chunks.eXIf ? orientationOf(chunks.eXIf) : 1;
  return turnUpright({ pixels, width, height }, orientation);
}

// -- JPEG -------------------------------------------------------------------------------------

// What the frame header (SOF) of a JPEG stream says: ITU-T T.81 B.2.2.
export function jpegSize(bytes) {
  const tables = [0xc4, 0xc8, 0xcc];  // among the markers C0 to CF
  const view = viewOf(bytes);
  let start = 2;
  while (start + 9 < bytes.length && bytes[start] === 0xff) {
    const marker = bytes[start + 1];
    if (marker === 0xff) {  // a byte that fills up
      start += 1;
      continue;
    }
    if (marker >= 0xc0 && marker <= 0xcf && !tables.includes(marker)) {
      const height = view.getUint16(start + 5);
      const width = view.getUint16(start + 7);
      return { height, width, components: bytes[start + 9] };
    }
    start += 2 + view.getUint16(start + 2);
  }
  throw new Error("damaged JPEG: without a frame header");
}

function lastMarker(bytes, marker) {
  for (let i = bytes.length - 2; i >= 0; i--) {
    if (bytes[i] === 0xff && bytes[i + 1] === marker) return i;
  }
  return -1;
}

// The browser decodes. It would fill up what is cut off, so the end is looked for first.
export async function jpegToGray(bytes, imageOrientation) {
  const end = lastMarker(bytes, 0xd9);
  const lastScan = lastMarker(bytes, 0xda);
  if (end < 0 || lastScan > end) throw new Error("truncated JPEG: no end of the image");
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
  const { data } = context.getImageData(0, 0, width, height);  // red, green, blue, alpha
  const pixels = new Float32Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = luma(data[4 * i], data[4 * i + 1], data[4 * i + 2]);
  }
  return { pixels, width, height };
}

export async function decodeJpeg(bytes, rules) {
  const { width, height, components } = jpegSize(bytes);
  checkSize(width, height, rules);
  if (components === 4) throw new Error("a CMYK image; expected gray or RGB");
  return jpegToGray(bytes, "from-image");  // upright, as EXIF says
}
