// Radiographs to gray intensities, and what is refused: as data/decode.py does.
//
// Each decoder takes the bytes of a file and the `rules` of page.json, and gives
// { pixels: Float32Array, width, height }, dense tissue bright. Errors do not name the file.

import { decodeDicom } from "./dicom.js";
import { decodeJpeg, decodePng, NOT_READ } from "./raster.js";

export async function decode(bytes, rules) {
  if (!bytes.length) throw new Error("is empty");
  if (bytes.length > rules.maxBytes) {
    throw new Error(`is over ${rules.maxBytes} bytes, too large for a radiograph`);
  }
  if (startsWith(bytes, 0x89, 0x50, 0x4e, 0x47)) return decodePng(bytes, rules);
  if (startsWith(bytes, 0xff, 0xd8)) return decodeJpeg(bytes, rules);
  if (startsWith(bytes.subarray(128), 0x44, 0x49, 0x43, 0x4d)) return decodeDicom(bytes, rules);
  if (startsWith(bytes, 2, 0) || startsWith(bytes, 8, 0)) {  // a group of elements
    throw new Error(`maybe DICOM, but without its preamble, ${NOT_READ}`);
  }
  throw new Error("not a PNG, JPEG or DICOM file");
}

function startsWith(bytes, ...values) {
  return values.every((value, i) => bytes[i] === value);
}
