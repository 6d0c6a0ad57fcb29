// The picture that the model sees: as data/preprocess.py makes it. The model does the same inside
// and takes the raw image; here it is done again, to be shown.

// An image to size x size levels of gray from 0 to 255: resize, scale, equalize.
export function preprocess(image, size) {
  const resized = resize(image, size);
  const [low, high] = rangeOf(resized);
  const levels = new Uint8Array(resized.length);
  for (let i = 0; i < levels.length; i++) {
    levels[i] = Math.floor((255 * (resized[i] - low)) / (high - low) + 0.5);
  }
  return equalize(levels);
}

export function rangeOf(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

// Each axis by Pillow's antialiased BILINEAR: rows first, then columns.
function resize({ pixels, width, height }, size) {
  const rows = new Float32Array(size * width);
  triangleFilter(height, size).forEach(({ first, weights }, y) => {
    weights.forEach((weight, k) => {
      const source = (first + k) * width;
      for (let x = 0; x < width; x++) rows[y * width + x] += weight * pixels[source + x];
    });
  });
  const resized = new Float32Array(size * size);
  triangleFilter(width, size).forEach(({ first, weights }, x) => {
    for (let y = 0; y < size; y++) {
      let sum = 0;
      weights.forEach((weight, k) => { sum += weight * rows[y * width + first + k]; });
      resized[y * size + x] = sum;
    }
  });
  return resized;
}

// For each of `size` outputs: its first input among `length`, and the weights from there on.
function triangleFilter(length, size) {
  const scale = length / size;
  const support = Math.max(scale, 1);  // the filter widens where it reduces: the antialiasing
  const outputs = [];
  for (let i = 0; i < size; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.floor(Math.max(center - support + 0.5, 0));
    const last = Math.floor(Math.min(center + support + 0.5, length));
    const heights = [];
    for (let input = first; input < last; input++) {
      const distance = Math.abs(input + 0.5 - center);
      heights.push(Math.max(1 - distance / support, 0));
    }
    const total = heights.reduce((sum, value) => sum + value, 0);
    outputs.push({ first, weights: heights.map((value) => value / total) });
  }
  return outputs;
}

// Histogram equalization as OpenCV's, in integers.
function equalize(levels) {
  const counts = new Array(256).fill(0);
  for (const level of levels) counts[level] += 1;
  const lowest = counts.findIndex((count) => count > 0);
  const total = levels.length - counts[lowest];
  const table = new Uint8Array(256);
  let above = 0;  // pixels up to a level, less those of the lowest
  for (let level = lowest + 1; level < 256; level++) {
    above += counts[level];
    table[level] = Math.floor((2 * 255 * above + total) / (2 * total));
  }
  return levels.map((level) => table[level]);
}
