/** Small curves of one training run, drawn as SVG: sharp at any zoom, in the theme's colours. */

import { el, short, svg } from "./dom.js";
import { say } from "./text.js";

/** In the order of the protocol's rows. */
const LOSSES = [
  ["esd", "forget"],
  ["attn", "attention"],
  ["lora", "keep"],
  ["rsc", "synonyms"],
  ["adv", "attack"], // shown only where there are adversaries
];
const MOST = 1200; // points kept; beyond, every other one goes
const DECADES = 1.3; // a curve that spans more gets a logarithmic scale
const WEIGHT = 0.1; // of a new point in the running mean, the bold line

export class Curves {
  constructor() {
    this.clear();
    this.plots = LOSSES.map(([key, name]) => new Plot(key, name));
    this.element = el("div.erase-curves", {}, ...this.plots.map((plot) => plot.element));
    this.element.addEventListener("pointermove", (event) => this.point(event));
    this.element.addEventListener("pointerleave", () => this.point(null));
    this.plots.at(-1).element.hidden = true;
  }

  clear() {
    /** @type {[number, (number|null)[]][]} iteration and its losses */
    this.rows = [];
  }

  get last() {
    return this.rows.at(-1)?.[0] ?? 0;
  }

  /** Append losses of iterations `first`, `first + stride`, ...; what is known already is skipped. */
  add(first, rows, stride = 1) {
    rows.forEach((losses, index) => {
      const iteration = first + index * stride;
      if (iteration > this.last) this.rows.push([iteration, losses]);
    });
    if (this.rows.length > MOST) this.rows = this.rows.filter((_, index) => index % 2 === 0);
    this.draw();
  }

  draw() {
    this.plots.forEach((plot, index) =>
      plot.draw(this.rows.filter(([, losses]) => losses[index] != null).map(([x, l]) => [x, l[index]])),
    );
    this.plots.at(-1).element.hidden = !this.plots.at(-1).points.length;
  }

  /** Show the values under the pointer in all plots. */
  point(event) {
    const box = event?.target.closest?.("svg")?.getBoundingClientRect();
    const share = box?.width ? (event.clientX - box.left) / box.width : null;
    for (const plot of this.plots) plot.point(share);
  }
}

class Plot {
  constructor(key, name) {
    this.value = el("span.erase-value");
    this.scale = el("span.erase-scale");
    this.low = el("span.erase-low");
    this.raw = svg("path", { class: "erase-raw" });
    this.line = svg("path", { class: "erase-line" });
    this.cursor = svg("path", { class: "erase-cursor" });
    const plot = svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });
    plot.setAttribute("aria-label", say(`${name}Hint`));
    plot.append(this.raw, this.line, this.cursor);
    const head = el("div.erase-head", {}, el("span.erase-name", {}, say(name)), this.value);
    const frame = el("div.erase-plot", {}, plot, this.scale, this.low);
    this.element = el(`div.erase-curve.erase-${key}`, { title: say(`${name}Hint`) }, head, frame);
  }

  /** @param {[number, number][]} points iteration and value */
  draw(points) {
    this.points = points;
    const values = points.map(([, value]) => value);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const log = low > 0 && Math.log10(high / low) > DECADES;
    const f = log ? Math.log : (value) => value;
    const span = f(high) - f(low) || 1;
    const [start, end] = [points[0]?.[0] ?? 0, points.at(-1)?.[0] ?? 1];
    const place = ([x, y]) =>
      `${(((x - start) / (end - start || 1)) * 100).toFixed(2)} ${(96 - ((f(y) - f(low)) / span) * 92).toFixed(2)}`;
    this.raw.setAttribute("d", path(points.map(place)));
    this.line.setAttribute("d", path(smooth(points, f, log ? Math.exp : f).map(place)));
    this.scale.textContent = values.length ? short(high) + (log ? ` ${say("log")}` : "") : "";
    this.low.textContent = values.length ? short(low) : "";
    this.point(null);
  }

  /** Mark the point at that share of the width; null: show the last value. */
  point(share) {
    const points = this.points ?? [];
    const at = share == null ? null : nearest(points, share);
    this.cursor.setAttribute("d", at ? `M${share * 100} 0V100` : "");
    this.value.textContent = at ? `${say("step", { step: at[0] })}: ${short(at[1])}` : short(points.at(-1)?.[1]);
  }
}

/** The point closest to that share of the way along. */
function nearest(points, share) {
  if (!points.length) return null;
  const wanted = points[0][0] + share * (points.at(-1)[0] - points[0][0]);
  return points.reduce((best, point) =>
    Math.abs(point[0] - wanted) < Math.abs(best[0] - wanted) ? point : best,
  );
}

/** A running mean, taken on the scale that is drawn. */
function smooth(points, f, back) {
  let mean = 0;
  return points.map(([x, y], index) => {
    mean += Math.max(WEIGHT, 1 / (index + 1)) * (f(y) - mean); // the first ones weigh the same
    return [x, back(mean)];
  });
}

const path = (places) => (places.length ? `M${places.join("L")}` : "");
