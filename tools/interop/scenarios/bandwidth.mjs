import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { SHOWN } from '../lib/chromium.mjs';
import { startLoad } from '../lib/load.mjs';
import { between } from '../lib/playback.mjs';
import { firstAfter, longestGap, now, shownBetween, stretches } from '../lib/shown.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'one of ten players of a simulcast goes from 3 Mbit/s to 600 kbit/s and back: down within 1 s, never a second of freeze, up within 15 s, steady for 60 s; nine notice nothing';
/** Anything else that runs beside it changes what it measures. */
export const byNameOnly = 'three layers are encoded and three pictures decoded on time';
export const timeLimitSeconds = 300;

const WHEEL = readFileSync(new URL('../page/wheel.js', import.meta.url), 'utf8');
const SIMULCAST = readFileSync(new URL('../page/simulcast.js', import.meta.url), 'utf8');
/** Large enough for three layers of Chromium, small enough for two cores that encode it and decode it three times. */
const SIZE = { width: 960, height: 540, frameRate: 20 };
const RATES = { q: 150_000, h: 400_000, f: 2_000_000 };
/** Beside the one: in Chromium, which decodes, and of the generator, of which the relay counts what they get. */
const [BROWSERS, GENERATED] = [2, 7];
/** A second of the top layer has more bits than this, whatever else has fewer. */
const LEAST_OF_TOP = 900_000;
/** Queues of a quarter of a second. */
const WIDE = 'rate=3mbit/94kB';
const NARROW = 'rate=600kbit/19kB';
/** Each way. */
const DELAY = 'delay=20ms';

const STEADY_SECONDS = 5;
const NARROW_SECONDS = 20;
/** Down within … */
const DOWN_SECONDS = 1;
const LONGEST_GAP_SECONDS = 1;
/** … up within … */
const UP_SECONDS = 15;
/** … and then no change for so long. */
const QUIET_SECONDS = 60;

