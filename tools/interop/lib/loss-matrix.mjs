// What loss, delay and jitter on a player's link do to the picture: the cells, how one is played, what it comes to.

import { between, isLevel } from './playback.mjs';
import { Netsim } from './netsim.mjs';
import { percentile } from './statistics.mjs';
import { measureFor, until } from './until.mjs';

export const TABLE = 'demo';
export const FPS = 30;
/** Packets in a burst, in the mean. */
export const BURST = 4;
export const JOINS_WITHIN = 30;
const SAMPLE_SECONDS = 0.25;
/** Readings of five seconds: in so long a player is level with its publisher once. */
const LEVEL_WITHIN = 20;
/** How much longer a cell is watched whose picture stands at the end, in seconds. */
const LONGER_AT_MOST = 5;
/** What page/peers.js says. */
const NO_PICTURE = /the first frame: not within/;
const NOTHING_SHOWN = { shown: 0, freezes: 0, frozen: Infinity, longestFreeze: Infinity, jitterBufferMs: Infinity, nacks: 0, keyframeRequests: 0 };

const LOSSES = [0, 1, 3, 5, 10];
const ROUND_TRIPS = [20, 80, 200];
const JITTERS = [0, 30];

/**
 * A link and a player.
 *
 * @typedef {{ loss: number, kind: 'none' | 'random' | 'burst', rtt: number, jitter: number, repair: boolean }} Cell
 */

/** All cells: loss in percent, alone or in bursts; round trip and jitter in milliseconds; with and without repair. @returns {Cell[]} */
export function allCells() {
  const losses = LOSSES.flatMap((loss) => (loss === 0 ? [{ loss, kind: 'none' }] : [{ loss, kind: 'random' }, { loss, kind: 'burst' }]));
  return losses.flatMap((loss) => ROUND_TRIPS.flatMap((rtt) => JITTERS.flatMap((jitter) =>
    [true, false].map((repair) => ({ ...loss, rtt, jitter, repair })))));
}

/** Its place among all: the same cell meets the same losses, whatever is played beside it. @param {Cell} cell */
function numberOf(cell) {
  return allCells().findIndex((other) => cellName(other) === cellName(cell));
}

/** As it is called on the command line: `5%random-80ms-jitter30-norepair`. @param {Cell} cell */
export function cellName({ loss, kind, rtt, jitter, repair }) {
  return `${loss}%${kind === 'none' ? '' : kind}-${rtt}ms${jitter > 0 ? `-jitter${jitter}` : ''}${repair ? '' : '-norepair'}`;
}

/** The settings of either direction. @param {Cell} cell */
export function conditions({ loss, kind, rtt, jitter }) {
  const lost = { none: 'loss=0', random: `loss=${loss}%`, burst: `burst=${loss}%/${BURST}` }[kind];
  return `delay=${rtt / 2}ms jitter=${jitter}ms ${lost}`;
}

/**
 * Plays these cells, so many at a time, each behind a link of its own.
 *
 * @param {import('./scenario.mjs').Scenario} t
 * @param {Cell[]} cells
 * @param {{ seconds: number, together: number, seed?: number, progress?: (batch: object[], done: number) => void }} how
 * @returns {Promise<{ results: (Cell & Result)[], chromium: string }>} with the browser's version
 */
export async function playCells(t, cells, { seconds, together, seed = 1, progress = () => {} }) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const results = [];
  for (let at = 0; at < cells.length; at += together) {
    const page = await browser.openPeers(gateway.url('/'));
    const playing = cells.slice(at, at + together).map((cell) => play(t, { gateway, page, cell, seconds, seed: seed + numberOf(cell) }));
    results.push(...await Promise.all(playing));
    await page.close();
    progress(results.slice(at), results.length);
  }
  return { results, chromium: browser.browser.version() };
}

/**
 * Frames shown of those sent; freezes as Chromium counts them, in seconds; p95 of the time a frame waits in the jitter
 * buffer, in milliseconds.
 *
 * @typedef {{ shown: number, freezes: number, frozen: number, longestFreeze: number, jitterBufferMs: number, nacks: number,
 *   keyframeRequests: number }} Result
 */

