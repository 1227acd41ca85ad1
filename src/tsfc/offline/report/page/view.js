// The view: { from, to, lanes, cursor, part, isOpen }. Pure: each function returns a new view.
// `from` and `to` are Unix times, `lanes` the lanes shown, `cursor` the selected segment
// { lane, at } or null. `part` is what names must contain, in lower case. `isOpen` tells
// whether the members of the calm lane are shown. `limits` is the time that the data covers.

const WIDEST_GUTTER = 190; // left of the time axis: the names
const RIGHT = 12; // right of the time axis
const SHORTEST = 60; // seconds in view at the deepest zoom
const TICK_ROOM = 90; // pixels between two ticks of the time axis, at least
const LABEL = 70; // pixels that the text of a tick takes
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;
const STEPS = [ // seconds between two ticks
  ...[1, 2, 5, 10, 15, 30],
  ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * MINUTE),
  ...[1, 2, 3, 6, 12].map((hours) => hours * HOUR),
  ...[1, 2, 7, 30, 90, 365].map((days) => days * DAY),
];

// The view of everything.
function whole(data) {
  return arranged({ ...data.limits, cursor: null, part: "", isOpen: false }, data);
}

function zoomed(view, limits, from, to) {
  const length = Math.min(limits.to - limits.from, Math.max(SHORTEST, to - from));
  const start = Math.max(limits.from, Math.min(from, limits.to - length));
  return { ...view, from: start, to: start + length };
}

// Zoom by a factor, around the cursor or the middle.
function scaled(view, limits, factor) {
  const { from, to, cursor } = view;
  const start = cursor ? cursor.lane.starts[cursor.at] : (from + to) / 2;
  const center = Math.min(to, Math.max(from, start));
  return zoomed(view, limits, center - (center - from) * factor, center + (to - center) * factor);
}

// Select a segment, and bring its start into view.
function selected(view, limits, lane, at) {
  const next = { ...view, cursor: { lane, at } };
  const start = lane.starts[at];
  if (start >= view.from && start <= view.to) return next;
  const half = (view.to - view.from) / 2;
  return zoomed(next, limits, start - half, start + half);
}

// Move the cursor by a number of lanes and segments. Without a cursor in sight, select the
// first lane.
function moved(view, limits, lanes, segments) {
  if (!view.lanes.length) return view;
  const { cursor } = view;
  const row = cursor ? view.lanes.indexOf(cursor.lane) : -1;
  if (row < 0) {
    const first = view.lanes[0];
    return selected(view, limits, first, Math.max(0, segmentAt(first, view.from)));
  }
  const lane = view.lanes[clamped(row + lanes, view.lanes.length)];
  const same = lane === cursor.lane ? cursor.at : segmentAt(lane, cursor.lane.starts[cursor.at]);
  return selected(view, limits, lane, clamped(same + segments, lane.starts.length));
}

function clamped(index, length) {
  return Math.min(length - 1, Math.max(0, index));
}

function filtered(view, data, text) {
  return arranged({ ...view, part: text.trim().toLowerCase() }, data);
}

// Open or close the calm lane. The cursor never stays on a lane that is hidden now.
function toggled(view, data) {
  const next = arranged({ ...view, isOpen: !view.isOpen }, data);
  const { cursor } = view;
  if (!cursor || next.lanes.includes(cursor.lane)) return next;
  const at = segmentAt(data.calm, cursor.lane.starts[cursor.at]);
  return { ...next, cursor: { lane: data.calm, at: Math.max(0, at) } };
}

// The view with its lanes: those that match the filter; without one, the calm lane comes last
// and stands for its members.
function arranged(view, { peers, calm }) {
  const { part, isOpen } = view;
  if (part) return { ...view, lanes: peers.filter(({ name }) => name.toLowerCase().includes(part)) };
  if (!calm) return { ...view, lanes: peers };
  const members = new Set(calm.members);
  const others = peers.filter((lane) => !members.has(lane));
  return { ...view, lanes: [...others, calm, ...(isOpen ? calm.members : [])] };
}

