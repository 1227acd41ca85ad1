// The timeline as data, and its texts. Pure: nothing here touches the page.

const PATHS = {
  direct: { height: 0.45, text: "direct" },
  idle: { height: 0.25, text: "idle: nothing was sent to it" },
  offline: { height: 0.12, text: "offline" },
  peer_relay: { height: 0.7, text: "peer relay", pattern: "bars" },
  derp: { height: 1, text: "relay (DERP)", pattern: "hatch" },
  none: { height: 1, text: "no path: packets to it are lost" },
  unseen: { height: 0, text: "not seen" },
};
const REASONS = {
  direct: "direct",
  unknown: "nothing to see, so it is ignored",
  waiting: "on relay, waiting for the threshold",
  excluded: "on relay for too long, excluded from restarts",
  never_direct: "on relay for too long, never seen direct",
  patient: "on relay for too long, but restarts did not help before",
  cooldown: "on relay for too long, in the cooldown of a restart",
  confirming: "on relay for too long, confirming that it lasts",
  held: "on relay for too long, but restarts are held back",
  detected: "on relay from here on",
  restored: "direct again, by a restart",
  recovered: "direct again",
  restart: "on relay for too long: restart of tailscaled",
};
// The reasons with a marker, and the log line of each.
const LINES = {
  detected: "DETECTED",
  cooldown: "COOLDOWN",
  restored: "RECOVERED",
  recovered: "RECOVERED",
  restart: "RESTART",
};
const CALM = new Set(["unseen", "direct", "idle", "offline"]); // paths without a relay
const GROUP_LEAST = 3; // fewer peers keep lanes of their own
const OBSERVATION_STATUSES = {
  seen: "observed",
  gap: "gap: no observation for much longer than usual",
  fault: "fault",
};
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

// The page's data, with absolute times. `limits` is the time that it covers.
function decoded(raw) {
  const limits = { from: raw.from, to: Math.max(raw.to, raw.from + 1) };
  const node = decodedLane(raw, raw.node, "this node", limits);
  const peers = raw.peers.map((lane) => decodedLane(raw, lane, lane.name, limits));
  const calm = calmLane(raw, peers, limits);
  return { ...raw, limits, node, peers, calm, restarts: restartTimes(raw, peers) };
}

// One lane for all peers that were never on relay, its `members`; null if there are few. It
// shows the path that most of them have, of two the worse; `counts` has the number of members by kind.
function calmLane(raw, peers, limits) {
  const members = peers.filter((lane) => isCalm(raw, lane));
  if (members.length < GROUP_LEAST) return null;
  const changes = members
    .flatMap(({ starts, kinds }) =>
      starts.map((start, at) => ({ start, kind: kinds[at], before: kinds[at - 1] })),
    )
    .filter(({ kind, before }) => kind !== before);
  changes.sort((a, b) => a.start - b.start);
  const lane = { starts: [], kinds: [], details: [], counts: [], end: limits.to };
  const counts = raw.paths.map(() => 0);
  changes.forEach(({ start, kind, before }, at) => {
    counts[kind] += 1;
    if (before !== undefined) counts[before] -= 1;
    if (at + 1 < changes.length && changes[at + 1].start === start) return;
    lane.starts.push(start);
    lane.kinds.push(counts.lastIndexOf(Math.max(...counts)));
    lane.details.push(0);
    lane.counts.push([...counts]);
  });
  return { ...lane, name: calmName(raw, members), members };
}

function isCalm(raw, lane) {
  return (
    lane.kinds.every((kind) => CALM.has(raw.paths[kind])) &&
    lane.details.every((rank) => !(raw.reasons[rank] in LINES))
  );
}

function calmName(raw, members) {
  const isDirect = (kind) => ["direct", "unseen"].includes(raw.paths[kind]);
  const isAlwaysDirect = members.every((lane) => lane.kinds.every(isDirect));
  return `${members.length} peers ${isAlwaysDirect ? "always direct" : "never on relay"}`;
}

// Starts are sent as differences. A value holds a kind and a detail.
// A peer's kind is its path, its detail a reason. The node's kind is the status of an
// observation, its detail the text of a fault.
function decodedLane(raw, lane, name, limits) {
  let start = raw.from;
  return {
    name,
    starts: lane.starts.map((difference) => (start += difference)),
    kinds: lane.values.map((value) => Math.floor(value / raw.shift)),
    details: lane.values.map((value) => value % raw.shift),
    end: limits.to,
  };
}

function restartTimes(raw, peers) {
  const restart = raw.reasons.indexOf("restart");
  const times = peers.flatMap((lane) => lane.starts.filter((_, at) => lane.details[at] === restart));
  return times.sort((a, b) => a - b);
}

// Index of the last segment that starts at or before a time; -1 for none.
function segmentAt(lane, unix) {
  let low = 0;
  let high = lane.starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lane.starts[middle] <= unix) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function segmentEnd(lane, at) {
  return at + 1 < lane.starts.length ? lane.starts[at + 1] : lane.end;
}

// 2027-01-15 08:00:00Z
function timeText(unix) {
  return new Date(unix * 1000).toISOString().slice(0, 19).replace("T", " ") + "Z";
}

// A duration in its two largest units, such as "1 h 5 min".
function durationText(seconds) {
  const first = UNITS.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [unit, size] = UNITS[first];
  const text = `${Math.floor(seconds / size)} ${unit}`;
  if (first + 1 === UNITS.length) return text;
  const [smallerUnit, smallerSize] = UNITS[first + 1];
  const rest = Math.floor((seconds % size) / smallerSize);
  return rest ? `${text} ${rest} ${smallerUnit}` : text;
}

// The lines about one segment: what it shows, why, and when.
function segmentText(data, lane, at) {
  const start = lane.starts[at];
  const end = segmentEnd(lane, at);
  const lines = [
    ...linesAbout(data, lane, at),
    `${timeText(start)} to ${timeText(end)}, ${durationText(end - start)}`,
  ];
  if (data.resolution > 1) lines.push(`the worst of each ${durationText(data.resolution)}`);
  return lines.join("\n");
}

function linesAbout(data, lane, at) {
  if (lane === data.node) return nodeLines(data, at);
  return lane === data.calm ? calmLines(data, at) : peerLines(data, lane, at);
}

function calmLines(data, at) {
  const numbers = data.calm.counts[at].map((count, kind) => {
    const [word] = PATHS[data.paths[kind]].text.split(":");
    return count ? `${count} ${word}` : "";
  });
  return [data.calm.name, numbers.filter(Boolean).join(", ")];
}

function nodeLines(data, at) {
  const { name, kinds, details } = data.node;
  const fault = details[at] ? `: ${data.texts[details[at]]}` : "";
  return [`${name}: ${OBSERVATION_STATUSES[data.observation_statuses[kinds[at]]]}${fault}`];
}

function peerLines(data, lane, at) {
  const path = PATHS[data.paths[lane.kinds[at]]].text;
  const reason = data.reasons[lane.details[at]];
  return [`${lane.name}: ${path}`, ...(reason ? [`watchdog: ${REASONS[reason]}`] : [])];
}
