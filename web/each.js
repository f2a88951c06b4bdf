/** The table on "Erase Each Concept (train)": a line for every concept. */

import { el } from "./dom.js";
import { addPanel, api, fit, isForeign, nodeOf } from "./host.js";
import { duration, say } from "./text.js";

const [ROW, HEAD, MOST] = [22, 26, 16]; // pixels of a line and of the head; lines before it scrolls
const WIDTH = 460; // pixels

/** @type {WeakMap<object, EachPanel>} */
const panels = new WeakMap();

export class EachPanel {
  constructor(node) {
    this.node = node;
    this.note = el("div.erase-note", { role: "status" }, say("eachIdle"));
    this.body = el("tbody");
    this.element = el(
      "div.erase-each",
      {},
      this.note,
      el("div.erase-rows", {}, el("table", {}, this.body)),
    );
    addPanel(node, "erase_each", this.element, () => HEAD + ROW * Math.min(MOST, this.count ?? 0));
    panels.set(node, this);
  }

  /** Show the output of a run, see nodes/live.py. */
  show({ eraseanything_each: [told] = [] }) {
    if (told) this.list(told.rows, "");
  }

  /** Every concept; `now` is at work. */
  list(rows, now) {
    const over = rows.filter((row) => row.said).length;
    this.note.textContent = say(now ? "eachAt" : "eachOver", { now, over, total: rows.length });
    this.body.replaceChildren(...rows.map((row) => line(row, now)));
    const grown = this.count !== rows.length;
    this.count = rows.length;
    if (grown) fit(this.node, WIDTH);
    this.body.querySelector(".erase-now")?.scrollIntoView?.({ block: "nearest" });
  }

  /** How far the training at work is. */
  progress({ phase, step, total, title, seconds_left }) {
    const left = seconds_left > 0 ? say("left", { time: duration(seconds_left) }) : "";
    this.note.textContent = [`${title}${say("colon")}${say(phase)} ${step} / ${total}`, left].filter(Boolean).join(say("comma"));
  }
}

function line({ concept, said, seconds, file, failed }, now) {
  const name = failed ? "tr.erase-failed" : concept === now && !said ? "tr.erase-now" : "tr";
  const cells = [concept, said || (concept === now ? "…" : ""), seconds ? duration(seconds) : "", file];
  return el(name, { title: said }, ...cells.map((text) => el("td", {}, text)));
}

/** Hear the server's events. */
export function listenToEach() {
  api.addEventListener("eraseanything.each", ({ detail }) => {
    const panel = panels.get(nodeOf(detail.node));
    if (panel && !isForeign(detail)) panel.list(detail.rows, detail.now);
  });
  api.addEventListener("eraseanything.progress", ({ detail }) => {
    const panel = panels.get(nodeOf(detail.node));
    const runs = ["text", "rollouts", "training"].includes(detail.phase);
    if (panel && runs && !isForeign(detail)) panel.progress(detail);
  });
}
