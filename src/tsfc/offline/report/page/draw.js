// Draws a view on the canvases. Only lanes in sight are drawn.

const ROW = 26; // height of a lane: its markers, and its path below them
const MARKS = 10; // height of the markers
const TOP = 48; // above the lanes: the time axis and the node
const COUNTER = 46; // height of a counter
const COUNTERS_TOP = 26;
const FONT = "12px system-ui, sans-serif";
const SMALL_FONT = "10px system-ui, sans-serif";
const MARKERS = {
  DETECTED: (c, x, y) => drawTriangle(c, x, y, 1),
  COOLDOWN: drawPause,
  RECOVERED: (c, x, y) => drawTriangle(c, x, y, -1),
  RESTART: (c, x, y) => fillCircle(c, x, y, 4),
};
const INDENT = 12; // of the members of the calm lane
const STATUS_BARS = {
  seen: { color: "--line", y: 32, height: 4 },
  gap: { color: "--faint", y: 32, height: 4, isDotted: true },
  fault: { color: "--fault", y: 31, height: 6 },
};
const COUNTERS = [
  ["restarts", "--restart"],
  ["detections", "--derp"],
  ["recoveries", "--direct"],
  ["cooldowns", "--faint"],
];

const element = (id) => document.getElementById(id);
let data = null; // set by `load`
const chart = element("chart");
const box = element("lanes");
const counters = element("counters");
let isPrinting = false; // set by print.js

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Size and clear a canvas; return its context, in CSS pixels.
function prepared(canvas, width, height) {
  const ratio = isPrinting ? 2 : window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = isPrinting ? "auto" : `${height}px`;
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  c.fillStyle = color("--paper");
  c.fillRect(0, 0, width, height);
  c.font = FONT;
  c.textBaseline = "middle";
  return c;
}

// Shapes

function drawTriangle(c, x, y, up) {
  c.beginPath();
  c.moveTo(x - 4, y - 3 * up);
  c.lineTo(x + 4, y - 3 * up);
  c.lineTo(x, y + 4 * up);
  c.fill();
}

function drawPause(c, x, y) {
  c.fillRect(x - 3, y - 4, 2, 8);
  c.fillRect(x + 1, y - 4, 2, 8);
}

function fillCircle(c, x, y, radius) {
  c.beginPath();
  c.arc(x, y, radius, 0, 2 * Math.PI);
  c.fill();
}

function drawMarker(c, reason, x, y) {
  c.fillStyle = color(reason === "restart" ? "--restart" : "--ink");
  MARKERS[LINES[reason]](c, x, y);
}

// The fill of a path: relays have a pattern as well as a color.
function pathFill(c, path) {
  const { pattern } = PATHS[path];
  if (!pattern) return color(`--${path}`);
  const tile = document.createElement("canvas");
  tile.width = 6;
  tile.height = 6;
  const tileContext = tile.getContext("2d");
  tileContext.fillStyle = color(`--${path}`);
  tileContext.fillRect(0, 0, 6, 6);
  tileContext.strokeStyle = color("--paper");
  tileContext.lineWidth = 1.2;
  strokePattern(tileContext, pattern);
  return c.createPattern(tile, "repeat");
}

function strokePattern(c, pattern) {
  const lines = { hatch: [[-6, 0], [0, 6], [6, 12]], bars: [[3, 3]] };
  c.beginPath();
  for (const [bottom, top] of lines[pattern]) {
    c.moveTo(bottom, 6);
    c.lineTo(top, 0);
  }
  c.stroke();
}

function clipped(c, text, width) {
  if (c.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && c.measureText(text.slice(0, length) + "…").width > width) length -= 1;
  return text.slice(0, length) + "…";
}

// The time axis

function drawAxis(c, view, width, height) {
  for (const { x, text, isLeft } of ticks(view, width)) {
    c.fillStyle = color("--line");
    c.fillRect(x, 22, 1, height);
    c.fillStyle = color("--faint");
    c.textAlign = isLeft ? "right" : "left";
    c.fillText(text, x + (isLeft ? -3 : 3), 12);
  }
  c.textAlign = "left";
}

