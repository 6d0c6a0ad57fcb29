// Radiographs to probabilities in the browser: load the model, decode each file, run, show.

import { decode } from "./decode.js";

const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };

// A file's content, held to its hash, also where it comes from the network.
async function fetchChecked({ url, integrity }) {
  const answer = await fetch(url, { integrity, cache: "no-cache" }).catch(() => null);
  if (answer === null) {
    throw new Error(`${url} cannot be fetched, or is not the file that this page was made with; `
      + "write the page again with export.page");
  }
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return answer.arrayBuffer();
}

async function load() {
  const answer = await fetch("page.json", { cache: "no-cache" });
  if (!answer.ok) throw new Error(`page.json: ${answer.status}`);
  const { libraries, model, metadata, rules } = await answer.json();
  // A model.json of another export would give labels and thresholds of another model.
  const description = await fetchChecked(metadata), modelFile = await fetchChecked(model);
  const library = {};
  for (const [name, file] of Object.entries(libraries)) library[name] = await fetchChecked(file);
  const script = (buffer) => URL.createObjectURL(new Blob([buffer], { type: "text/javascript" }));
  const ort = await import(script(library.ort));
  ort.env.wasm.wasmBinary = library.wasm;
  ort.env.wasm.numThreads = 1;  // threads need headers that a plain file server does not send
  await new Promise((resolve, reject) => {
    const element = document.createElement("script");
    Object.assign(element, { src: script(library.dicom), onload: resolve, onerror: reject });
    document.head.append(element);
  });
  const session = await ort.InferenceSession.create(modelFile, { executionProviders: ["wasm"] });
  return { ort, metadata: JSON.parse(new TextDecoder().decode(description)), session, rules };
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

async function predict({ ort, metadata, session, rules }, file) {
  const article = element("article");
  article.append(element("h2", file.name));
  try {
    const image = await decode(new Uint8Array(await file.arrayBuffer()), rules);
    const [low, high] = range(image.pixels);
    if (!Number.isFinite(high - low)) throw new Error("holds NaN or infinite intensities");
    if (!(high > low)) throw new Error("holds one intensity only");
    const tensor = new ort.Tensor("float32", image.pixels, [1, 1, image.height, image.width]);
    const { data } = (await session.run({ image: tensor })).probability;
    if (!data.every(Number.isFinite)) throw new Error("the model gave a probability that is not a number");
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
