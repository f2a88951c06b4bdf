/** What the host leaves in English on a Chinese page: choices of lists, and our templates' words. */

import { api, language } from "./host.js";

const TWIN = "中文："; // begins the paragraph of a note that is for pages without this

let options = {};
/** What a text may begin with, the longest first, and its Chinese. */
let pieces = [];

/** Fetch the words from locales/zh/main.json, before the first node is made. */
export async function loadWords() {
  if (!language().startsWith("zh")) return;
  const all = await api
    .fetchApi("/i18n")
    .then((response) => response.json())
    .catch(() => ({}));
  const words = all.zh?.eraseanything ?? {};
  options = words.options ?? {};
  pieces = Object.entries(words.templates ?? {})
    .sort(([a], [b]) => b.length - a.length)
    .map(([english, chinese]) => [pattern(english), chinese]);
}

/** A numbered blank stands for a name, in backticks or bold, or for a number. */
function pattern(english) {
  const parts = english.split(/\{\d\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join("(`[^`]+`|\\*\\*[^*]+\\*\\*|\\d+)")}`);
}

/** Show the choices of a node's lists in Chinese; their values stay. */
export function labelChoices(node) {
  for (const widget of node.widgets ?? []) {
    const known = widget.options?.values;
    if (!Array.isArray(known) || !known.some((value) => value in options)) continue;
    widget.options.getOptionLabel = (value) => options[value] ?? String(value ?? "");
  }
}

/** Put the groups, titles and notes of a workflow that come from our templates into Chinese. */
export function translate(graph) {
  if (!pieces.length) return;
  for (const group of graph.groups ?? []) group.title = numbered(group.title ?? "");
  for (const node of graph.nodes ?? []) {
    if (node.title) node.title = numbered(node.title);
    if (node.type === "MarkdownNote") node.widgets_values = node.widgets_values?.map(note);
  }
}

/** "1 · The model" */
function numbered(title) {
  const [, number, rest] = /^(\d+ · )?(.*)$/s.exec(title);
  const told = chinese(rest);
  return told === null ? title : (number ?? "") + told;
}

function note(text) {
  const own = String(text).split("\n\n").filter((paragraph) => !paragraph.startsWith(TWIN));
  const told = own.map(chinese);
  return told.includes(null) ? text : told.join("\n\n");
}

/** A text piece by piece; null where one of them is not known. */
function chinese(text) {
  let [told, rest] = ["", text];
  while (rest) {
    const [found, words] = pieces.map(([known, words]) => [known.exec(rest), words]).find(([it]) => it) ?? [];
    if (!found) return null;
    told += words.replace(/\{(\d)\}/g, (blank, place) => found[Number(place) + 1]);
    rest = rest.slice(found[0].length).trimStart();
  }
  return told;
}
