/** The viewer on "Attention Map": the prompt as words, and where each of them lands. */

import { el } from "./dom.js";
import { addPanel, fit } from "./host.js";
import { Heat } from "./heat.js";
import { say } from "./text.js";

const WIDE = 320; // pixels that the picture may take on the node
const TALL = 320;
const CHROME = 150; // pixels of words, caption and choices around it

export class AttentionPanel {
  constructor(node) {
    this.node = node;
    this.words = el("div.erase-words", { role: "group" });
    this.heat = new Heat();
    this.caption = el("div.erase-note", { role: "status" }, say("viewer"));
    this.block = chooser(say("block"), () => this.paint());
    this.step = chooser(say("at"), () => this.paint());
    this.choices = el("div.erase-choices", { hidden: true }, this.block.label, this.step.label);
    this.element = el(
      "div.erase-attention",
      {},
      this.words,
      this.heat.element,
      this.caption,
      this.choices,
    );
    addPanel(node, "erase_viewer", this.element, () => this.height());
    fit(node);
  }

  /** Pixels that the panel needs; little before there is a picture. */
  height() {
    if (!this.told) return 60;
    const { width, height } = this.told;
    return CHROME + Math.min(TALL, (WIDE * height) / width);
  }

  /** Show the output of a run, see nodes/live.py. */
  async show({ eraseanything_attention: [told] = [] }) {
    if (!told) return;
    this.told = told;
    this.block.fill(told.blocks ?? []);
    this.step.fill(told.steps ?? []);
    this.choices.hidden = !told.blocks?.length;
    this.pinned = told.words.find((word) => word.asked) ?? told.words[0];
    this.spell();
    await this.heat.load(told);
    this.paint();
    fit(this.node);
  }

  /** The prompt again, its words as buttons. */
  spell() {
    const { prompt, words } = this.told;
    const spans = words.flatMap((word) => word.spans.map(([start, end]) => ({ word, start, end })));
    // A word asked for may hold others ("bengal tiger"); the longest at a place wins.
    spans.sort((a, b) => a.start - b.start || b.end - a.end);
    const parts = [];
    let at = 0;
    for (const { word, start, end } of spans) {
      if (start < at) continue;
      parts.push(prompt.slice(at, start), this.button(word, prompt.slice(start, end)));
      at = end;
    }
    this.words.replaceChildren(...parts, prompt.slice(at));
  }

  button(word, text) {
    const look = () => this.paint(word);
    const back = () => this.paint();
    const keep = () => {
      this.pinned = word;
      this.paint();
    };
    const made = el(
      "button.erase-word",
      { type: "button", onpointerenter: look, onpointerleave: back, onfocus: look, onblur: back },
      text,
    );
    made.onclick = keep;
    made.onkeydown = (event) => this.walk(event);
    made.word = word;
    return made;
  }

  /** Arrow keys go from word to word. */
  walk(event) {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const all = [...this.words.querySelectorAll("button")];
    all.at((all.indexOf(event.target) + way) % all.length)?.focus();
  }

  /** Lay a word's heat over the picture; without one, that of the word that was clicked. */
  paint(word = this.pinned) {
    if (!word || !this.heat.maps) return;
    for (const button of this.words.querySelectorAll("button")) {
      button.classList.toggle("erase-shown", button.word === word);
      button.setAttribute("aria-pressed", String(button.word === this.pinned));
    }
    const { top, mean } = this.heat.paint(word, this.block.index(), this.step.index());
    const shares = say("share", { word: word.text, top: percent(top), mean: percent(mean) });
    this.caption.textContent = this.told.picture ? shares : `${shares}. ${say("noPicture")}`;
  }
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** A list to choose one of some numbers from, or all. */
function chooser(text, changed) {
  const select = el("select", { onchange: changed });
  return {
    label: el("label", {}, text, select),
    fill: (numbers) =>
      select.replaceChildren(new Option(say("all"), "-1"), ...numbers.map((n, i) => new Option(n, i))),
    /** Place of the chosen number; null: all. */
    index: () => (Number(select.value) < 0 ? null : Number(select.value)),
  };
}