// The same view of the next state of the data: what showed everything, or its end, goes on
// to do so.
function followed(view, before, after) {
  const isAtEnd = view.to >= before.limits.to;
  const isAll = isAtEnd && view.from <= before.limits.from;
  const shift = isAtEnd ? after.limits.to - before.limits.to : 0;
  const from = isAll ? after.limits.from : view.from + shift;
  const next = { ...view, cursor: sameCursor(view.cursor, before, after) };
  return zoomed(arranged(next, after), after.limits, from, view.to + shift);
}

function sameCursor(cursor, before, after) {
  const isSame = ({ name }) => name === cursor.lane.name;
  const lane = cursor && (cursor.lane === before.calm ? after.calm : after.peers.find(isSame));
  if (!lane || !lane.starts.length) return null;
  return { lane, at: Math.max(0, segmentAt(lane, cursor.lane.starts[cursor.at])) };
}

// Room for the names: at most a third of a narrow screen.
function gutter(width) {
  return Math.min(WIDEST_GUTTER, Math.round(width / 3));
}

// Width of the time axis.
function axis(width) {
  return width - gutter(width) - RIGHT;
}

function xAt(view, width, unix) {
  return gutter(width) + ((unix - view.from) / (view.to - view.from)) * axis(width);
}

function timeAt(view, width, x) {
  return view.from + ((x - gutter(width)) / axis(width)) * (view.to - view.from);
}

// The ticks of the time axis: { x, text, isLeft }, in steps of round times. At the right edge
// the text is on the left of the tick, or empty if it would cover the one before.
function ticks(view, width) {
  const pixelsPerSecond = axis(width) / (view.to - view.from);
  const step = STEPS.find((size) => size * pixelsPerSecond >= TICK_ROOM) || STEPS.at(-1);
  const hasRoom = step * pixelsPerSecond >= 2 * LABEL;
  const found = [];
  for (let unix = Math.ceil(view.from / step) * step; unix <= view.to; unix += step) {
    const x = xAt(view, width, unix);
    const isLeft = x > width - LABEL;
    found.push({ x, text: isLeft && !hasRoom ? "" : tickText(unix, step), isLeft });
  }
  return found;
}

function tickText(unix, step) {
  const text = timeText(unix);
  if (step >= DAY || unix % DAY === 0) return text.slice(0, 10);
  return text.slice(11, step < MINUTE ? 19 : 16);
}

// The segments of a lane that overlap the view, as indexes [first, end).
function visibleSegments(view, lane) {
  const first = Math.max(0, segmentAt(lane, view.from));
  let end = first;
  while (end < lane.starts.length && lane.starts[end] < view.to) end += 1;
  return [first, end];
}

// The markers of a lane: { x, rank, count }. Markers that would touch are one, with the highest
// rank and their number.
function markers(view, lane, width, isMarked) {
  const found = [];
  const [first, end] = visibleSegments(view, lane);
  for (let at = first; at < end; at += 1) {
    const rank = lane.details[at];
    if (lane.starts[at] < view.from || !isMarked(rank)) continue;
    const x = xAt(view, width, lane.starts[at]);
    const last = found.at(-1);
    if (last && x - last.x < room(last.count)) {
      last.rank = Math.max(last.rank, rank);
      last.count += 1;
    } else {
      found.push({ x, rank, count: 1 });
    }
  }
  return found;
}

// Width of a marker and, from two on, of their number.
function room(count) {
  return 12 + (count > 1 ? 6 * String(count).length + 4 : 0);
}

// The bars of a lane: { x, width, kind }. Segments narrower than a pixel are merged into one
// bar per pixel, of the worst kind. Neighbors of one kind are one bar, without a seam.
function bars(view, lane, width) {
  const found = [];
  let merged = null;
  const [first, end] = visibleSegments(view, lane);
  for (let at = first; at < end; at += 1) {
    const left = xAt(view, width, Math.max(lane.starts[at], view.from));
    const right = xAt(view, width, Math.min(segmentEnd(lane, at), view.to));
    const kind = lane.kinds[at];
    const column = Math.floor(left);
    if (right <= gutter(width)) continue;
    const last = found.at(-1);
    if (right - left >= 1) {
      if (last && last !== merged && last.kind === kind) last.width = right - last.x;
      else found.push({ x: left, width: right - left, kind });
      merged = null;
    } else if (merged && merged.x === column) {
      merged.kind = Math.max(merged.kind, kind);
    } else {
      merged = { x: column, width: 1, kind };
      found.push(merged);
    }
  }
  return found;
}