export async function run(t) {
  const { gateway, netsim } = await studioBehindNetsim(t, { codec: 'none' });
  const sent = await published(t, gateway);
  /** Lets a player join. @returns what that gives, and the relay's numbers of those who came with it, on wide links now */
  const joins = async (join) => {
    const before = (await netsim.clients()).length;
    const joined = await join();
    const links = (await netsim.clients()).slice(before).map(({ client }) => client);
    for (const link of links) {
      await netsim.command(`client ${link} both ${DELAY}`);
      await netsim.command(`client ${link} down ${WIDE}`);
    }
    return { joined, links };
  };
  const watch = await watching(gateway, await t.chromium());
  const { joined: cut, links: own } = await joins(watch);
  const { joined: others } = await joins(async () => {
    const players = [];
    for (let n = 0; n < BROWSERS; n += 1) players.push(await watch());
    return players;
  });
  const { links: generated } = await joins(async () => {
    startLoad(t, 'others', ['--whep', gateway.url('/whep/one'), '--token', gateway.playerToken, '--players', GENERATED, '--verify', 0, '--seconds', timeLimitSeconds]);
    await gateway.sessionsAre({ players: 1 + BROWSERS + GENERATED, publishers: 1 }, 10);
  });
  assert.equal(generated.length, GENERATED, 'links of generated players');
  const all = [cut, ...others];
  await until('all in browsers show the top layer', 30, async () => {
    const heights = (await readAll(all)).map(({ video }) => video?.frameHeight);
    if (heights.some((height) => height !== SIZE.height)) throw new Error(heights.join(' '));
    return true;
  });

  /** What the generated players have got, in bytes, second by second. */
  const got = [];
  const pass = async (seconds) => {
    for (const end = now() + 1000 * seconds; now() < end; ) {
      await measureFor(Math.min(1, (end - now()) / 1000));
      const clients = await netsim.clients();
      got.push({ at: now(), bytes: generated.map((link) => clients[link].down.bytes_delivered) });
    }
  };
  const set = async (settings) => {
    for (const link of own) await netsim.command(`client ${link} down ${settings}`);
    return now();
  };
  await pass(STEADY_SECONDS);
  const begun = now();
  await pass(STEADY_SECONDS);
  const [beforeLinks, sentBefore, before] = [await netsim.clients(), await sent(), await readAll(all)];
  const cutAt = await set(NARROW);
  await pass(NARROW_SECONDS);
  const [duringLinks, during] = [await netsim.clients(), await readAll(all)];
  const restoredAt = await set(WIDE);
  const isTop = (height) => height === SIZE.height;
  const wayUp = async () => firstAfter(await cut.frames(), restoredAt, isTop);
  // Whoever comes too late, or not at all, is told so below, with all else that was seen.
  const { value: up } = await until('the top layer is back', UP_SECONDS + 5, wayUp).catch(() => ({ value: undefined }));
  const upAt = restoredAt + 1000 * (up ?? UP_SECONDS);
  await pass((upAt - now()) / 1000 + QUIET_SECONDS);
  const end = now();
  const [sentAfter, after] = [await sent(), await readAll(all)];
  const afterLinks = await netsim.clients();

  const wrong = [];
  const expect = (holds, what) => holds || wrong.push(what);
  for (const [rid, layer] of Object.entries(sentAfter)) {
    const seconds = (end - cutAt) / 1000;
    const grown = (key) => layer[key] - sentBefore[rid][key];
    const [fps, rate] = [grown('framesSent') / seconds, Math.round((8 * grown('bytesSent')) / seconds)];
    const more = `${grown('keyFramesEncoded')} keyframes, ${grown('pliCount')} asked for`;
    t.measure(`sent, ${layer.frameHeight} rows`, `${fps.toFixed(1)} frames and ${Math.round(rate / 1000)} kbit a second, ${more}`);
    expect(fps > 0.75 * SIZE.frameRate, `${rid}: ${fps.toFixed(1)} frames a second sent, not about ${SIZE.frameRate}`);
    expect(rate > 0.6 * RATES[rid], `${rid}: ${rate} bits a second sent, not about ${RATES[rid]}`);
  }

  const frames = await cut.frames();
  const down = firstAfter(frames, cutAt, (height) => height < SIZE.height);
  const narrow = shownBetween(frames, cutAt, restoredAt);
  const gaps = [longestGap(frames, cutAt, restoredAt), longestGap(frames, restoredAt, end)];
  const isDown = down !== undefined && 1000 * down < restoredAt - cutAt;
  const relapsed = isDown && narrow.some(([at, height]) => isTop(height) && at > cutAt + 1000 * down);
  const changes = Math.max(0, stretches(shownBetween(frames, upAt, upAt + 1000 * QUIET_SECONDS)).length - 1);
  t.measure('the one, what it shows, from the cut on', told(stretches(shownBetween(frames, begun, end)), cutAt));
  t.measure('the link is restored at', (restoredAt - cutAt) / 1000, 's');
  t.measure('the one, down from the top layer after', isDown ? down : 'never', 's');
  t.measure('the one, top layer again after', up ?? 'never', 's');
  t.measure('the one, longest gap while it is cut, and then', gaps.map((gap) => gap.toFixed(2)).join(' and '), 's');
  const packets = (from, to, seconds) => {
    const [taken, full] = ['taken', 'queue_full'].map((key) => own.reduce((sum, link) => sum + to[link].down[key] - from[link].down[key], 0));
    return `${Math.round(taken / seconds)}, ${Math.round(full / seconds)}`;
  };
  const [cutSeconds, thenSeconds] = [(restoredAt - cutAt) / 1000, (end - restoredAt) / 1000];
  t.measure('the one, packets a second to its link, dropped there, while it is cut', packets(beforeLinks, duringLinks, cutSeconds));
  t.measure('the one, packets a second to its link, dropped there, then', packets(duringLinks, afterLinks, thenSeconds));
  const reported = own.reduce((sum, link) => sum + afterLinks[link].up.taken - duringLinks[link].up.taken, 0);
  t.measure('the one, datagrams a second from it, then', (reported / thenSeconds).toFixed(1));
  t.measure('the one, frames decoded while it is cut, and then', [between(before[0], during[0]), between(during[0], after[0])].map(({ frames: count }) => count).join(' and '));
  t.measure('the one, frozen while it is cut, and then', `${frozen(before[0], during[0])} and ${frozen(during[0], after[0])}`);
  t.measure(`the one, changes in the ${QUIET_SECONDS} s after`, changes);
  expect(isDown && down <= DOWN_SECONDS, `down from the top layer after ${isDown ? `${down} s` : 'no time at all'}, not within ${DOWN_SECONDS} s`);
  expect(!relapsed, 'the top layer came again while the link was narrow');
  expect(Math.max(...gaps) <= LONGEST_GAP_SECONDS, `${Math.max(...gaps).toFixed(2)} s without a new frame, not at most ${LONGEST_GAP_SECONDS} s`);
  expect(up !== undefined && up <= UP_SECONDS, `top layer again after ${up === undefined ? 'no time at all' : `${up} s`}, not within ${UP_SECONDS} s`);
  expect(changes === 0, `${changes} changes of the layer in the ${QUIET_SECONDS} s after, not none`);

  for (const [n, other] of others.entries()) {
    const seen = await other.frames();
    const shown = shownBetween(seen, cutAt, end);
    const fps = (1000 * shown.length) / (end - cutAt);
    const heights = [...new Set(shown.map(([, height]) => height))];
    const [gap, freezes] = [longestGap(seen, cutAt, restoredAt), between(before[n + 1], during[n + 1]).freezes];
    const then = `then ${longestGap(seen, restoredAt, end).toFixed(2)} s, ${frozen(during[n + 1], after[n + 1])}`;
    t.measure(`other ${n + 1}`, `${heights.join(', ')} rows, ${fps.toFixed(1)} frames a second, longest gap ${gap.toFixed(2)} s, ${freezes} freezes, ${then}`);
    const video = after[n + 1].video;
    t.measure(`other ${n + 1}, in all`, ['packetsLost', 'nackCount', 'pliCount', 'framesReceived', 'framesDecoded', 'framesDropped', 'keyFramesDecoded', 'retransmittedPacketsReceived'].map((key) => `${key} ${video[key]}`).join(', '));
    expect(heights.length === 1 && isTop(heights[0]), `other ${n + 1} shows ${heights.join(', ')} rows, not ${SIZE.height} alone`);
    expect(freezes === 0, `other ${n + 1}: ${freezes} freezes while the first is cut, not none`);
  }
  for (const [n, link] of generated.entries()) {
    const seconds = got.slice(1).map(({ at, bytes }, before) => ({ seconds: (at - got[before].at) / 1000, bits: 8 * (bytes[n] - got[before].bytes[n]) }));
    // The rest of a second says nothing.
    const rates = seconds.filter((one) => one.seconds > 0.9).map((one) => one.bits / one.seconds);
    const least = Math.min(...rates);
    const { queue_full: full } = afterLinks[link].down;
    t.measure(`generated ${n + 1}`, `${full} packets found the queue full, ${Math.round(least / 1000)} to ${Math.round(Math.max(...rates) / 1000)} kbit in each second`);
    expect(least > LEAST_OF_TOP, `generated ${n + 1} gets ${Math.round(least)} bits in a second, not more than ${LEAST_OF_TOP}: that is not the top layer`);
  }
  assert(wrong.length === 0, wrong.join('; '));
}

