/** What we use of ComfyUI's front end, in one place; versions differ in what they have. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { styles } from "./dom.js";

export { api, app };

const [TEXT_HEIGHT, ROW] = [90, 24]; // pixels, of a text and of any other input

/** The whole graph, also while the canvas shows a subgraph. */
export const rootGraph = () => app.rootGraph ?? app.graph;

/** The id that a workflow keeps through saving and loading. */
export const workflowId = () => String(rootGraph()?.id ?? "");

/** The open tab that holds the workflow; copies of one template have the same id. */
const openWorkflow = () => app.extensionManager?.workflow?.activeWorkflow?.key ?? workflowId();

/** Prompt id -> the tab that queued it. */
const homes = new Map();

/** Remember from now on which tab queues which prompt. */
export function rememberPrompts() {
  tellLanguage();
  const queue = api.queuePrompt;
  api.queuePrompt = async function (...args) {
    const home = openWorkflow();
    await tellLanguage();
    const queued = await queue.apply(this, args);
    if (queued?.prompt_id) homes.set(queued.prompt_id, home);
    return queued;
  };
}

/** What our templates show, in the order of a first visit. */
const TEMPLATES = [
  "erase and compare",
  "erase in a second",
  "use a saved eraser",
  "attention maps",
  "count what went",
];
const FIRST = "MiniFlux"; // the model that needs no download

/** Give the template browser ours in that order: the host lists them as its disk does. */
export function sortTemplates() {
  const [folder] = new URL(import.meta.url).pathname.split("/").slice(-2);
  const get = api.getWorkflowTemplates;
  api.getWorkflowTemplates = async function (...args) {
    const known = await get.apply(this, args);
    known?.[folder]?.sort((a, b) => place(a).localeCompare(place(b), "en"));
    return known;
  };
}

/** A text that sorts as the template is to stand. */
function place(name) {
  const [model, ...what] = name.split(" ");
  const found = TEMPLATES.indexOf(what.join(" "));
  return `${Number(model !== FIRST)} ${model} ${found < 0 ? TEMPLATES.length : found} ${what.join(" ")}`;
}

/** What the server was told last; see nodes/language.py. */
let told = "";

/** Tell the server in which language errors and sheets are to be. */
async function tellLanguage() {
  if (told === language()) return;
  told = language();
  await api.storeSetting?.("EraseAnything.Language", told)?.catch?.(console.warn);
}

/** Whether a run belongs to another workflow, another copy of this one, or to no page at all. */
export function isForeign({ prompt_id, workflow }) {
  const home = homes.get(prompt_id);
  if (home !== undefined) return home !== openWorkflow();
  return !workflow || workflow !== workflowId(); // queued before the page was loaded
}

/** Every node with the id that the server knows it by: "12", or "5:12" inside a subgraph. */
export function* allNodes(graph = rootGraph(), prefix = "") {
  for (const node of graph?.nodes ?? graph?._nodes ?? []) {
    yield [`${prefix}${node.id}`, node];
    if (node.subgraph) yield* allNodes(node.subgraph, `${prefix}${node.id}:`);
  }
}

/** The node that the server calls `id`, if it is in this graph. */
export function nodeOf(id) {
  for (const [known, node] of allNodes()) if (known === String(id)) return node;
  return null;
}

/** What the server calls `node`. */
function idOf(node) {
  for (const [id, known] of allNodes()) if (known === node) return id;
  return String(node.id);
}

/** Call `after` with the same `this` and arguments whenever `target[name]` was called. */
export function chain(target, name, after) {
  const before = target[name];
  target[name] = function (...args) {
    const result = before?.apply(this, args);
    after.apply(this, args);
    return result;
  };
}

/** The widget of that name on a node. */
export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/** Whether a link decides a widget's value. */
export const isLinked = (node, name) =>
  node.inputs?.some((input) => input.widget?.name === name && input.link != null) ?? false;

