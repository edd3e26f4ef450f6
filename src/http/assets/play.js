import { TablesidePlayer, canPlay } from "/sdk/player.js";
import { showBets } from "/assets/bets.js";
import {
  History, displayName, element, fetchTable, fetchTables, formatBitrate, formatCodec, formatMs, gauge, repeat, sparkline, tableFromPath, tokenFromFragment,
} from "/assets/shared.js";

/** @typedef {import("/sdk/player.js").StateDetail} StateDetail */
/** @typedef {import("/sdk/player.js").PlayerStats} PlayerStats */
/** @typedef {import("/sdk/player.js").PlayerState} PlayerState */

/** @type {Record<PlayerState, [pill: string, title: string]>} */
const WORDS = {
  idle: ["Idle", ""],
  connecting: ["Connecting", "Taking your seat"],
  live: ["Live", ""],
  paused: ["Paused", "The table has paused"],
  waiting: ["Not live", "The table is not live yet"],
  stalled: ["Stalled", "One moment"],
  refused: ["No entry", "No seat at this table"],
  unplayable: ["Cannot play", "This table cannot be shown here"],
  stopped: ["Stopped", "Stopped"],
};
/** Full scale of the latency meter. */
const LATENCY_SCALE_MS = 500;

const table = tableFromPath();
const video = element("video", HTMLVideoElement);
const stage = element("stage", HTMLElement);
const pill = element("state", HTMLSpanElement);
const veil = element("veil", HTMLDivElement);
const retry = element("veil-retry", HTMLButtonElement);
const suggestion = element("veil-link", HTMLAnchorElement);
const tap = element("tap", HTMLButtonElement);
const sound = element("sound", HTMLButtonElement);
const volume = element("volume", HTMLInputElement);
const fullscreen = element("fullscreen", HTMLButtonElement);
const frameRates = new History(60);
const bitrates = new History(60);

const player = new TablesidePlayer({ url: `/whep/${encodeURIComponent(table)}`, video, token: tokenFromFragment(), playerId: playerId() });
Object.assign(window, { tableside: player });

element("table-name", HTMLHeadingElement).textContent = displayName(table);
document.title = `${displayName(table)} · Tableside`;

/**
 * @param {string} id
 * @param {string} text
 */
function say(id, text) {
  element(id, HTMLElement).textContent = text;
}

showBets(player);

/** The id of whoever uses this browser: what a table without tokens, the demo, knows a player by. */
function playerId() {
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    const kept = localStorage.getItem("tableside-player") ?? fresh();
    localStorage.setItem("tableside-player", kept);
    return /^[0-9a-f]{32}$/.test(kept) ? kept : fresh();
  } catch {
    // Storage is forbidden here: a player for this page.
    return fresh();
  }
}

// State

player.addEventListener("statechange", ({ detail }) => {
  const [word, title] = WORDS[detail.state];
  pill.textContent = word;
  pill.dataset.state = detail.state;
  showVeil(detail, title);
  tap.hidden = detail.state !== "live" || !video.muted;
});

/**
 * @param {StateDetail} detail
 * @param {string} title
 */
function showVeil(detail, title) {
  veil.hidden = detail.state === "live";
  // The last picture shines through where it is only late.
  veil.classList.toggle("soft", detail.state === "stalled" || detail.state === "paused");
  say("veil-title", title);
  say("veil-text", detail.message ?? "");
  const final = ["refused", "unplayable", "stopped"].includes(detail.state);
  element("veil-spinner", HTMLElement).hidden = final && detail.retryInMs === undefined;
  retry.hidden = !final;
  suggestion.hidden = true;
  if (detail.reason === "no_common_codec") suggestPlayableTable();
}

retry.addEventListener("click", async () => {
  await player.stop();
  await player.start();
});

