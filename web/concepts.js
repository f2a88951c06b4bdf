/** Chips on the Concept Set nodes: names to erase, and the four bands of words that stay. */

import { el } from "./dom.js";
import { addPanel, api, chain, fit, hide, isLinked, runAlone, widgetOf } from "./host.js";
import { say } from "./text.js";

const ROUTE = "/eraseanything/words";
/** The node's text inputs, with the names of their lists in a concept set. */
const LISTS = {
  synonyms: "erased",
  irrelevant_near: "near",
  irrelevant_mid: "mid",
  irrelevant_far: "far",
  irrelevant_none: "none",
};
const MOST = 330; // pixels that the panel asks for; more words scroll where the node is no taller
/** The text of a list that is to stay empty; the same in nodes/concepts.py. */
const NO_WORDS = "-";
/** Inputs whose texts are a person's own words for one concept. */
const LISTED = [...Object.keys(LISTS), "sentences"];
const OWN = [...LISTED, "sense"];
/** Inputs that decide which words are found. */
const ASKED = ["concept", "kind", "source", "sense", "per_band", "seed"];

const split = (text) => unique(String(text ?? "").split(/[,\n]/).map((word) => word.trim().replace(/\s+/g, " ")));
const unique = (words) => [...new Map(words.filter(Boolean).map((word) => [word.toLowerCase(), word])).values()];

export class ConceptPanel {
  /** @param {boolean} editable whether the node has the text inputs that hold the words */
  constructor(node, editable) {
    this.node = node;
    this.editable = editable;
    this.inner = el("div.erase-concepts-inner");
    this.element = el("div.erase-concepts", {}, this.inner);
    this.widget = addPanel(node, "erase_chips", this.element, () => Math.min(this.tall ?? 60, MOST));
    if (!this.widget) return;
    if (editable) this.bind();
    this.render();
    new ResizeObserver(() => this.measure()).observe(this.inner);
  }

  /** The chips take the place of the text inputs, which go on holding the words. */
  bind() {
    for (const name of Object.keys(LISTS)) {
      const widget = widgetOf(this.node, name);
      if (widget) hide(widget);
    }
    this.own = new Map(); // concept -> its own words, set aside
    this.named = this.name();
    const concept = widgetOf(this.node, "concept");
    if (concept) chain(concept, "callback", () => this.follow());
    for (const name of ASKED) {
      const widget = widgetOf(this.node, name);
      if (widget) chain(widget, "callback", () => this.render());
    }
    chain(this.node, "onConfigure", () => {
      this.named = this.name();
      this.render();
    });
    chain(this.node, "onConnectionsChange", () => this.render());
  }

  /** The concept, as two spellings of it have in common. */
  name() {
    return String(widgetOf(this.node, "concept")?.value ?? "").trim().toLowerCase();
  }

  /** Another concept has other words: those of the last are set aside until it comes back. */
  follow() {
    if (this.name() === this.named) return;
    const widgets = OWN.map((name) => widgetOf(this.node, name)).filter(Boolean);
    const left = new Map(widgets.map((widget) => [widget.name, widget.value]));
    if ([...left.values()].some(Boolean)) this.own.set(this.named, left);
    else this.own.delete(this.named); // a name half typed
    const known = this.own.get(this.name());
    if (known) this.aside = null;
    else if (LISTED.some((name) => left.get(name))) this.aside = left;
    this.named = this.name();
    for (const widget of widgets) widget.value = known?.get(widget.name) ?? "";
  }

  /** The words that were set aside are this concept's, too: its name was only mistyped. */
  takeAlong() {
    for (const name of LISTED) widgetOf(this.node, name).value = this.aside.get(name);
    this.aside = null;
    this.render();
  }

  /** Show the words that a run found when it was `asked` for them, see nodes/live.py. */
  show({ eraseanything_concepts: [told] = [] }, asked = this.asked()) {
    if (!told) return;
    this.wrong = "";
    this.told = { ...told, asked };
    this.render();
  }

  /** What decides which words are found, to be compared. */
  asked() {
    return JSON.stringify(ASKED.map((name) => widgetOf(this.node, name)?.value));
  }

  /** What the last run found, unless other words were asked for since. */
  found() {
    const fresh = this.told && (!this.editable || this.told.asked === this.asked());
    return fresh ? this.told : null;
  }

  /** The words of a list: the user's, else those found. */
  words(name, concept) {
    const own = this.editable ? split(widgetOf(this.node, name)?.value) : [];
    if (own.length) return { words: own[0] === NO_WORDS && own.length === 1 ? [] : own, own: true };
    const list = LISTS[name];
    const found = list === "erased" ? concept?.synonyms : concept?.irrelevant[list];
    return { words: found ?? [], own: false };
  }

  /** Make a list the user's, one with no words too; null goes back to those found. */
  write(name, words) {
    const widget = widgetOf(this.node, name);
    widget.value = words ? unique(words).join(", ") || NO_WORDS : "";
    widget.callback?.(widget.value);
    this.render();
  }

  render() {
    const told = this.found();
    const focused = this.inner.querySelector(":focus-visible")?.closest("[data-list]")?.dataset.list;
    this.inner.replaceChildren(...(this.editable ? this.form(told) : this.reading(told)));
    if (focused) this.inner.querySelector(`[data-list="${focused}"] input`)?.focus();
    this.measure();
  }

