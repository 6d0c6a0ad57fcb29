// Radiographs to probabilities in the browser: decode as data/decode.py does, then run the model.

const MIN_SIDE = 16;
const RADIOGRAPHY = ["CR", "DX", "RG"], LATERAL = ["LATERAL", "LL", "RL", "LLD", "RLD"];
const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };

async function load() {
  const { libraries, model } = await (await fetch("page.json")).json();
  // each library is checked against its hash, also where it comes from the network
  const fetched = Object.entries(libraries).map(async ([name, { url, integrity }]) => {
    const answer = await fetch(url, { integrity });
    if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
    return [name, await answer.arrayBuffer()];
  });
  const library = Object.fromEntries(await Promise.all(fetched));
  const script = (buffer) => URL.createObjectURL(new Blob([buffer], { type: "text/javascript" }));
  const ort = await import(script(library.ort));
  ort.env.wasm.wasmBinary = library.wasm;
  ort.env.wasm.numThreads = 1;  // threads need headers that a plain file server does not send
  await new Promise((resolve, reject) => {
    const element = document.createElement("script");
    Object.assign(element, { src: script(library.dicom), onload: resolve, onerror: reject });
    document.head.append(element);
  });
  const metadata = await (await fetch("model.json")).json();
  const file = await (await fetch(model)).arrayBuffer();
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  return { ort, metadata, session };
}

// -- decoding: each gives { pixels: Float32Array, width, height } -----------------------------------

const luma = (r, g, b) => (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;  // ITU-R 601, as Pillow

async function decode(bytes) {
  const starts = (...values) => values.every((value, i) => bytes[i] === value);
  if (starts(0x89, 0x50, 0x4e, 0x47)) return decodePng(bytes);
  if (starts(0xff, 0xd8)) return decodeJpeg(bytes);
  if (String.fromCharCode(...bytes.subarray(128, 132)) === "DICM") return decodeDicom(bytes);
  throw new Error("not a PNG, JPEG or DICOM file");
}

async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function decodePng(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let at = 8, header = null, palette = null, kind = "";
  const parts = [];
  while (kind !== "IEND") {
    if (at + 12 > bytes.length) throw new Error("truncated");
    const length = view.getUint32(at), body = bytes.subarray(at + 8, at + 8 + length);
    kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "IHDR") header = new DataView(body.buffer, body.byteOffset);
    if (kind === "PLTE") palette = body;
    if (kind === "IDAT") parts.push(body);
    at += length + 12;
  }
  const width = header.getUint32(0), height = header.getUint32(4);
  const depth = header.getUint8(8), color = header.getUint8(9);
  if (header.getUint8(12)) throw new Error("an interlaced PNG; save it again without");
  const channels = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }[color];
  const stride = Math.ceil((width * channels * depth) / 8), step = Math.max(1, (channels * depth) / 8);
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
  return { pixels, width, height };
}

async function decodeJpeg(bytes) {
  const options = { colorSpaceConversion: "none", imageOrientation: "none" };
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }), options);
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

async function decodeDicom(bytes) {
  const set = window.dicomParser.parseDicom(bytes);
  const text = (tag) => (set.string(tag) || "").trim().toUpperCase();
  const modality = text("x00080060"), view = text("x00185101"), photometric = text("x00280004");
  if (modality && !RADIOGRAPHY.includes(modality)) throw new Error(`DICOM of modality ${modality}`);
  if (LATERAL.includes(view)) throw new Error(`a lateral view (${view})`);
  if (!photometric.startsWith("MONOCHROME")) throw new Error(`pixels of kind ${photometric}`);
  if (Number(text("x00280008") || 1) !== 1) throw new Error("more than one frame");
  const element = set.elements.x7fe00010;
  if (!element) throw new Error("DICOM without pixel data");
  if (set.elements.x00283000 || set.elements.x00283010) {
    throw new Error("DICOM with a lookup table, which this page does not read; use export.predict");
  }
  const syntax = text("x00020010");
  const width = set.uint16("x00280011"), height = set.uint16("x00280010");
  let pixels;
  if (syntax === "1.2.840.10008.1.2.4.50") {  // JPEG baseline
    const frame = element.basicOffsetTable.length
      ? window.dicomParser.readEncapsulatedImageFrame(set, element, 0)
      : window.dicomParser.readEncapsulatedPixelDataFromFragments(set, element, 0, element.fragments.length);
    ({ pixels } = await decodeJpeg(frame));
  } else if (["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"].includes(syntax)) {
    const allocated = set.uint16("x00280100"), stored = set.uint16("x00280101") || allocated;
    const signed = set.uint16("x00280103") === 1;
    const data = new DataView(bytes.buffer, bytes.byteOffset + element.dataOffset, element.length);
    if (data.byteLength < (width * height * allocated) / 8) throw new Error("truncated");
    if (allocated > 16) throw new Error(`${allocated} bits a pixel`);
    pixels = new Float32Array(width * height);
    for (let i = 0; i < pixels.length; i++) {
      let value = (allocated === 8 ? data.getUint8(i) : data.getUint16(2 * i, true)) & ((1 << stored) - 1);
      if (signed && value >> (stored - 1)) value -= 1 << stored;
      pixels[i] = value;
    }
  } else {
    throw new Error(`DICOM compressed as ${syntax}, which this page does not read; use export.predict`);
  }
  const number = (tag, other) => { const x = set.floatString(tag, 0); return x === undefined ? other : x; };
  const slope = number("x00281053", 1), intercept = number("x00281052", 0);
  const center = number("x00281050"), width2 = number("x00281051"), kind = text("x00281056") || "LINEAR";
  const exact = kind === "LINEAR_EXACT";
  const middle = exact ? center : center - 0.5, half = (exact ? width2 : width2 - 1) / 2;
  for (let i = 0; i < pixels.length; i++) {
    let value = pixels[i] * slope + intercept;
    if (width2 !== undefined && center !== undefined) {
      value = kind === "SIGMOID" ? 1 / (1 + Math.exp((-4 * (value - center)) / width2))
        : Math.min(Math.max(value, middle - half), middle + half);
    }
    pixels[i] = photometric === "MONOCHROME1" ? -value : value;
  }
  return { pixels, width, height };
}