/** Publishes three layers and waits until the top one has its bits. @returns what reads the layers' statistics */
async function published(t, gateway) {
  const studio = await t.chromium({ camera: true });
  const page = await studio.open(gateway.url('/'));
  await page.evaluate(WHEEL);
  await page.evaluate(SIMULCAST);
  await page.evaluate(([endpoint, options]) => globalThis.interopSimulcast.publish(endpoint, options), [
    gateway.url('/whip/one'),
    { mimeType: 'video/VP8', ...SIZE, rates: RATES, token: gateway.publisherToken, wheel: true },
  ]);
  const sent = () => page.evaluate(() => globalThis.interopSimulcast.layers());
  const { seconds } = await until('the top layer has its bits', 60, async () => {
    const layers = await sent();
    if (!(layers.f.targetBitrate >= 0.9 * RATES.f)) throw new Error(JSON.stringify(layers));
    return true;
  });
  t.measure('until the top layer has its bits', seconds, 's');
  return sent;
}

/** @returns what lets one more player of a page join */
async function watching(gateway, browser) {
  const page = await browser.openPeers(gateway.url('/'));
  await page.evaluate(SHOWN);
  return async () => {
    const { peer } = await page.evaluate(async (url) => {
      const joined = await globalThis.interop.watch(url);
      globalThis.interopShown.keep(joined.peer);
      return joined;
    }, gateway.whep('one'));
    return {
      frames: () => page.evaluate((number) => globalThis.interopShown.frames(number), peer),
      read: () => page.evaluate((number) => globalThis.interop.stats(number), peer),
    };
  };
}

function readAll(players) {
  return Promise.all(players.map((player) => player.read()));
}

/** Freezes between two readings, as Chromium counts them. */
function frozen(before, after) {
  const seconds = after.video.totalFreezesDuration - before.video.totalFreezesDuration;
  return `${between(before, after).freezes} freezes (${seconds.toFixed(2)} s)`;
}

/** `540 from -5.0 s, 270 from 0.6 s` */
function told(all, since) {
  return all.map(({ height, from }) => `${height} from ${((from - since) / 1000).toFixed(2)} s`).join(', ');
}
