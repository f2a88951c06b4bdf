/** What a guard does while pictures are drawn, on "Erase Guard" and "Guard Prompt". */

import { el, short, svg } from "./dom.js";
import { addPanel, api, fit, nodeOf } from "./host.js";
import { say } from "./text.js";

const EVENT = "eraseanything.guard"; // see nodes/live.py
const HEIGHT = 90; // pixels
const MASK = 96; // pixels of IRECE's mask
const WIDE = 200;
const TALL = 40; // of the bars, in their own units
const panels = new WeakMap();

/** Hear of every step, and hand it to the node's panel. */
export function listenToGuards() {
  api.addEventListener(EVENT, ({ detail }) => panels.get(nodeOf(detail.node))?.step(detail));
}

/** A bar a step, as high as the guard acted on the picture that it acted on most. */
export class GuardPanel {
  constructor(node) {
    this.node = node;
    this.bars = svg("svg", { viewBox: `0 0 ${WIDE} ${TALL}`, preserveAspectRatio: "none" });
    this.note = el("div.erase-note", { role: "status" }, say("guardIdle"));
    this.mask = el("img.erase-mask", { alt: "", hidden: true });
    this.element = el("div.erase-guard", {}, this.bars, this.note, this.mask);
    this.told = [];
    addPanel(node, "erase_guard", this.element, () => (this.mask.hidden ? HEIGHT : HEIGHT + MASK));
    panels.set(node, this);
  }

  /** Nothing: the steps tell themselves. */
  show() {}

  /** One step of sampling; an earlier one begins another picture. */
  step(told) {
    const last = this.told.at(-1);
    if (last && (last.prompt_id !== told.prompt_id || last.step > told.step)) this.told = [];
    this.told.push({ ...told, ...strongest(told.strength) });
    this.paint();
  }

  paint() {
    const { mask } = this.told.at(-1);
    this.mask.hidden = !mask;
    if (mask) this.mask.src = mask;
    const top = this.told.reduce((a, b) => (b.value > a.value ? b : a));
    const scale = Math.max(1, top.value);
    const bars = this.told.map((told) => this.bar(told, scale));
    this.bars.replaceChildren(...bars);
    const values = { concept: top.concept, step: top.step, strength: short(top.value) };
    this.note.textContent = say(top.value > 0 ? "guardActs" : "guardRests", values);
    fit(this.node);
  }

  bar({ step, total, value, concept }, scale) {
    const width = WIDE / Math.max(total, 1);
    const height = Math.max(0.5, (TALL * value) / scale);
    const hint = say("guardHint", { concept, step, total, strength: short(value) });
    const place = { x: width * (step - 1), y: TALL - height, width: 0.8 * width, height };
    const title = svg("title");
    title.textContent = hint;
    return svg("rect", place, title);
  }
}

/** The concept that a guard acted on most in any picture, and how strongly. */
function strongest(strength) {
  const rows = Object.entries(strength).map(([concept, row]) => ({ concept, value: Math.max(...row) }));
  return rows.reduce((a, b) => (b.value > a.value ? b : a), { concept: "", value: -Infinity });
}

/** The words of a prompt that were moved off a concept. */
export class GuardPromptPanel {
  constructor(node) {
    this.node = node;
    this.lines = el("div", {}, el("div.erase-note", {}, say("promptIdle")));
    this.element = el("div.erase-guard", {}, this.lines);
    addPanel(node, "erase_guard_prompt", this.element, () => HEIGHT / 2);
  }

  /** Show the output of a run, see nodes/live.py. */
  show({ eraseanything_guard_prompt: told = [] }) {
    const lines = told.map(({ concept, words, share }) =>
      say("promptChanged", { concept, words: words.join(", "), share: `${Math.round(100 * share)} %` }),
    );
    const shown = lines.length ? lines : [say("promptSame")];
    this.lines.replaceChildren(...shown.map((line) => el("div.erase-note", {}, line)));
    fit(this.node);
  }
}
