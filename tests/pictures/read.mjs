// Reads pictures back with the real parsers: standard input has one JSON object a line with a label and the pictures of
// a graph that has it at a node, at an edge and as a title. Every label must be read as it was written.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

const { window } = new JSDOM("<!DOCTYPE html><body></body>");
globalThis.window = window;
globalThis.document = window.document;
const { default: mermaid } = await import("mermaid");
mermaid.initialize({ startOnLoad: false });

// The text as a picture shows it: line breaks are one, and characters that XML forbids are symbols.
const symbol = (c) => {
  if (c === "\n") return c;
  if (c === "\x7f") return "\u2421";
  if (c === "\ufffe" || c === "\uffff") return "\ufffd";
  return c < " " ? String.fromCharCode(0x2400 + c.charCodeAt(0)) : c;
};
const visible = (text) => [...text.replace(/\r\n?/g, "\n")].map(symbol).join("");

// Mermaid stores an entity as `ﬂ°°NN¶ß` and writes it as `&#NN;` when it renders.
const decoded = (text) =>
  text
    .replace(/<br\s*\/?>/g, "\n")
    .replace(/ﬂ°°(\d+)¶ß/g, (_, code) => String.fromCodePoint(Number(code)))
    .replace(/\u200b/g, "");

let failed = 0;
const check = (parser, place, label, shown) => {
  if (shown !== label) {
    failed += 1;
    console.error(`${parser}: ${place}: ${JSON.stringify(label)} is shown as ${JSON.stringify(shown)}`);
  }
};

const lines = readFileSync(0, "utf8").trim().split("\n").map((line) => JSON.parse(line));
for (const { label: raw, mermaid: flowchart, dot } of lines) {
  const label = visible(raw);
  try {
    const { db } = await mermaid.mermaidAPI.getDiagramFromText(flowchart);
    const vertices = db.getVertices();
    check("mermaid", "node", label, decoded((vertices.get ? vertices.get("n0") : vertices.n0).text));
    const edge = db.getEdges().find((edge) => edge.start === "n1" && edge.end === "n1");
    check("mermaid", "edge", label, decoded(edge.text));
    check("mermaid", "title", label, decoded(db.getSubGraphs().find((graph) => graph.id === "n1").title));
  } catch (error) {
    failed += 1;
    console.error(`mermaid: ${JSON.stringify(label)}: ${String(error).split("\n")[0]}`);
  }
  const graphviz = spawnSync("dot", ["-Tsvg"], { input: dot, encoding: "utf8" });
  if (graphviz.status !== 0 || graphviz.stderr !== "") {
    failed += 1;
    console.error(`graphviz: ${JSON.stringify(label)}: ${graphviz.stderr}`);
    continue;
  }
  const svg = new window.DOMParser().parseFromString(graphviz.stdout, "image/svg+xml");
  const shown = (title, kind) => {
    const group = [...svg.querySelectorAll(`g.${kind}`)].find((g) => g.querySelector("title").textContent === title);
    const texts = [...group.querySelectorAll("text")].map((text) => text.textContent.replaceAll("\u00a0", " "));
    return texts.join("\n");
  };
  // Graphviz writes no text for an empty line, and cuts the spaces at the ends of a line.
  const lined = (text) => text.split("\n").filter((line) => line.trim() !== "").map((line) => line.trim()).join("\n");
  check("graphviz", "node", lined(label), lined(shown("n0", "node")));
  check("graphviz", "edge", lined(label), lined(shown("n1__end->cluster_n1_loop", "edge")));
  check("graphviz", "title", lined(label), lined(shown("cluster_n1", "cluster")));
}
console.log(`${lines.length} labels read back by Mermaid and Graphviz, ${failed} of them wrong`);
process.exit(failed === 0 ? 0 : 1);