/** Offers another live table in a format that this browser has, the same table in another format first. */
async function suggestPlayableTable() {
  /** @type {string[]} */
  let names = table === "demo" && canPlay("VP8") ? ["demo-vp8"] : [];
  try {
    const playable = (await fetchTables()).filter(({ name, live, videoCodec }) => name !== table && live && videoCodec && canPlay(videoCodec));
    const related = playable.filter(({ name }) => name.startsWith(table));
    names = [...related, ...playable].map(({ name }) => name).concat(names);
  } catch {
    // Then the guess has to do.
  }
  if (!names.length || player.state !== "unplayable") return;
  suggestion.href = `/play/${encodeURIComponent(names[0])}`;
  suggestion.textContent = `Watch ${displayName(names[0])} instead`;
  suggestion.hidden = false;
}

repeat(2000, async () => {
  try {
    say("players", String((await fetchTable(table)).players));
  } catch {
    say("players", "–");
  }
});

// Sound

/** @param {boolean} on */
function setSound(on) {
  video.muted = !on;
  if (on) video.play().catch(() => setSound(false));
}

video.volume = Number(volume.value);
video.addEventListener("volumechange", () => {
  const on = !video.muted && video.volume > 0;
  sound.setAttribute("aria-pressed", String(on));
  sound.setAttribute("aria-label", on ? "Sound off" : "Sound on");
  document.getElementById("waves")?.toggleAttribute("hidden", !on);
  document.getElementById("crossed")?.toggleAttribute("hidden", on);
  tap.hidden = player.state !== "live" || !video.muted;
});
tap.addEventListener("click", () => setSound(true));
sound.addEventListener("click", () => setSound(video.muted));
volume.addEventListener("input", () => {
  video.volume = Number(volume.value);
  setSound(video.volume > 0);
});

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else stage.requestFullscreen?.().catch(() => {});
}
fullscreen.addEventListener("click", toggleFullscreen);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
  if (event.key === "m") setSound(video.muted);
  if (event.key === "f") toggleFullscreen();
});

// Statistics

player.addEventListener("stats", ({ detail: stats }) => {
  showLatency(stats);
  frameRates.push(stats.fps);
  bitrates.push(stats.bitsPerSecond);
  sparkline(element("fps-spark", HTMLCanvasElement), frameRates, { atLeast: 30, tint: "--green" });
  sparkline(element("bitrate-spark", HTMLCanvasElement), bitrates, { atLeast: 1e6 });
  say("fps", `${Math.round(stats.fps)} fps`);
  say("bitrate", formatBitrate(stats.bitsPerSecond));
  say("picture", stats.width ? `${stats.width} × ${stats.height}` : "–");
  say("codecs", [stats.videoCodec, stats.audioCodec].map(formatCodec).filter(Boolean).join(" + ") || "–");
  say("rtt", formatMs(stats.rttMs));
  say("buffer", formatMs(stats.jitterBufferMs));
  say("lost", String(stats.packetsLost));
  say("decoded", stats.framesDecoded.toLocaleString("en-GB"));
  say("dropped", String(stats.framesDropped));
  say("freezes", stats.freezeCount ? `${stats.freezeCount} (${formatMs(stats.freezesMs)})` : "0");
  say("first", formatMs(stats.firstFrameMs));
});

/** @param {Pick<PlayerStats, "latencyMs" | "captureToShownMs">} stats */
function showLatency({ latencyMs, captureToShownMs }) {
  const ms = captureToShownMs ?? latencyMs;
  const since = captureToShownMs === null ? "from the edge, estimated" : "from the camera, measured";
  const [word, tint] = ms === null ? ["", "--line"] : ms < 120 ? ["excellent", "--green"] : ms < 250 ? ["good", "--gold"] : ["high", "--amber"];
  gauge(element("gauge", HTMLCanvasElement), ms === null ? null : ms / LATENCY_SCALE_MS, tint);
  say("latency", formatMs(ms));
  say("latency-word", word ? `${word} · ${since}` : since);
  say("latency-chip", ms === null ? "" : captureToShownMs === null ? `≈ ${formatMs(ms)} from the edge` : `${formatMs(ms)} from the camera`);
}

showLatency({ latencyMs: null, captureToShownMs: null });
player.start();
