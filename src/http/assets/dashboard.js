import { History, displayName, element, fetchTables, formatBitrate, formatCodec, repeat, sparkline } from "/assets/shared.js";

/** @typedef {import("/assets/shared.js").TableStatus} TableStatus */

const HISTORY_SECONDS = 90;

/** A number with its past, drawn into one cell. */
class Metric {
  /**
   * @param {HTMLElement} label
   * @param {HTMLCanvasElement} canvas
   * @param {{ atLeast?: number, tint?: string }} options
   */
  constructor(label, canvas, options) {
    this.label = label;
    this.canvas = canvas;
    this.options = options;
    this.history = new History(HISTORY_SECONDS);
  }

  /**
   * @param {number} value
   * @param {string} text
   */
  show(value, text) {
    this.history.push(value);
    this.label.textContent = text;
    sparkline(this.canvas, this.history, this.options);
  }
}

/** One row of the list. */
class Row {
  constructor(/** @type {string} */ name) {
    this.element = document.createElement("tr");
    const link = document.createElement("a");
    link.className = "name";
    link.href = `/play/${encodeURIComponent(name)}`;
    link.textContent = displayName(name);
    this.#cell("").append(link);
    this.state = document.createElement("span");
    this.state.className = "pill";
    this.#cell("").append(this.state);
    this.players = this.#metric({ atLeast: 4 });
    this.fps = this.#metric({ atLeast: 30, tint: "--green" });
    this.bitrate = this.#metric({ atLeast: 1e6, tint: "--blue" });
    this.codecs = this.#cell("codecs");
  }

  /** @param {TableStatus} table */
  show(table) {
    this.state.dataset.state = table.live ? "live" : "off";
    this.state.textContent = table.live ? "Live" : "Not live";
    this.players.show(table.players, String(table.players));
    this.fps.show(table.fps, table.live ? `${table.fps.toFixed(1)} fps` : "–");
    this.bitrate.show(table.bitsPerSecond, table.live ? formatBitrate(table.bitsPerSecond) : "–");
    this.codecs.textContent = [table.videoCodec, table.audioCodec].map(formatCodec).filter(Boolean).join(" + ") || "–";
  }

  /** @param {string} className */
  #cell(className) {
    const cell = document.createElement("td");
    cell.className = className;
    this.element.append(cell);
    return cell;
  }

  /** @param {{ atLeast?: number, tint?: string }} options */
  #metric(options) {
    const box = document.createElement("div");
    const label = document.createElement("b");
    const canvas = document.createElement("canvas");
    box.append(label, canvas);
    this.#cell("metric").append(box);
    return new Metric(label, canvas, options);
  }
}

/**
 * @param {string} name
 * @param {{ atLeast?: number, tint?: string }} options
 */
function total(name, options) {
  return new Metric(element(`total-${name}`, HTMLElement), element(`spark-${name}`, HTMLCanvasElement), options);
}

const pill = element("state", HTMLSpanElement);
const body = element("rows", HTMLTableSectionElement);
const totals = {
  live: total("live", { atLeast: 4, tint: "--green" }),
  players: total("players", { atLeast: 4 }),
  ingested: total("ingested", { atLeast: 1e6, tint: "--blue" }),
  forwarded: total("forwarded", { atLeast: 1e6, tint: "--blue" }),
};
/** @type {Map<string, Row>} */
const rows = new Map();

/** @param {TableStatus[]} tables */
function show(tables) {
  const sum = (/** @type {(table: TableStatus) => number} */ of) => tables.reduce((total, table) => total + of(table), 0);
  const live = sum(({ live }) => Number(live)), players = sum(({ players }) => players);
  const ingested = sum(({ bitsPerSecond }) => bitsPerSecond);
  const forwarded = sum(({ bitsPerSecond, players }) => bitsPerSecond * players);
  totals.live.show(live, `${live} of ${tables.length}`);
  totals.players.show(players, String(players));
  totals.ingested.show(ingested, formatBitrate(ingested));
  totals.forwarded.show(forwarded, formatBitrate(forwarded));

  for (const [name, row] of rows) {
    if (tables.some((table) => table.name === name)) continue;
    row.element.remove();
    rows.delete(name);
  }
  for (const table of tables) {
    const row = rows.get(table.name) ?? new Row(table.name);
    if (!rows.has(table.name)) {
      rows.set(table.name, row);
      body.append(row.element);
    }
    row.show(table);
  }
  element("empty", HTMLElement).hidden = tables.length > 0;
}

repeat(1000, async () => {
  try {
    show(await fetchTables());
    pill.dataset.state = "live";
    pill.textContent = "Up to date";
  } catch {
    pill.dataset.state = "failed";
    pill.textContent = "Node unreachable";
  }
});
