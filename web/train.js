/** The live panel on "Erase Concept (train)". */

import { Curves } from "./curves.js";
import { el } from "./dom.js";
import { addPanel, api, app, fit, hide, isForeign, nodeOf, refreshLists, widgetOf } from "./host.js";
import { duration, say } from "./text.js";

const ROUTE = "/eraseanything/state";
const RUNNING = ["text", "rollouts", "training"];
const SILENCE = 5000; // ms without an event after which the state is asked for, e.g. in another tab
const [HEIGHT, ACTIONS] = [290, 30]; // pixels, of the panel and of its buttons
const UNFINISHED = ["cancelled", "error"];
/** The values of the node's input "run"; the same in nodes/train.py. */
const [NEW, RESUME] = ["start anew", "resume"];

/** @type {WeakMap<object, TrainPanel>} */
const panels = new WeakMap();

export class TrainPanel {
  constructor(node) {
    this.node = node;
    this.phase = el("span.erase-phase");
    this.left = el("span.erase-left");
    this.bar = el("div.erase-bar-fill");
    this.note = el("div.erase-note", { role: "status" }, say("idle"));
    this.curves = new Curves();
    this.actions = el("div.erase-actions", { hidden: true });
    this.element = el(
      "div.erase-train",
      {},
      el("div.erase-head", {}, this.phase, this.left),
      el("div.erase-bar", {}, this.bar),
      this.curves.element,
      this.note,
      this.actions,
    );
    this.run = ""; // prompt id of the run that is shown
    this.stride = 1; // iterations between the rows that a restored run began with
    addPanel(node, "erase_live", this.element, () => HEIGHT + (this.actions.hidden ? 0 : ACTIONS));
    panels.set(node, this);
    fit(node);
  }

  /** Show an event of the running training. */
  update(event) {
    if (event.prompt_id !== this.run) {
      this.run = event.prompt_id;
      this.stride = 1;
      this.curves.clear();
    }
    const gap = event.first > this.curves.last + this.stride;
    if (gap && event.history.length) this.restore(event.node, event.prompt_id);
    else this.curves.add(event.first, event.history);
    this.show(event);
    this.watch(event);
  }

  /** Ask the server for the newest run of a node, e.g. after a reload of the page. */
  async restore(id, run = "") {
    const query = `?node=${encodeURIComponent(id)}${run && `&prompt_id=${encodeURIComponent(run)}`}`;
    const state = await api
      .fetchApi(ROUTE + query)
      .then((response) => response.json())
      .catch(() => null);
    if (!state || isForeign(state)) return;
    this.run = state.prompt_id;
    this.stride = state.stride;
    this.curves.clear();
    this.curves.add(state.first, state.history, state.stride);
    this.show(state);
    this.watch(state);
  }

  /** Events go to the tab that pressed Run; when none comes, look whether the run goes on. */
  watch({ node, phase, prompt_id }) {
    clearTimeout(this.timer);
    if (!RUNNING.includes(phase)) return;
    this.timer = setTimeout(() => {
      if (this.element.isConnected) this.restore(node, prompt_id);
    }, SILENCE);
  }

  show(state) {
    const running = RUNNING.includes(state.phase);
    this.element.dataset.phase = state.phase;
    const count = running && state.total ? ` ${state.step} / ${state.total}` : "";
    this.phase.textContent = say(state.phase) + count;
    const known = running && state.total && state.seconds_left > 0;
    this.left.textContent = known ? say("left", { time: duration(state.seconds_left) }) : "";
    const share = running ? state.step / (state.total || 1) : Number(state.phase === "done");
    this.bar.style.width = `${100 * share}%`;
    this.note.textContent = note(state);
    this.note.title = this.note.textContent;
    this.offer(state);
  }

  /** Buttons to go on with a run that broke off, or to begin again. */
  offer({ phase, file, step, total }) {
    this.actions.hidden = !UNFINISHED.includes(phase) || !file;
    const button = (text, run) =>
      el("button.erase-find", { type: "button", onclick: () => this.queue(run) }, text);
    this.actions.replaceChildren(
      button(say("resume", { step, total }), RESUME),
      button(say("anew"), NEW),
    );
    fit(this.node);
  }

  /** Press Run with this value of "run", which then is what it was. */
  async queue(run) {
    const widget = widgetOf(this.node, "run");
    const before = widget.value;
    widget.value = run;
    try {
      await app.queuePrompt(0, 1);
    } finally {
      widget.value = before;
    }
  }
}

/** The line below the curves: what to expect, where the file is, or what went wrong. */
function note({ phase, title, estimate, file, made, message }) {
  if (phase === "done") return say(made ? "again" : "saved", { file, made });
  if (message) return message;
  if (file) return say("kept", { file });
  return [title, estimate].filter(Boolean).join(say("colon"));
}

/** The host shows the same line, for those without this panel; once is enough. */
function hideHostText(id) {
  const node = nodeOf(id);
  const text = panels.has(node) && widgetOf(node, "$$node-text-preview");
  if (text) hide(text);
}

/** Hear the server's events. */
export function listen() {
  api.addEventListener("progress_text", ({ detail }) => {
    setTimeout(() => hideHostText(detail.nodeId)); // the host adds it first
  });
  api.addEventListener("eraseanything.progress", ({ detail }) => {
    const panel = panels.get(nodeOf(detail.node));
    if (panel && !isForeign(detail)) panel.update(detail);
    if (detail.file && !RUNNING.includes(detail.phase)) refreshLists();
  });
}
