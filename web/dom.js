/** Small helpers for building elements. User text only ever becomes text nodes. */

/**
 * An element: `el("button.erase-chip", { title: "x", onclick: f }, "text", child)`.
 * Properties with "-" or "role" are set as attributes.
 */
export function el(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "role" || key.includes("-")) element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for SVG, attributes only. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Our style sheet, for an element of ours to hold: the page's own head is not ours to write to. */
export const styles = () =>
  el("link", { rel: "stylesheet", href: new URL("./eraseanything.css", import.meta.url) });

/** A number for reading: 3 significant digits, no exponent for everyday sizes. */
export function short(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}