// Lanes

function drawNode(c, view, width) {
  c.fillStyle = color("--faint");
  c.fillText("this node", 8, 34);
  for (const bar of bars(view, data.node, width)) {
    const status = data.observation_statuses[bar.kind];
    drawStatus(c, status, bar.x, STATUS_BARS[status].y, bar.width);
  }
  c.fillStyle = color("--restart");
  for (const unix of data.restarts) {
    if (unix < view.from || unix > view.to) continue;
    c.fillRect(xAt(view, width, unix) - 0.5, 26, 1, 16);
  }
}

function drawStatus(c, status, x, y, width) {
  const { color: tone, height, isDotted } = STATUS_BARS[status];
  c.fillStyle = color(tone);
  if (!isDotted) c.fillRect(x, y, width, height);
  for (let at = 0; isDotted && at < width; at += 6) c.fillRect(x + at, y, Math.min(3, width - at), height);
}

function drawLane(c, view, lane, width, top, fills) {
  const isSelected = view.cursor !== null && view.cursor.lane === lane;
  c.fillStyle = color(isSelected ? "--ink" : "--faint");
  const left = isShownMember(view, lane) ? 8 + INDENT : 8;
  c.fillText(laneLabel(c, view, lane, gutter(width) - left - 8), left, top + ROW / 2);
  c.fillStyle = color("--line");
  c.fillRect(0, top + ROW - 1, width, 1);
  for (const bar of bars(view, lane, width)) {
    const path = data.paths[bar.kind];
    if (!PATHS[path].height) continue;
    const height = Math.max(1, PATHS[path].height * (ROW - MARKS - 4));
    c.fillStyle = bar.width > 3 ? fills[path] : color(`--${path}`);
    c.fillRect(bar.x, top + ROW - 2 - height, bar.width, height);
  }
  drawMarkers(c, view, lane, width, top + MARKS / 2 + 1);
  if (isSelected) drawCursor(c, view, width, top);
}

// The name of a lane, in a width. On a phone the calm lane has room only for a number.
function laneLabel(c, view, lane, width) {
  if (lane !== data.calm) return clipped(c, lane.name, width);
  const arrow = view.isOpen ? "▾" : "▸";
  const text = `${arrow} ${lane.name}`;
  return c.measureText(text).width <= width ? text : `${arrow} ${lane.members.length} peers`;
}

function isShownMember(view, lane) {
  return view.isOpen && !view.part && data.calm !== null && data.calm.members.includes(lane);
}

function drawMarkers(c, view, lane, width, y) {
  const isMarked = (rank) => data.reasons[rank] in LINES;
  for (const { x, rank, count } of markers(view, lane, width, isMarked)) {
    drawMarker(c, data.reasons[rank], x, y);
    if (count < 2) continue;
    c.font = SMALL_FONT;
    c.fillText(count, x + 6, y + 1);
    c.font = FONT;
  }
}

function drawCursor(c, view, width, top) {
  const { lane, at } = view.cursor;
  const start = Math.max(view.from, lane.starts[at]);
  const end = Math.min(view.to, segmentEnd(lane, at));
  c.strokeStyle = color("--ink");
  c.lineWidth = 1.5;
  if (start > end) return;
  const x = xAt(view, width, start);
  c.strokeRect(x, top + 1, Math.max(2, xAt(view, width, end) - x), ROW - 3);
}

// Draw the lanes that a canvas shows when scrolled by a number of pixels.
function drawLanes(canvas, view, width, height, scrolled) {
  const c = prepared(canvas, width, height);
  const fills = Object.fromEntries(data.paths.map((path) => [path, pathFill(c, path)]));
  drawAxis(c, view, width, height);

  // The clip keeps a lane that is scrolled out by half from covering the axis.
  c.save();
  c.beginPath();
  c.rect(0, TOP, width, height - TOP);
  c.clip();
  const first = Math.floor(scrolled / ROW);
  const end = Math.min(view.lanes.length, Math.ceil((scrolled + height) / ROW));
  for (let row = first; row < end; row += 1) {
    drawLane(c, view, view.lanes[row], width, TOP + row * ROW - scrolled, fills);
  }
  c.restore();

  drawNode(c, view, width);
  return c;
}

