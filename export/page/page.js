// Radiographs to probabilities in the browser: load the model, decode each file, run, show.

import { decode } from "./decode.js";
import { NotFrontal } from "./dicom.js";
import { preprocess, rangeOf } from "./preprocess.js";

const SVG = "http://www.w3.org/2000/svg";
const MANY = 4;  // files at a time, of which the status no longer repeats each result

const byId = (id) => document.getElementById(id);

// -- loading ----------------------------------------------------------------------------------

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

function scriptUrl(content) {
  return URL.createObjectURL(new Blob([content], { type: "text/javascript" }));
}

async function loadLibraries(libraries) {
  const content = {};
  for (const [name, file] of Object.entries(libraries)) content[name] = await fetchChecked(file);
  const ort = await import(scriptUrl(content.ort));
  ort.env.wasm.wasmBinary = content.wasm;
  ort.env.wasm.numThreads = 1;  // threads need headers that a plain file server does not send
  await new Promise((resolve, reject) => {  // dicom-parser is no module: it sets a global
    const script = document.createElement("script");
    Object.assign(script, { src: scriptUrl(content.dicom), onload: resolve, onerror: reject });
    document.head.append(script);
  });
  return ort;
}

// What page.json names: the runtime, the model's session and metadata, and what is said of it.
async function load() {
  const answer = await fetch("page.json", { cache: "no-cache" });
  if (!answer.ok) throw new Error(`page.json: ${answer.status}`);
  const page = await answer.json();
  // A model.json of another export would give labels and thresholds of another model.
  const description = await fetchChecked(page.metadata);
  const metadata = JSON.parse(new TextDecoder().decode(description));
  const content = await fetchChecked(page.model);
  const ort = await loadLibraries(page.libraries);
  const session = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
  return { ort, session, metadata, rules: page.rules, about: page.about };
}

// -- predicting -------------------------------------------------------------------------------

// A file's image and probabilities; an error says why there are none, without the file's name.
async function predict({ ort, session, rules }, file) {
  const image = await decode(new Uint8Array(await file.arrayBuffer()), rules);
  const [low, high] = rangeOf(image.pixels);
  if (!Number.isFinite(high - low)) throw new Error("holds NaN or infinite intensities");
  if (low === high) throw new Error("holds one intensity only");
  const shape = [1, 1, image.height, image.width];
  const input = new ort.Tensor("float32", image.pixels, shape);
  const { probability } = await session.run({ image: input });
  if (!probability.data.every(Number.isFinite)) {
    throw new Error("the model gave a probability that is not a number");
  }
  return { image, probabilities: [...probability.data] };
}

// The findings of an image, one per label; `isCalled` is null where there is no threshold.
function findingsOf({ metadata, about }, probabilities) {
  return metadata.labels.map((label, i) => {
    const threshold = metadata.thresholds[i];
    const probability = probabilities[i];
    const isCalled = threshold === null ? null : probability >= threshold;
    return { label, probability, threshold, isCalled, isWeak: about.weak.includes(label) };
  });
}

function summaryOf(findings) {
  const called = findings.filter((finding) => finding.isCalled).map((finding) => finding.label);
  const count = `${called.length} of ${findings.length} findings called`;
  return called.length ? `${count}: ${called.join(", ")}` : count;
}

// -- showing ----------------------------------------------------------------------------------