// -- the page ---------------------------------------------------------------------------------------

function element(kind, text, className) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function range(pixels) {
  let low = Infinity, high = -Infinity;
  for (const value of pixels) { low = Math.min(low, value); high = Math.max(high, value); }
  return [low, high];
}

function thumbnail({ pixels, width, height }) {
  const [low, high] = range(pixels), canvas = element("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"), data = context.createImageData(width, height);
  pixels.forEach((value, i) => data.data.fill((255 * (value - low)) / (high - low), 4 * i, 4 * i + 3));
  for (let i = 3; i < data.data.length; i += 4) data.data[i] = 255;
  context.putImageData(data, 0, 0);
  return canvas;
}

async function predict({ ort, metadata, session }, file) {
  const article = element("article");
  article.append(element("h2", file.name));
  try {
    const image = await decode(new Uint8Array(await file.arrayBuffer()));
    const [low, high] = range(image.pixels);
    if (Math.min(image.width, image.height) < MIN_SIDE) {
      throw new Error(`${image.width} x ${image.height} pixels; expected at least ${MIN_SIDE} x ${MIN_SIDE}`);
    }
    if (!(high > low)) throw new Error("holds one intensity only");
    const tensor = new ort.Tensor("float32", image.pixels, [1, 1, image.height, image.width]);
    const { data } = (await session.run({ image: tensor })).probability;
    const table = element("table"), head = element("tr");
    for (const name of ["label", "probability", "threshold", "", "calibration"]) head.append(element("th", name));
    table.append(head);
    metadata.labels.forEach((label, i) => {
      const threshold = metadata.thresholds[i], known = threshold !== null;
      const row = element("tr", undefined, known && data[i] >= threshold ? "positive" : "");
      row.append(element("td", label), element("td", data[i].toFixed(4), "number"),
        element("td", known ? threshold.toFixed(4) : "–", "number"),
        element("td", known ? (data[i] >= threshold ? "yes" : "no") : "–"),
        element("td", metadata.calibration[i].method));
      row.dataset.probability = data[i];
      table.append(row);
    });
    article.append(thumbnail(image), table);
  } catch (error) {
    article.append(element("p", `${file.name}: ${error.message}`, "error"));
  }
  $("results").prepend(article);
}

async function main() {
  let page;
  try {
    page = await load();
  } catch (error) {
    say(`The model cannot be loaded: ${error.message}`);
    throw error;
  }
  const { metadata } = page;
  $("title").textContent = `${metadata.corpus}-${metadata.init}: chest radiograph to probabilities`;
  $("synthetic").hidden = !metadata.synthetic;
  const shown = ["intended_use", "corpus", "init", "architecture", "precision", "thresholds_from",
    "checkpoint_sha256", "file_sha256"];
  for (const key of shown) $("card").append(element("dt", key.replaceAll("_", " ")), element("dd", metadata[key]));
  let queue = Promise.resolve();
  const take = (files) => {
    for (const file of files) {
      queue = queue.then(() => { say(`reading ${file.name} …`); return predict(page, file); });
    }
    queue = queue.then(() => say("ready"));
  };
  $("files").addEventListener("change", () => take([...$("files").files]));
  const drop = $("drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take([...event.dataTransfer.files]);
    });
  }
  $("files").disabled = false;
  say("ready");
}

main();
