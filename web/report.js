/** The verdict and the table on "Erasure Report". */

import { el } from "./dom.js";
import { addPanel, fit } from "./host.js";

const ROW = 24; // pixels
const WIDTH = 560; // pixels, which the four columns take with the intervals of both

export class ReportPanel {
  constructor(node) {
    this.node = node;
    this.body = el("div");
    this.element = el("div.erase-report", {}, this.body);
    addPanel(node, "erase_table", this.element, () => ROW * (this.rows ?? 0) + (this.rows ? 20 : 0));
  }

  /** Show the output of a run, see nodes/live.py. */
  show({ eraseanything_report: [told] = [] }) {
    if (!told) return;
    const [heading, ...rows] = told.table;
    const verdicts = told.verdicts ?? []; // an older run has none
    this.rows = told.table.length + verdicts.length;
    const cells = (row, tag) => row.map((text) => el(tag, {}, text));
    const line = (row) =>
      el(row.slice(1).some(Boolean) ? "tr" : "tr.erase-title", {}, ...cells(row, "td"));
    this.body.replaceChildren(
      ...verdicts.map((text) => el("p.erase-verdict", {}, text)),
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ...cells(heading, "th"))),
        el("tbody", {}, ...rows.map(line)),
      ),
    );
    fit(this.node, WIDTH);
  }
}
