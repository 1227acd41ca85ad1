// Keyboard, pointer, buttons and filter change the view; the page follows.

const tip = element("tip");
let view = null; // set by `load`
let drag = null; // { start, now }: x on the chart
let isDrawScheduled = false;

const KEYS = {
  ArrowUp: () => move(-1, 0),
  ArrowDown: () => move(1, 0),
  ArrowLeft: () => move(0, -1),
  ArrowRight: () => move(0, 1),
  "+": () => scale(0.5),
  "=": () => scale(0.5),
  "-": () => scale(2),
  0: showAll,
};

// Show data for the first time, or its next state.
function load(raw) {
  const next = decoded(raw);
  const same = view ? followed(view, data, next) : whole(next);
  data = next;
  drawLegend();
  show(filtered(same, data, element("filter").value));
}

function draw() {
  isDrawScheduled = false;
  drawChart(view, drag);
  drawCounters(view, counters.clientWidth);
}

// Draw once per frame, however many events there are.
function redraw() {
  if (isDrawScheduled) return;
  isDrawScheduled = true;
  requestAnimationFrame(draw);
}

function show(next) {
  view = next;
  showButton();
  redraw();
}

// The button does the same as the row of the calm lane.
function showButton() {
  const button = element("calm");
  button.hidden = !view.lanes.includes(data.calm);
  element("calm-key").hidden = button.hidden;
  if (button.hidden) return;
  button.setAttribute("aria-expanded", view.isOpen);
  if (button.textContent !== data.calm.name) button.textContent = data.calm.name;
}

function toggle() {
  const next = toggled(view, data);
  if (next.cursor) showSelection(next);
  else show(next);
}

function scale(factor) {
  show(scaled(view, data.limits, factor));
}

function showAll() {
  show(zoomed(view, data.limits, data.limits.from, data.limits.to));
}

function move(lanes, segments) {
  if (view.lanes.length) showSelection(moved(view, data.limits, lanes, segments));
}

// Show a view with a new cursor: scroll to it, and announce it to screen readers.
function showSelection(next) {
  const { lane, at } = next.cursor;
  const top = next.lanes.indexOf(lane) * ROW;
  const bottom = top + ROW + TOP;
  show(next);
  if (top < box.scrollTop) box.scrollTop = top;
  if (bottom > box.scrollTop + chart.clientHeight) box.scrollTop = bottom - chart.clientHeight;
  const hint = lane === data.calm ? `\nEnter ${next.isOpen ? "hides" : "shows"} them` : "";
  element("selection").textContent = (segmentText(data, lane, at) + hint).replaceAll("\n", " · ");
}

// Keyboard

function actOf(key) {
  const isOnCalm = view.cursor !== null && view.cursor.lane === data.calm;
  return isOnCalm && ["Enter", " "].includes(key) ? toggle : KEYS[key];
}

box.addEventListener("scroll", redraw);
box.addEventListener("keydown", (event) => {
  const isShortcut = event.ctrlKey || event.metaKey || event.altKey;
  const act = isShortcut ? undefined : actOf(event.key);
  if (!act) return;
  event.preventDefault();
  act();
});

// Pointer

function xOf(event) {
  return event.clientX - chart.getBoundingClientRect().left;
}

function laneOf(event) {
  const y = event.clientY - chart.getBoundingClientRect().top;
  return y < TOP ? data.node : view.lanes[Math.floor((y - TOP + box.scrollTop) / ROW)];
}

// Whether the pointer is on the name of the calm lane.
function isOnCalmName(event) {
  return data.calm !== null && xOf(event) < gutter(chart.clientWidth) && laneOf(event) === data.calm;
}

function hover(event) {
  chart.classList.toggle("button", isOnCalmName(event));
  const { width } = chart.getBoundingClientRect();
  const x = xOf(event);
  const lane = laneOf(event);
  if (drag) {
    drag.now = x;
    redraw();
  }
  const at = lane && x >= gutter(width) ? segmentAt(lane, timeAt(view, width, x)) : -1;
  tip.hidden = at < 0;
  if (at < 0) return;
  tip.textContent = segmentText(data, lane, at);
  const right = window.innerWidth - tip.offsetWidth - 8;
  const bottom = window.innerHeight - tip.offsetHeight - 8;
  tip.style.left = `${Math.min(event.clientX + 14, right)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, bottom)}px`;
}

function startDrag(event) {
  const x = xOf(event);
  if (event.button !== 0 || x < gutter(chart.clientWidth)) return;
  drag = { start: x, now: x };
  chart.setPointerCapture(event.pointerId);
}

// A drag zooms to what it spans; a click selects a segment.
function endDrag(event) {
  if (!drag) return;
  const { width } = chart.getBoundingClientRect();
  const left = Math.min(drag.start, drag.now);
  const right = Math.max(drag.start, drag.now);
  drag = null;
  if (right - left > 4) {
    show(zoomed(view, data.limits, timeAt(view, width, left), timeAt(view, width, right)));
    return;
  }
  const lane = laneOf(event);
  const at = lane && lane !== data.node ? segmentAt(lane, timeAt(view, width, left)) : -1;
  if (at >= 0) showSelection(selected(view, data.limits, lane, at));
  else redraw();
}

function cancelDrag() {
  drag = null;
  redraw();
}

function hideTip() {
  tip.hidden = true;
}

chart.addEventListener("pointermove", hover);
chart.addEventListener("pointerleave", hideTip);
chart.addEventListener("pointerdown", startDrag);
chart.addEventListener("pointerup", endDrag);
chart.addEventListener("pointercancel", cancelDrag);
chart.addEventListener("click", (event) => isOnCalmName(event) && toggle());
chart.addEventListener("dblclick", showAll);

// Buttons and filter

element("in").addEventListener("click", () => scale(0.5));
element("out").addEventListener("click", () => scale(2));
element("all").addEventListener("click", showAll);
element("calm").addEventListener("click", toggle);
element("filter").addEventListener("input", (event) => {
  show(filtered(view, data, event.target.value));
});

// Size and theme

new ResizeObserver(redraw).observe(document.body);
window.addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawLegend();
  redraw();
});

load(JSON.parse(element("data").textContent));
draw();