function element(kind, text, attributes = {}) {
  const made = document.createElement(kind);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function say(text) {
  byId("status").textContent = text;
}

// The image as the model sees it, with a text for those who do not.
function pictureOf(image, size, name) {
  const levels = preprocess(image, size);
  const canvas = document.createElement("canvas");
  canvas.width = size;
  canvas.height = size;
  const context = canvas.getContext("2d");
  const shown = context.createImageData(size, size);
  levels.forEach((level, i) => shown.data.set([level, level, level, 255], 4 * i));
  context.putImageData(shown, 0, 0);
  const seen = `as the model sees it: ${size} × ${size} pixels, contrast equalized`;
  const figure = document.createElement("figure");
  figure.append(element("img", "", { src: canvas.toDataURL(), alt: `${name} ${seen}` }),
    element("figcaption", seen[0].toUpperCase() + seen.slice(1)));
  return figure;
}

function rectangle(kind, x, y, width, height) {
  const made = document.createElementNS(SVG, "rect");
  const attributes = { class: kind, x, y, width, height };
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A bar from 0 to 1 with the threshold's mark; the numbers beside it say the same in words.
function barOf({ probability, threshold }) {
  const bar = document.createElementNS(SVG, "svg");
  bar.setAttribute("viewBox", "0 0 100 10");
  bar.setAttribute("preserveAspectRatio", "none");
  bar.setAttribute("aria-hidden", "true");
  bar.append(rectangle("track", 0, 1, 100, 8), rectangle("fill", 0, 1, 100 * probability, 8));
  if (threshold !== null) bar.append(rectangle("mark", 100 * threshold - 0.75, -2, 1.5, 14));
  return bar;
}

function rowOf(finding) {
  const { label, probability, threshold, isCalled, isWeak } = finding;
  const name = element("th", label, { scope: "row" });
  if (isWeak) name.append(element("small", "worse than chance on validation"));
  const number = element("td", probability.toFixed(4), { class: "number" });
  number.append(barOf(finding));
  let verdict = "no threshold";
  if (isCalled !== null) verdict = isCalled ? "called" : "not called";
  const row = document.createElement("tr");
  if (isCalled) row.className = "called";
  row.dataset.probability = probability;
  const limit = threshold === null ? "none" : threshold.toFixed(4);
  row.append(name, number, element("td", limit, { class: "number" }), element("td", verdict));
  return row;
}

function tableOf(findings) {
  const head = document.createElement("tr");
  for (const name of ["Finding", "Probability", "Threshold", "Result"]) {
    head.append(element("th", name, { scope: "col" }));
  }
  const table = document.createElement("table");
  table.append(element("caption", `${summaryOf(findings)}.`));
  table.createTHead().append(head);
  table.createTBody().append(...findings.map(rowOf));
  return table;
}

let articles = 0;

function show(name, ...parts) {
  articles += 1;
  const id = `result-${articles}`;
  const article = element("article", "", { "aria-labelledby": id });
  article.append(element("h3", name, { id }), ...parts);
  byId("articles").prepend(article);
  byId("results").hidden = false;
}

// Read one file and show its findings, or why it was refused; gives that in a sentence.
async function take(page, file) {
  try {
    const { image, probabilities } = await predict(page, file);
    const findings = findingsOf(page, probabilities);
    const picture = pictureOf(image, page.metadata.image_size, file.name);
    show(file.name, picture, tableOf(findings));
    return { isRead: true, sentence: `${file.name}: ${summaryOf(findings)}.` };
  } catch (error) {
    const kind = error instanceof NotFrontal ? "left out" : "not read";
    const sentence = `${kind}: ${error.message}`;
    show(file.name, element("p", `This image was ${sentence}`, { class: "refused" }));
    return { isRead: false, sentence: `${file.name}: ${sentence}.` };
  }
}

async function takeAll(page, files) {
  byId("results").setAttribute("aria-busy", "true");
  const results = [];
  for (const file of files) {
    say(`Reading ${file.name} …`);
    results.push(await take(page, file));
  }
  byId("results").setAttribute("aria-busy", "false");
  const read = results.filter((result) => result.isRead).length;
  const counts = `${read} read, ${results.length - read} refused.`;
  const sentences = results.map((result) => result.sentence);
  say(results.length > MANY ? counts : sentences.join(" "));
}

function describe({ metadata, about }) {
  byId("title").textContent = `${about.title}: chest radiograph to probabilities`;
  byId("synthetic").hidden = !metadata.synthetic;
  for (const list of ["cautions", "numbers"]) {
    for (const sentence of about[list]) byId(list).append(element("li", sentence));
  }
  for (const [name, text] of Object.entries(about.model)) {
    byId("card").append(element("dt", name), element("dd", text));
  }
}

// One file after the other, also where some are dropped while others are read.
function listen(page) {
  let queue = Promise.resolve();
  const enqueue = (files) => {
    const list = [...files];
    if (list.length) queue = queue.then(() => takeAll(page, list));
  };
  const button = byId("choose");
  const input = byId("files");
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    enqueue(input.files);
    input.value = "";  // so that the same file can be chosen again
  });
  document.addEventListener("drop", (event) => enqueue(event.dataTransfer.files));
  button.disabled = false;
}

// Without this the browser would leave the page and open what is dropped beside the button.
function catchDrops() {
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      byId("choose").classList.toggle("over", kind === "dragover");
    });
  }
}

async function main() {
  catchDrops();
  try {
    const page = await load();
    describe(page);
    listen(page);
    say("The model is ready.");
  } catch (error) {
    say(`The model cannot be loaded: ${error.message}`);
    throw error;
  } finally {
    byId("results").setAttribute("aria-busy", "false");
  }
}

main();