function drawChart(view, drag) {
  const width = box.clientWidth;
  const total = TOP + view.lanes.length * ROW;
  const height = Math.min(total, Math.max(200, Math.round(window.innerHeight * 0.74)));
  element("room").style.height = `${total - height}px`;
  const c = drawLanes(chart, view, width, height, box.scrollTop);
  if (!drag) return;
  c.fillStyle = color("--idle");
  c.globalAlpha = 0.25;
  c.fillRect(Math.min(drag.start, drag.now), 22, Math.abs(drag.now - drag.start), height);
  c.globalAlpha = 1;
}

// Counters

// Each counter has its own scale: there are ten times as many cooldowns as restarts.
function drawCounters(view, width) {
  const height = COUNTERS_TOP + COUNTERS.length * COUNTER;
  const c = prepared(counters, width, height);
  drawAxis(c, view, width, height);
  COUNTERS.forEach(([name, tone], row) => {
    const points = data.counters.map((point) => [point[0], point[row + 1]]);
    drawCounter(c, view, width, COUNTERS_TOP + (row + 1) * COUNTER - 8, points, name, tone);
  });
}

// Draw the growth of a counter within the view, as stairs that stand on `floor`.
function drawCounter(c, view, width, floor, points, name, tone) {
  const earlier = points.filter(([unix]) => unix <= view.to && unix < view.from);
  const visible = points.filter(([unix]) => unix <= view.to && unix >= view.from);
  const [, base] = earlier.at(-1) || [0, 0];
  const [, last] = visible.at(-1) || [0, base];
  const most = Math.max(1, last - base);
  const y = (value) => floor - ((value - base) / most) * (COUNTER - 16);

  c.fillStyle = color("--line");
  c.fillRect(gutter(width), floor, axis(width), 1);

  c.strokeStyle = color(tone);
  c.lineWidth = 1.8;
  c.beginPath();
  c.moveTo(xAt(view, width, view.from), floor);
  let previous = base;
  for (const [unix, value] of visible) {
    const x = xAt(view, width, unix);
    c.lineTo(x, y(previous));
    c.lineTo(x, y(value));
    previous = value;
  }
  c.lineTo(xAt(view, width, view.to), y(last));
  c.stroke();

  const middle = floor - COUNTER / 2 + 10;
  c.fillStyle = color("--ink");
  c.fillText(name, 8, middle - 7);
  c.fillText(`+${last - base}`, 8, middle + 7);
}

// The legend

// The legend explains only what the data has.
function drawLegend() {
  const kinds = new Set(data.peers.flatMap((lane) => lane.kinds));
  const details = new Set(data.peers.flatMap((lane) => lane.details));
  const statuses = new Set(data.node.kinds);
  const paths = data.paths.filter((path, kind) => kinds.has(kind) && PATHS[path].height);
  const reasons = data.reasons.filter((reason, rank) => details.has(rank) && reason in LINES);
  const texts = new Map(reasons.map((reason) => [LINES[reason], reason]));
  element("legend").replaceChildren(
    ...paths.map((path) => legendItem(PATHS[path].text, (c) => drawPathSample(c, path))),
    ...[...texts].map(([text, reason]) => legendItem(text, (c) => drawMarker(c, reason, 12, 8))),
    ...["gap", "fault"]
      .filter((status) => statuses.has(data.observation_statuses.indexOf(status)))
      .map((status) => legendItem(status, (c) => drawStatus(c, status, 0, 6, 24))),
  );
}

function legendItem(text, draw) {
  const item = document.createElement("li");
  const canvas = document.createElement("canvas");
  draw(prepared(canvas, 24, 16));
  item.append(canvas, text);
  return item;
}

function drawPathSample(c, path) {
  const height = PATHS[path].height * 14;
  fillSample(c, pathFill(c, path), 0, 15 - height, 24, height);
}

function fillSample(c, fill, x, y, width, height) {
  c.fillStyle = fill;
  c.fillRect(x, y, width, height);
}
