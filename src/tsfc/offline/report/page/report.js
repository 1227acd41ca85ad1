"use strict";
// Draws the timeline that the page holds as JSON. Only the lanes in sight are drawn, and of a lane one thing a pixel, the worst.
(() => {
  const ROW = 20, TOP = 48, GUTTER = 190, RIGHT = 12, MARKER_ROOM = 14, STRIP = 40, PAPER = 1000;
  const PATHS = {
    direct: { height: 0.45, text: "direct" },
    idle: { height: 0.25, text: "idle: nothing was sent to it" },
    offline: { height: 0.12, text: "offline" },
    peer_relay: { height: 0.7, text: "peer relay", pattern: "bars" },
    derp: { height: 1, text: "relay (DERP)", pattern: "hatch" },
    unseen: { height: 0, text: "not seen" },
  };
  const MARKERS = {
    detected: { text: "DETECTED", draw: (c, x, y) => triangle(c, x, y, 1) },
    cooldown: { text: "COOLDOWN", draw: (c, x, y) => { c.fillRect(x - 3, y - 4, 2, 8); c.fillRect(x + 1, y - 4, 2, 8); } },
    restored: { text: "RECOVERED", draw: (c, x, y) => triangle(c, x, y, -1) },
    recovered: { text: "RECOVERED", draw: (c, x, y) => triangle(c, x, y, -1) },
    restart: { text: "RESTART", draw: (c, x, y) => { c.beginPath(); c.arc(x, y, 4, 0, 2 * Math.PI); c.fill(); } },
  };
  const REASONS = {
    direct: "direct", waiting: "on relay, waiting for the threshold", excluded: "on relay for too long, excluded from restarts",
    cooldown: "on relay for too long, in the cooldown of a restart", detected: "on relay from here on", restored: "direct again, by a restart",
    recovered: "direct again", restart: "on relay for too long: restart of tailscaled",
  };
  const SIGHTS = { seen: "observed", gap: "gap: no observation for much longer than usual", fault: "fault" };
  const COUNTERS = [["restarts", "--restart"], ["detections", "--derp"], ["recoveries", "--direct"], ["cooldowns", "--faint"]];
  const STEPS = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 7776000, 31536000];

  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const chart = element("chart"), box = element("lanes"), room = element("room"), tip = element("tip"), said = element("selection"), counters = element("counters"), paper = element("paper");
  const node = unpacked(data.node, "this node");
  const peers = data.peers.map((lane) => unpacked(lane, lane.name));
  const restarts = peers.flatMap((lane) => lane.starts.filter((_, at) => data.reasons[lane.values[at] % data.shift] === "restart")).sort((a, b) => a - b);
  const end = Math.max(data.to, data.from + 1);
  let from = data.from, to = end, shown = peers, cursor = null, drag = null, isPrinting = false, waiting = false, patterns = {};

  function unpacked(lane, name) {
    let at = data.from;
    return { name, starts: lane.starts.map((step) => (at += step)), values: lane.values };
  }
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const when = (unix) => new Date(unix * 1000).toISOString().slice(0, 19).replace("T", " ") + "Z";
  function span(seconds) {
    const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
    const first = parts.findIndex(([, size]) => seconds >= size);
    if (first < 0) return "0 s";
    return parts.slice(first, first + 2).map(([unit, size], at) => {
      const number = Math.floor(at ? (seconds % parts[first][1]) / size : seconds / size);
      return at && !number ? "" : `${number} ${unit}`;
    }).join(" ").trim();
  }
  function triangle(c, x, y, up) {
    c.beginPath(); c.moveTo(x - 4, y + 3 * up * -1); c.lineTo(x + 4, y + 3 * up * -1); c.lineTo(x, y + 4 * up); c.fill();
  }
  // The last segment that starts at or before a time; -1 for none.
  function segmentAt(lane, unix) {
    let low = 0, high = lane.starts.length;
    while (low < high) { const middle = (low + high) >> 1; if (lane.starts[middle] <= unix) low = middle + 1; else high = middle; }
    return low - 1;
  }
  const until = (lane, at) => (at + 1 < lane.starts.length ? lane.starts[at + 1] : end);
  const isNode = (lane) => lane === node;

  function prepared(canvas, width, height) {
    const ratio = isPrinting ? 2 : window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    if (isPrinting) canvas.style.height = "auto";
    context.scale(ratio, ratio);
    context.fillStyle = colour("--paper"); context.fillRect(0, 0, width, height);
    context.font = "12px system-ui, sans-serif"; context.textBaseline = "middle";
    return context;
  }
  const x = (unix, width) => GUTTER + ((unix - from) / (to - from)) * (width - GUTTER - RIGHT);
  const timeAt = (position, width) => from + ((position - GUTTER) / (width - GUTTER - RIGHT)) * (to - from);

  function pattern(context, name) {
    const kind = PATHS[name].pattern, plain = colour(`--${name}`);
    if (!kind) return plain;
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const c = tile.getContext("2d");
    c.fillStyle = plain; c.fillRect(0, 0, 6, 6);
    c.strokeStyle = colour("--paper"); c.lineWidth = 1.2; c.beginPath();
    if (kind === "hatch") { for (const shift of [-6, 0, 6]) { c.moveTo(shift, 6); c.lineTo(shift + 6, 0); } } else { c.moveTo(3, 0); c.lineTo(3, 6); }
    c.stroke();
    return context.createPattern(tile, "repeat");
  }
  const label = (unix, step) => (step < 86400 && unix % 86400 ? when(unix).slice(11, 16) : when(unix).slice(0, 10));

  function drawAxis(c, width, height) {
    const step = STEPS.find((size) => (size / (to - from)) * (width - GUTTER - RIGHT) >= 90) || STEPS[STEPS.length - 1];
    for (let unix = Math.ceil(from / step) * step; unix <= to; unix += step) {
      const at = x(unix, width);
      c.fillStyle = colour("--line"); c.fillRect(at, 22, 1, height);
      c.fillStyle = colour("--faint"); c.textAlign = at > width - 70 ? "right" : "left"; c.fillText(label(unix, step), at + (at > width - 70 ? -3 : 3), 12);
    }
    c.textAlign = "left";
  }
  function clipped(c, text, width) {
    if (c.measureText(text).width <= width) return text;
    let cut = text.length;
    while (cut > 1 && c.measureText(text.slice(0, cut) + "…").width > width) cut -= 1;
    return text.slice(0, cut) + "…";
  }
  // One thing a pixel: what is narrower is merged with its neighbours to the worst of them.
  function runs(lane, width, draw) {
    let merged = null;
    const flush = () => { if (merged) draw(merged.x, 1, merged.kind); merged = null; };
    for (let at = Math.max(0, segmentAt(lane, from)); at < lane.starts.length && lane.starts[at] < to; at += 1) {
      const left = x(Math.max(lane.starts[at], from), width), right = x(Math.min(until(lane, at), to), width);
      const kind = Math.floor(lane.values[at] / data.shift);
      if (right <= GUTTER) continue;
      if (right - left >= 1) { flush(); draw(left, right - left, kind); continue; }
      const column = Math.floor(left);
      if (merged && merged.x === column) merged.kind = Math.max(merged.kind, kind);
      else { flush(); merged = { x: column, kind }; }
    }
    flush();
  }
  function drawMarkers(c, lane, width, middle) {
    let last = -Infinity, rank = -1;
    const wanted = [];
    for (let at = Math.max(0, segmentAt(lane, from)); at < lane.starts.length && lane.starts[at] < to; at += 1) {
      const reason = lane.values[at] % data.shift;
      if (lane.starts[at] < from || !MARKERS[data.reasons[reason]]) continue;
      const position = x(lane.starts[at], width);
      if (position - last < MARKER_ROOM) { if (reason <= rank) continue; wanted.pop(); }
      wanted.push([position, data.reasons[reason]]); last = position; rank = reason;
    }
    for (const [position, reason] of wanted) {
      c.fillStyle = colour("--paper"); c.beginPath(); c.arc(position, middle, 6, 0, 2 * Math.PI); c.fill();
      c.fillStyle = colour(reason === "restart" ? "--restart" : "--ink"); MARKERS[reason].draw(c, position, middle);
    }
  }
  function drawNode(c, width) {
    c.fillStyle = colour("--faint"); c.fillText("this node", 8, 34);
    runs(node, width, (left, wide, sight) => {
      c.fillStyle = colour(sight === 0 ? "--line" : sight === 1 ? "--idle" : "--fault");
      c.fillRect(left, sight === 2 ? 27 : 32, wide, sight === 2 ? 14 : 4);
    });
    c.fillStyle = colour("--restart");
    for (const unix of restarts) if (unix >= from && unix <= to) c.fillRect(x(unix, width) - 0.5, 26, 1, 16);
  }
  function drawLane(c, lane, width, top) {
    const name = cursor && cursor.lane === lane ? "--ink" : "--faint";
    c.fillStyle = colour(name); c.fillText(clipped(c, lane.name, GUTTER - 16), 8, top + ROW / 2);
    c.fillStyle = colour("--line"); c.fillRect(0, top + ROW - 1, width, 1);
    runs(lane, width, (left, wide, kind) => {
      const path = data.paths[kind], tall = Math.max(1, PATHS[path].height * (ROW - 4));
      if (!PATHS[path].height) return;
      c.fillStyle = wide > 3 ? patterns[path] : colour(`--${path}`);
      c.fillRect(left, top + ROW - 2 - tall, wide, tall);
    });
    drawMarkers(c, lane, width, top + ROW / 2);
    if (cursor && cursor.lane === lane) {
      const start = Math.max(from, lane.starts[cursor.at]), stop = Math.min(to, until(lane, cursor.at));
      c.strokeStyle = colour("--ink"); c.lineWidth = 1.5;
      if (start <= stop) c.strokeRect(x(start, width), top + 1, Math.max(2, x(stop, width) - x(start, width)), ROW - 3);
    }
  }
  function drawLanes(canvas, lanes, width, height, scrolled) {
    const c = prepared(canvas, width, height);
    patterns = Object.fromEntries(data.paths.map((path) => [path, pattern(c, path)]));
    drawAxis(c, width, height);
    c.save(); c.beginPath(); c.rect(0, TOP, width, height - TOP); c.clip();
    const first = Math.floor(scrolled / ROW), last = Math.min(lanes.length, Math.ceil((scrolled + height) / ROW));
    for (let row = first; row < last; row += 1) drawLane(c, lanes[row], width, TOP + row * ROW - scrolled);
    c.restore();
    drawNode(c, width);
    return c;
  }
  function drawChart() {
    const width = box.clientWidth, all = TOP + shown.length * ROW, height = Math.min(all, Math.max(200, Math.round(window.innerHeight * 0.74)));
    room.style.height = `${all - height}px`;
    const c = drawLanes(chart, shown, width, height, box.scrollTop);
    if (drag) { c.fillStyle = colour("--idle"); c.globalAlpha = 0.25; c.fillRect(Math.min(drag.start, drag.now), 22, Math.abs(drag.now - drag.start), height); c.globalAlpha = 1; }
  }
  // Each on a scale of its own: there are ten times as many cooldowns as restarts.
  function drawCounters(width) {
    const tall = 46, height = 26 + COUNTERS.length * tall, c = prepared(counters, width, height);
    const points = data.counters.filter((point) => point[0] <= to);
    drawAxis(c, width, height);
    COUNTERS.forEach(([name, tone], number) => {
      const floor = 26 + (number + 1) * tall - 8, value = (point) => (point ? point[number + 1] : 0);
      const before = points.filter((point) => point[0] < from).pop(), most = Math.max(1, value(points[points.length - 1]) - value(before));
      const y = (point) => floor - ((value(point) - value(before)) / most) * (tall - 16);
      c.fillStyle = colour("--line"); c.fillRect(GUTTER, floor, width - GUTTER - RIGHT, 1);
      c.strokeStyle = colour(tone); c.lineWidth = 1.8; c.beginPath(); c.moveTo(x(from, width), floor);
      let last = before;
      for (const point of points) {
        if (point[0] < from) continue;
        c.lineTo(x(point[0], width), y(last)); c.lineTo(x(point[0], width), y(point)); last = point;
      }
      c.lineTo(x(to, width), y(last)); c.stroke();
      c.fillStyle = colour("--ink"); c.fillText(name, 8, floor - tall / 2 + 10);
      c.textAlign = "right"; c.fillText(`+${value(last) - value(before)}`, GUTTER - 10, floor - tall / 2 + 10); c.textAlign = "left";
    });
  }
  function drawLegend() {
    const entries = data.paths.filter((path) => PATHS[path].height).map((path) => [PATHS[path].text, (c) => {
      const tall = PATHS[path].height * 14;
      c.fillStyle = pattern(c, path); c.fillRect(0, 15 - tall, 24, tall);
    }]);
    for (const reason of ["detected", "cooldown", "restart", "recovered"]) {
      entries.push([MARKERS[reason].text, (c) => { c.fillStyle = colour(reason === "restart" ? "--restart" : "--ink"); MARKERS[reason].draw(c, 12, 8); }]);
    }
    entries.push(["gap", (c) => { c.fillStyle = colour("--idle"); c.fillRect(0, 6, 24, 4); }]);
    entries.push(["fault", (c) => { c.fillStyle = colour("--fault"); c.fillRect(4, 1, 16, 14); }]);
    element("legend").replaceChildren(...entries.map(([text, draw]) => {
      const item = document.createElement("li"), canvas = document.createElement("canvas");
      draw(prepared(canvas, 24, 16));
      item.append(canvas, text);
      return item;
    }));
  }
  function draw() { waiting = false; drawChart(); drawCounters(counters.clientWidth); }
  function redraw() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }

  function described(lane, at) {
    const start = lane.starts[at], stop = until(lane, at), kind = Math.floor(lane.values[at] / data.shift), rest = lane.values[at] % data.shift;
    const what = isNode(lane) ? SIGHTS[data.sights[kind]] + (rest ? `: ${data.texts[rest]}` : "") : PATHS[data.paths[kind]].text;
    const why = isNode(lane) || !data.reasons[rest] ? "" : `\nwatchdog: ${REASONS[data.reasons[rest]]}`;
    const coarse = data.resolution > 1 ? `\nthe worst of each ${span(data.resolution)}` : "";
    return `${lane.name}: ${what}${why}\n${when(start)} to ${when(stop)}, ${span(stop - start)}${coarse}`;
  }
  function laneAt(event) {
    const area = chart.getBoundingClientRect(), y = event.clientY - area.top;
    return y < TOP ? node : shown[Math.floor((y - TOP + box.scrollTop) / ROW)];
  }
  function hover(event) {
    const area = chart.getBoundingClientRect(), lane = laneAt(event), position = event.clientX - area.left;
    if (drag) { drag.now = position; redraw(); }
    const at = lane && position >= GUTTER ? segmentAt(lane, timeAt(position, area.width)) : -1;
    tip.hidden = at < 0;
    if (at < 0) return;
    tip.textContent = described(lane, at);
    tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8)}px`;
  }
  function zoom(begin, stop) {
    const length = Math.min(end - data.from, Math.max(60, stop - begin));
    from = Math.max(data.from, Math.min(begin, end - length)); to = from + length;
    redraw();
  }
  function scale(factor) {
    const lane = cursor && cursor.lane;
    const middle = lane ? Math.min(to, Math.max(from, lane.starts[cursor.at])) : (from + to) / 2;
    zoom(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }
  const everything = () => zoom(data.from, end);
  function select(lane, at) {
    cursor = { lane, at };
    const start = lane.starts[at], row = shown.indexOf(lane) * ROW;
    if (start < from || start > to) zoom(start - (to - from) / 2, start + (to - from) / 2);
    if (row < box.scrollTop) box.scrollTop = row;
    if (row + ROW + TOP > box.scrollTop + chart.clientHeight) box.scrollTop = row + ROW + TOP - chart.clientHeight;
    said.textContent = described(lane, at).replaceAll("\n", " · ");
    redraw();
  }
  function move(lanes, changes) {
    if (!shown.length) return;
    if (!cursor || !shown.includes(cursor.lane)) { select(shown[0], Math.max(0, segmentAt(shown[0], from))); return; }
    const row = Math.min(shown.length - 1, Math.max(0, shown.indexOf(cursor.lane) + lanes)), lane = shown[row];
    const same = lane === cursor.lane ? cursor.at : segmentAt(lane, cursor.lane.starts[cursor.at]);
    select(lane, Math.min(lane.starts.length - 1, Math.max(0, same + changes)));
  }
  const KEYS = {
    ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0), ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1),
    "+": () => scale(0.5), "=": () => scale(0.5), "-": () => scale(2), 0: everything,
  };

  box.addEventListener("scroll", redraw);
  box.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : KEYS[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  chart.addEventListener("pointermove", hover);
  chart.addEventListener("pointerleave", () => { tip.hidden = true; });
  chart.addEventListener("pointerdown", (event) => {
    const position = event.clientX - chart.getBoundingClientRect().left;
    if (event.button === 0 && position >= GUTTER) { drag = { start: position, now: position }; chart.setPointerCapture(event.pointerId); }
  });
  chart.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const width = chart.getBoundingClientRect().width, ends = [drag.start, drag.now].sort((a, b) => a - b), lane = laneAt(event);
    drag = null;
    if (ends[1] - ends[0] > 4) { zoom(timeAt(ends[0], width), timeAt(ends[1], width)); return; }
    const at = lane && !isNode(lane) ? segmentAt(lane, timeAt(ends[0], width)) : -1;
    if (at >= 0) select(lane, at); else redraw();
  });
  chart.addEventListener("pointercancel", () => { drag = null; redraw(); });
  chart.addEventListener("dblclick", everything);
  element("in").addEventListener("click", () => scale(0.5));
  element("out").addEventListener("click", () => scale(2));
  element("all").addEventListener("click", everything);
  element("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    shown = peers.filter((lane) => lane.name.toLowerCase().includes(wanted));
    redraw();
  });
  new ResizeObserver(redraw).observe(document.body);
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawLegend(); redraw(); });
  // Paper does not scroll: all lanes, in strips that fit on a page, each with the axis above.
  function drawPaper() {
    isPrinting = true;
    const strips = [];
    for (let first = 0; first < shown.length; first += STRIP) {
      const lanes = shown.slice(first, first + STRIP), canvas = document.createElement("canvas");
      drawLanes(canvas, lanes, PAPER, TOP + lanes.length * ROW, 0);
      strips.push(canvas);
    }
    paper.replaceChildren(...strips);
    drawCounters(PAPER);
    drawLegend();
  }
  window.addEventListener("beforeprint", drawPaper);
  window.addEventListener("afterprint", () => { isPrinting = false; paper.replaceChildren(); drawLegend(); draw(); });
  drawLegend();
  draw();
})();