  /** Lists to edit, and the meanings to choose from. */
  form(told) {
    const own = told?.set.concepts.find((concept) => told.own.includes(concept.name));
    const lists = Object.keys(LISTS).map((name) => this.list(name, this.words(name, own)));
    return [...this.senses(told), ...lists, this.left(), this.foot(told)].filter(Boolean);
  }

  /** All concepts of the set, to look at. */
  reading(told) {
    if (!told) return [el("div.erase-note", {}, say("showing"))];
    return told.set.concepts.flatMap((concept) => [
      el("div.erase-title", {}, concept.name),
      ...Object.keys(LISTS).map((name) => this.list(name, this.words(name, concept))),
    ]);
  }

  list(name, { words, own }) {
    const title = say(LISTS[name]);
    const linked = this.editable && isLinked(this.node, name);
    const chips = words.map((word) => this.chip(name, word, words, own));
    const again = `${title}: ${say("auto")}`;
    const reset = own && el("button.erase-reset", { type: "button", title: say("auto"), "aria-label": again }, "↺");
    if (reset) reset.onclick = () => this.write(name, null);
    return el(
      `div.erase-list.erase-${LISTS[name]}`,
      { "data-list": name },
      el("div.erase-head", {}, el("span.erase-name", {}, title), reset || null),
      linked
        ? el("div.erase-note", {}, say("linked"))
        : el("div.erase-chips", {}, ...chips, this.editable ? this.field(name, title, words) : null),
    );
  }

  chip(name, word, words, own) {
    const made = el(`span.erase-chip${own || !this.editable ? "" : ".erase-found"}`, {}, word);
    if (!this.editable) return made;
    const remove = () => this.write(name, words.filter((other) => other !== word));
    const label = say("remove", { word });
    const cross = el("button", { type: "button", title: label, "aria-label": label, onclick: remove }, "×");
    made.append(cross);
    return made;
  }

  /** Where words are typed: Enter or a comma adds, Backspace in an empty field removes the last. */
  field(name, title, words) {
    const input = el("input", {
      type: "text",
      placeholder: say("add"),
      "aria-label": say("addTo", { list: title }),
      size: 6,
    });
    const add = () => {
      const typed = split(input.value);
      input.value = "";
      if (typed.length) this.write(name, [...words, ...typed]);
    };
    input.onkeydown = (event) => {
      event.stopPropagation(); // no shortcuts of the canvas while typing
      if (event.isComposing) return; // a Chinese word in the making
      if (event.key === "Enter" || event.key === ",") {
        event.preventDefault();
        add();
      } else if (event.key === "Backspace" && !input.value && words.length) {
        this.write(name, words.slice(0, -1));
      }
    };
    input.onpaste = (event) => {
      const text = event.clipboardData?.getData("text") ?? "";
      event.stopPropagation();
      if (!/[,\n]/.test(text)) return;
      event.preventDefault();
      this.write(name, [...words, ...split(text)]);
    };
    input.onchange = add;
    return input;
  }

  senses(told) {
    if (!told?.senses.length || isLinked(this.node, "sense")) return [];
    const concept = told.set.concepts.find((made) => told.own.includes(made.name));
    const options = told.senses.map((sense) => {
      const chosen = sense.name === concept?.sense;
      const pick = () => this.choose(sense.name);
      return el(
        "button.erase-sense",
        { type: "button", role: "radio", "aria-checked": String(chosen), title: sense.name, onclick: pick },
        sense.definition,
      );
    });
    return [
      el("div.erase-head", {}, el("span.erase-name", {}, say("senses"))),
      el("div.erase-senses", { role: "radiogroup" }, ...options),
    ];
  }

  /** Another meaning has other words: they are looked up at once where the front end can. */
  choose(sense) {
    const widget = widgetOf(this.node, "sense");
    widget.value = sense;
    widget.callback?.(sense);
    this.find();
  }

  /** Look the words up: at once, or by a run of this node where links decide what is asked. */
  async find() {
    const names = [...new Set([...ASKED, ...OWN])];
    if (names.some((name) => isLinked(this.node, name))) return runAlone(this.node);
    const inputs = Object.fromEntries(names.map((name) => [name, widgetOf(this.node, name)?.value]));
    const asked = this.asked();
    const told = await api
      .fetchApi(ROUTE, { method: "POST", body: JSON.stringify(inputs) })
      .then((response) => response.json())
      .catch(() => null);
    if (!told) return runAlone(this.node);
    this.wrong = told.error ?? "";
    if (told.error) this.render();
    else this.show({ eraseanything_concepts: [told] }, asked);
  }

  /** What became of the words for the concept before this one. */
  left() {
    if (!this.aside) return null;
    const button = el("button.erase-find", { type: "button", onclick: () => this.takeAlong() }, say("along"));
    return el("div.erase-foot", {}, el("span.erase-note", {}, say("aside")), button);
  }

  foot(told) {
    const sources = { lists: say("lists"), file: say("file") };
    const found = told ? say("found", { source: sources[told.source] ?? told.source }) : say("empty");
    const text = this.wrong || found;
    const find = el("button.erase-find", { type: "button", title: say("findHint") }, say("find"));
    find.onclick = () => this.find();
    return el("div.erase-foot", {}, el("span.erase-note", {}, text), find);
  }

  /** The node grows with its chips, up to a limit. */
  measure() {
    const tall = Math.ceil(this.inner.scrollHeight) + 20;
    if (tall <= 20 || tall === this.tall) return;
    this.tall = tall;
    this.element.style.minHeight = `${Math.min(tall, MOST)}px`;
    fit(this.node);
  }
}
