/** EraseAnything's part of the front end: a panel on some of its nodes. */

import { AttentionPanel } from "./attention.js";
import { labelChoices, loadWords, translate } from "./chinese.js";
import { ConceptPanel } from "./concepts.js";
import { EachPanel, listenToEach } from "./each.js";
import { GuardPanel, GuardPromptPanel, listenToGuards } from "./guard.js";
import { allNodes, app, calmTexts, chain, refreshLists, rememberPrompts, sortTemplates, tuckAway, workflowId } from "./host.js";
import { ReportPanel } from "./report.js";
import { listen, TrainPanel } from "./train.js";

const PANELS = {
  EraseAnythingTrain: (node) => new TrainPanel(node),
  EraseAnythingEach: (node) => new EachPanel(node),
  EraseAnythingAttentionMap: (node) => new AttentionPanel(node),
  EraseAnythingConceptSet: (node) => new ConceptPanel(node, true),
  EraseAnythingConceptSetLLM: (node) => new ConceptPanel(node, false),
  EraseAnythingConceptSetIO: (node) => new ConceptPanel(node, false),
  EraseAnythingReport: (node) => new ReportPanel(node),
  EraseAnythingGuard: (node) => new GuardPanel(node),
  EraseAnythingGuardPrompt: (node) => new GuardPromptPanel(node),
};

/** Nodes that write files and tell no training. */
const SAVING = ["EraseAnythingSave", "EraseAnythingInstant", "EraseAnythingEach"];

/** The panel of a node. */
const panels = new WeakMap();
/** Last outputs by workflow and node: switching tabs makes all nodes anew. */
const outputs = new Map();
const key = (id) => `${workflowId()} ${id}`;

app.registerExtension({
  name: "eraseanything.panels",

  init: loadWords,

  beforeConfigureGraph: translate,

  setup() {
    rememberPrompts();
    sortTemplates();
    listen();
    listenToGuards();
    listenToEach();
  },

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("EraseAnything")) return;
    calmTexts(node);
    tuckAway(node);
    labelChoices(node);
    const make = PANELS[node.comfyClass];
    if (make && node.addDOMWidget) panels.set(node, make(node));
    if (make || SAVING.includes(node.comfyClass)) {
      chain(node, "onExecuted", (output) => executed(node, output ?? {}));
    }
  },

  afterConfigureGraph() {
    for (const [id, node] of allNodes()) {
      const panel = panels.get(node);
      panel?.restore?.(id);
      if (panel && outputs.has(key(id))) panel.show(...outputs.get(key(id)));
    }
  },
});

function executed(node, output) {
  if (SAVING.includes(node.comfyClass)) refreshLists();
  const panel = panels.get(node);
  if (!panel || panel.restore) return; // a training tells its own story
  panel.show(output);
  const shown = [output, panel.asked?.()];
  for (const [id, known] of allNodes()) if (known === node) outputs.set(key(id), shown);
}