/** Take a widget out of sight; its value stays in the workflow. */
export function hide(widget) {
  widget.hidden = true;
  widget.options ??= {};
  widget.options.hidden = true;
}

/** Advanced inputs stay out of sight until they are asked for, in the classic design, too. */
export function tuckAway(node) {
  const more = (node.widgets ?? []).filter((widget) => widget.options?.advanced);
  if (!more.length) return;
  if (globalThis.LiteGraph?.vueNodesMode) return leaveNoRoom(node, more.length);
  const show = () => {
    for (const widget of more) widget.hidden = !node.showAdvanced;
  };
  for (const widget of more) widget.advanced = true; // the node's menu then offers them
  show();
  chain(node, "onConfigure", show);
  chain(node, "toggleAdvanced", () => {
    show();
    fit(node);
  });
}

/** The new design hides advanced inputs by itself, but leaves their rows empty. */
function leaveNoRoom(node, count) {
  const whole = node.computeSize;
  node.computeSize = function (...args) {
    const size = whole.apply(this, args);
    if (!this.showAdvanced) size[1] -= ROW * count;
    return size;
  };
}

/**
 * Leave the room on a tall node to panels and pictures; by itself the host gives it to texts. And
 * let an empty text say its name as the other widgets do.
 */
export function calmTexts(node) {
  for (const widget of node.widgets ?? []) {
    if (widget.type !== "customtext") continue;
    widget.options.getMaxHeight = () => TEXT_HEIGHT;
    if (widget.inputEl?.placeholder === widget.name) widget.inputEl.placeholder = widget.label ?? widget.name;
  }
}

/**
 * Put an element on a node, below its widgets. It holds no value of the workflow.
 * @param {() => number} height in pixels; the node grows with it
 */
export function addPanel(node, name, element, height) {
  element.classList.add("erase-panel");
  element.prepend(styles());
  element.addEventListener("wheel", wheelToCanvas, { passive: false });
  const widget = node.addDOMWidget?.(name, "eraseanything", element, {
    serialize: false,
    getMinHeight: height,
  });
  if (widget) widget.serialize = false;
  return widget;
}

/** Give a node the room that its widgets ask for by now, and a least width in pixels. */
export function fit(node, least = 0) {
  const [width, height] = node.computeSize?.() ?? [0, 0];
  const wide = Math.max(node.size?.[0], width, least);
  if (node.size?.[1] < height || node.size?.[0] < least) node.setSize([wide, Math.max(node.size[1], height)]);
  node.setDirtyCanvas?.(true, true);
}

/** Fetch the lists of files anew, so that a LoRA just saved can be chosen. */
export const refreshLists = () => app.refreshComboInNodes?.()?.catch?.(console.warn);

/** Run this node alone, with what it needs; null where the front end cannot. */
export function runAlone(node) {
  const commands = app.extensionManager?.command?.commands ?? [];
  const able = commands.some((command) => command.id === "Comfy.QueueSelectedOutputNodes");
  return able ? app.queuePrompt(0, 1, [idOf(node)]) : null;
}

/** The language that the user chose, such as "zh". */
export function language() {
  const known =
    app.extensionManager?.setting?.get?.("Comfy.Locale") ??
    app.ui?.settings?.getSettingValue?.("Comfy.Locale");
  return String(known ?? navigator.language ?? "en");
}

/** The wheel zooms the canvas, as over any node, unless the element below can scroll. */
function wheelToCanvas(event) {
  const scrolls = (e) => e.scrollHeight > e.clientHeight + 1 && getComputedStyle(e).overflowY === "auto";
  for (let e = event.target; e && e !== this.parentElement; e = e.parentElement) {
    if (scrolls(e)) return;
  }
  if (globalThis.LiteGraph?.vueNodesMode) return; // there it bubbles to the canvas by itself
  event.preventDefault();
  app.canvas?.processMouseWheel?.(event);
}
