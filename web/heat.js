/** A picture with the heat map of a word over it. */

import { el } from "./dom.js";

/** Colours from cool to hot: [red, green, blue, opacity]. */
const STOPS = [
  [20, 20, 120, 0.35],
  [120, 30, 160, 0.45],
  [225, 60, 90, 0.6],
  [250, 160, 40, 0.7],
  [255, 240, 120, 0.8],
];
const LONGEST = 640; // pixels of the canvas

export class Heat {
  constructor() {
    this.canvas = el("canvas", { role: "img" });
    this.element = el("div.erase-heat", { hidden: true }, this.canvas);
  }

  /** Fetch the picture and all maps of an output. */
  async load(told) {
    const { width, height, picture, words } = told;
    const scale = LONGEST / Math.max(width, height);
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.told = told;
    [this.picture, ...this.maps] = await Promise.all([
      image(picture),
      ...words.flatMap((word) => [image(word.heat), image(word.parts)]),
    ]);
    this.element.hidden = false;
  }

  /** Draw a word's map, the mean or that of one block and step; its highest and mean share. */
  paint(word, block = null, step = null) {
    const number = this.told.words.indexOf(word);
    const [mean, parts] = this.maps.slice(2 * number);
    const one = parts && (block ?? step) != null;
    const map = one ? tile(parts, this.told, block, step) : levels(mean);
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (this.picture) context.drawImage(this.picture, 0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(coloured(map), 0, 0, width, height);
    this.canvas.setAttribute("aria-label", word.text);
    if (!one) return word;
    const sum = map.values.reduce((all, value) => all + value, 0);
    const shares = [Math.max(...map.values), sum / map.values.length];
    const [top, average] = shares.map((share) => share * word.parts_top);
    return { top, mean: average };
  }
}

/** A data URL as an image, ready to draw; null for none. */
async function image(url) {
  if (!url) return null;
  const made = new Image();
  made.src = url;
  await made.decode();
  return made;
}

/** The grey levels of an image. */
function levels(picture) {
  const canvas = el("canvas", { width: picture.width, height: picture.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const values = Float32Array.from({ length: data.length / 4 }, (_, i) => data[4 * i] / 255);
  return { width: canvas.width, height: canvas.height, values };
}

/** One map of a sheet with blocks as rows and steps as columns; the mean over what is not said. */
function tile(sheet, { blocks, steps }, block, step) {
  const all = levels(sheet);
  const [width, height] = [all.width / steps.length, all.height / blocks.length];
  const rows = block == null ? blocks.keys() : [block];
  const places = [...rows].flatMap((row) =>
    (step == null ? [...steps.keys()] : [step]).map((column) => [row, column]),
  );
  const values = new Float32Array(width * height);
  for (const [row, column] of places) {
    for (let i = 0; i < values.length; i++) {
      const [x, y] = [i % width, Math.floor(i / width)];
      values[i] += all.values[(row * height + y) * all.width + column * width + x] / places.length;
    }
  }
  return { width, height, values };
}

/** A small canvas with the colours of the levels. */
function coloured({ width, height, values }) {
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  values.forEach((value, i) => picture.data.set(colour(value), 4 * i));
  context.putImageData(picture, 0, 0);
  return canvas;
}

function colour(value) {
  const place = Math.min(1, Math.max(0, value)) * (STOPS.length - 1);
  const [low, high] = [STOPS[Math.floor(place)], STOPS[Math.ceil(place)]];
  const mixed = low.map((part, i) => part + (place % 1) * (high[i] - part));
  return [mixed[0], mixed[1], mixed[2], 255 * mixed[3]];
}
