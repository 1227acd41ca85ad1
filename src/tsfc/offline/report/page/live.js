// Asks the agent for the next state, and says so if there is no answer. The chart follows by
// `load`; everything else comes as texts.

const PERIOD = 2000; // milliseconds between two questions
const PATIENCE = 10000; // milliseconds in which an answer has to come
const OLD = 90; // age in seconds from which a look at the peers is old

let isAsking = false;
let shownHistory = element("data").textContent;
let goodAt = performance.now(); // when the last good answer came
let problem = "";

async function got(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE) });
  return { isOk: response.ok, text: await response.text() };
}

// Both answers, or null if there is none.
async function answers() {
  try {
    const both = await Promise.all([got("api/history"), got("api/table")]);
    return both[0].isOk ? both : null;
  } catch {
    return null;
  }
}

async function poll() {
  if (isAsking || document.hidden) return;
  isAsking = true;
  const found = await answers();
  isAsking = false;
  showProblem(found ? showAnswers(...found) : "No answer from the agent");
}

// Show both answers; return what is wrong with them.
function showAnswers(history, table) {
  if (history.text !== shownHistory) {
    shownHistory = history.text;
    load(JSON.parse(history.text));
  }
  if (!table.isOk) return `No answer from tailscaled: ${table.text.trim()}`;
  const shown = JSON.parse(table.text);
  showTable(shown);
  return shown.at - data.to > OLD ? "No answer from tailscaled" : "";
}

function showProblem(text) {
  problem = text;
  if (!problem) goodAt = performance.now();
  element("main").classList.toggle("stale", problem !== "");
  element("problem").hidden = !problem;
  element("what").textContent = problem;
  showAge();
}

function showAge() {
  const seconds = Math.floor((performance.now() - goodAt) / 1000);
  element("since").textContent = problem ? `(for ${durationText(seconds)})` : "";
}

function showTable({ node, lines, columns, rows, attempts }) {
  const { tHead, tBodies } = element("peers");
  document.title = `Paths of ${node || "this node"}`;
  setText(element("title"), document.title);
  fill(element("lines"), "p", lines);
  fillRow(tHead.rows[0], columns, columns.map(({ title }) => title));
  while (tBodies[0].rows.length > rows.length) tBodies[0].deleteRow(-1);
  rows.forEach((texts, at) => fillRow(tBodies[0].rows[at] || tBodies[0].insertRow(), columns, texts));
  fill(element("attempts"), "li", attempts.map(({ at, text }) => `${timeText(at)} ${text}`));
  element("idle").hidden = attempts.length > 0;
}

// What is as before is not touched, so that a selected text stays selected.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function fill(parent, tag, texts) {
  while (parent.children.length > texts.length) parent.lastElementChild.remove();
  texts.forEach((text, at) => {
    setText(parent.children[at] || parent.appendChild(document.createElement(tag)), text);
  });
}

function fillRow(row, columns, texts) {
  const isHead = row.parentNode.tagName === "THEAD";
  texts.forEach((text, at) => {
    const cell = row.cells[at] || row.appendChild(document.createElement(isHead || !at ? "th" : "td"));
    if (cell.tagName === "TH") cell.scope = isHead ? "col" : "row";
    cell.classList.toggle("text", !columns[at].is_number);
    setText(cell, text);
  });
}

setInterval(poll, PERIOD);
setInterval(showAge, 1000);
document.addEventListener("visibilitychange", poll);
poll();
