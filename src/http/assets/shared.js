// What several pages use: reading the API, numbers for people, small drawings.

/**
 * @typedef {object} TableStatus
 * @property {string} name
 * @property {boolean} live
 * @property {number} players
 * @property {string | null} [videoCodec]
 * @property {string | null} [audioCodec]
 * @property {number} fps
 * @property {number} bitsPerSecond
 */

/**
 * An element that the page is known to have.
 *
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`the page has no ${type.name} called ${id}`);
  return found;
}

/** The table in the page's path: `/play/NAME`. */
export function tableFromPath() {
  return decodeURIComponent(location.pathname.split("/").filter(Boolean)[1] ?? "");
}

/**
 * The token in the page's URL, `/play/NAME#token=…`: browsers send a fragment to nobody.
 *
 * @returns {string | undefined}
 */
export function tokenFromFragment() {
  return new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
}

/**
 * `demo-vp8` → `Demo VP8`.
 *
 * @param {string} table
 */
export function displayName(table) {
  const words = table.split(/[-_]+/).filter(Boolean);
  return words.map((word) => (/\d/.test(word) ? word.toUpperCase() : word[0].toUpperCase() + word.slice(1))).join(" ");
}

/** @returns {Promise<TableStatus[]>} */
export async function fetchTables() {
  const body = await fetchJson("/api/tables");
  return Array.isArray(body) ? body : (body.tables ?? []);
}

/**
 * @param {string} table
 * @returns {Promise<TableStatus>}
 */
export function fetchTable(table) {
  return fetchJson(`/api/tables/${encodeURIComponent(table)}`);
}

/** @param {string} url */
async function fetchJson(url) {
  const response = await fetch(url, { headers: { Accept: "application/json" }, cache: "no-store" });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return response.json();
}

/**
 * Runs `step` now and again `ms` after it has ended, not while the page is hidden.
 *
 * @param {number} ms
 * @param {() => Promise<void>} step
 */
export function repeat(ms, step) {
  const run = async () => {
    if (!document.hidden) await step();
    setTimeout(run, ms);
  };
  run();
}

/** @param {number} bitsPerSecond */
export function formatBitrate(bitsPerSecond) {
  if (bitsPerSecond >= 1e9) return `${(bitsPerSecond / 1e9).toFixed(2)} Gbit/s`;
  if (bitsPerSecond >= 1e6) return `${(bitsPerSecond / 1e6).toFixed(2)} Mbit/s`;
  return `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
}

/** @param {number | null} ms */
export function formatMs(ms) {
  return ms === null ? "–" : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** @param {string | null | undefined} name */
export function formatCodec(name) {
  if (!name) return "";
  if (name.toLowerCase() === "opus") return "Opus";
  return name.toUpperCase().replace(/^H26/, "H.26");
}

/** The last values of something that is measured again and again. */
export class History {
  /** @param {number} length */
  constructor(length) {
    this.length = length;
    /** @type {number[]} */
    this.values = [];
  }

  /** @param {number} value */
  push(value) {
    this.values.push(value);
    if (this.values.length > this.length) this.values.shift();
  }
}

/**
 * Sizes a canvas for the screen's pixels and clears it.
 *
 * @param {HTMLCanvasElement} canvas
 */
function prepare(canvas) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** @param {string} name */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/**
 * A line over time from zero, the newest value at the right edge.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {History} history
 * @param {{ atLeast?: number, tint?: string }} [options] `atLeast` is the smallest full scale
 */
export function sparkline(canvas, history, { atLeast = 1, tint = "--gold" } = {}) {
  const { context, width, height } = prepare(canvas);
  const { values, length } = history;
  if (values.length < 2) return;
  const top = Math.max(atLeast, ...values) * 1.08;
  const x = (/** @type {number} */ i) => width - 2 - ((values.length - 1 - i) * (width - 4)) / (length - 1);
  const y = (/** @type {number} */ value) => height - 2 - (value / top) * (height - 4);
  const line = new Path2D();
  values.forEach((value, i) => line.lineTo(x(i), y(value)));
  const area = new Path2D(line);
  area.lineTo(x(values.length - 1), height);
  area.lineTo(x(0), height);
  const stroke = colour(tint);
  context.globalAlpha = 0.16;
  context.fillStyle = stroke;
  context.fill(area);
  context.globalAlpha = 1;
  context.strokeStyle = stroke;
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.stroke(line);
  context.beginPath();
  context.arc(x(values.length - 1), y(values[values.length - 1]), 2, 0, 2 * Math.PI);
  context.fillStyle = stroke;
  context.fill();
}

/**
 * A half circle that fills from left to right.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {number | null} fraction 0 to 1, `null` for unknown
 * @param {string} tint name of a colour of the style sheet
 */
export function gauge(canvas, fraction, tint) {
  const { context, width, height } = prepare(canvas);
  const base = height - 34;
  const radius = Math.min(width / 2, base) - 6;
  const arc = (/** @type {number} */ to, /** @type {string} */ style) => {
    context.beginPath();
    context.arc(width / 2, base, radius, Math.PI, Math.PI * (1 + to));
    context.strokeStyle = style;
    context.stroke();
  };
  context.lineWidth = 9;
  context.lineCap = "round";
  arc(1, colour("--line"));
  if (fraction !== null) arc(Math.min(1, Math.max(0.02, fraction)), colour(tint));
}
