// Asks the agent for the next state, and says so if there is no answer. The chart follows by
// `load`; everything else comes as texts.

const SHORTEST_PAUSE = 2000; // milliseconds between two questions for the history
const LONGEST_PAUSE = 10000; // milliseconds after which a dead agent is noticed
const TABLE_PERIOD = 15000; // milliseconds after which the ages in the table are old
const PATIENCE = 10000; // milliseconds in which an answer has to come

let isAsking = false;
let pause = SHORTEST_PAUSE; // until the next question
let timer = 0;
let shownHistory = element("data").textContent;
let tableAt = -Infinity; // when the table was asked for
let goodAt = performance.now(); // when the last good answer came
let problem = "";

// Show when the peers were looked at.
function showTime() {
  setText(element("at"), data.node.starts.length ? `last look ${timeText(data.to)} · ` : "");
}

// The answer of the agent, or null if there is none.
async function got(path) {
  try {
    const response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE) });
    const quiet = 1000 * Number(response.headers.get("Retry-After"));
    return { isOk: response.ok, text: await response.text(), quiet };
  } catch {
    return null;
  }
}

// Each question costs the agent as much as a job, so there is none while nothing can change.
async function poll() {
  if (isAsking || document.hidden) return;
  isAsking = true;
  clearTimeout(timer);
  pause = SHORTEST_PAUSE;
  showProblem(await updated().catch((error) => `This page has failed (${error}); load it again`));
  isAsking = false;
  timer = setTimeout(poll, problem ? SHORTEST_PAUSE : pause);
}

// Show what is new; return what is wrong. The table costs the agent most, so it is asked for
// only after a change, after a problem, and when it is old.
async function updated() {
  const history = await got("api/history");
  if (!history || !history.isOk) return "No answer from the agent";
  pause = Math.min(LONGEST_PAUSE, Math.max(SHORTEST_PAUSE, history.quiet));
  const isNew = history.text !== shownHistory;
  if (isNew) {
    shownHistory = history.text;
    load(JSON.parse(history.text));
    showTime();
  }
  if (!isNew && !problem && performance.now() - tableAt < TABLE_PERIOD) return "";
  tableAt = performance.now();
  const table = await got("api/table");
  if (!table) return "No answer from the agent";
  if (!table.isOk) return `No answer from tailscaled: ${table.text.trim()}`;
  const shown = JSON.parse(table.text);
  showTable(shown);
  return shown.at - data.to > shown.look_seconds ? "No answer from tailscaled" : "";
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

showTime();
setInterval(showAge, 1000);
document.addEventListener("visibilitychange", poll);
poll();