async function play(t, { gateway, page, cell, seconds, seed }) {
  const network = { both: conditions(cell), seed, name: `netsim-${cellName(cell)}` };
  const { netsim, via } = await Netsim.beforeDemo(t, gateway, network);
  const options = { repair: cell.repair, via, deadlineMs: JOINS_WITHIN * 1000 };
  const joined = await page
    .evaluate(([url, how]) => globalThis.interop.watch(url, how), [gateway.url(`/whep/${TABLE}`), options])
    .catch((error) => ({ error }));
  if (joined.error) {
    await netsim.stop();
    // Where a keyframe is never whole there is never a picture.
    if (!NO_PICTURE.test(joined.error.message)) throw joined.error;
    return { ...cell, ...NOTHING_SHOWN };
  }
  const { peer } = joined;
  const read = () => page.evaluate((number) => globalThis.interop.stats(number), peer);
  await until(`${cellName(cell)} is level with the table`, JOINS_WITHIN, isLevel(read, FPS), { everyMs: 250 });
  const samples = [await read()];
  const lasted = () => (samples.at(-1).at - samples[0].at) / 1000;
  // Not to the middle of a freeze, whose frames are still to come.
  while (lasted() < seconds || !isMoving(samples) && lasted() < seconds + LONGER_AT_MOST) {
    await measureFor(SAMPLE_SECONDS);
    samples.push(await read());
  }
  await page.evaluate((number) => globalThis.interop.leave(number, 'delete'), peer);
  await netsim.stop();
  return { ...cell, ...outcome(samples) };
}

function isMoving(samples) {
  const { frames, seconds } = between(samples.at(-2), samples.at(-1));
  return frames >= 0.9 * FPS * seconds;
}

/**
 * Frames shown of those sent. The publisher's clock is this machine's: what it sends in some time is known. How far a player is behind it
 * is what it has not shown and what it holds back just then, waiting for a repair: so the readings compared are those of the first and
 * of the last seconds at which it was least behind, without what its jitter buffer has grown by.
 */
function shown(samples) {
  const behind = ({ at, video }) => (FPS * (at - samples[0].at)) / 1000 - kept(video);
  const wait = (n) => {
    const [before, after] = [samples[Math.max(0, n - 1)].video, samples[Math.max(1, n)].video];
    const frames = after.jitterBufferEmittedCount - before.jitterBufferEmittedCount;
    return frames > 0 ? (after.jitterBufferDelay - before.jitterBufferDelay) / frames : 0;
  };
  const numbers = samples.map((_, n) => n);
  // Of several the outermost.
  const least = (some) => some.reduce((best, n) => (behind(samples[n]) < behind(samples[best]) ? n : best));
  const [first, last] = [least(numbers.slice(0, LEVEL_WITHIN)), least(numbers.slice(-LEVEL_WITHIN).reverse())];
  const sent = (FPS * (samples[last].at - samples[first].at)) / 1000;
  const heldBack = FPS * Math.max(0, wait(last) - wait(first));
  const missing = behind(samples[last]) - behind(samples[first]) - heldBack;
  return Math.min(1, Math.max(0, 1 - missing / sent));
}

/**
 * Frames decoded and not dropped. `framesDropped` counts those "dropped prior to decode or dropped because the frame missed its
 * display deadline" (W3C webrtc-stats): the first are none of those decoded, and must not be taken off them. Chromium drops what a
 * keyframe has overtaken.
 */
function kept({ framesReceived, framesDecoded, framesDropped = 0 }) {
  return Math.min(framesDecoded, framesReceived - framesDropped);
}

/** What a series of readings comes to. @returns {Result} */
export function outcome(samples) {
  const [first, last] = [samples[0], samples.at(-1)];
  const played = between(first, last);
  const grown = (key) => (last.video[key] ?? 0) - (first.video[key] ?? 0);
  const pairs = samples.slice(1).map((sample, n) => [samples[n].video, sample.video]);
  const rate = (sum, count) => ([before, after]) => (after[sum] - before[sum]) / (after[count] - before[count]);
  const waits = pairs.map(rate('jitterBufferDelay', 'jitterBufferEmittedCount')).filter(Number.isFinite);
  const freezes = pairs.map(rate('totalFreezesDuration', 'freezeCount')).filter(Number.isFinite);
  return {
    shown: shown(samples),
    freezes: played.freezes,
    frozen: grown('totalFreezesDuration'),
    longestFreeze: Math.max(0, ...freezes),
    jitterBufferMs: waits.length > 0 ? 1000 * percentile(waits, 95) : Infinity,
    nacks: grown('nackCount'),
    keyframeRequests: played.keyframeRequests,
  };
}
