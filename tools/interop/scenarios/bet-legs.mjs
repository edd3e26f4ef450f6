import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { performance } from 'node:perf_hooks';

import { percentile } from '../lib/statistics.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { until } from '../lib/until.mjs';

export const about = 'what is added to one leg of a bet is seen on that leg and on the whole, and on no other: 0, 50 and 200 ms on the last mile and at the service';
export const timeLimitSeconds = 240;

const PLAYERS = 5;
const BETS = 40;
/** Slower than the edge takes from one player for good. */
const PAUSE_MS = 120;
/** Added to a leg, in milliseconds. The first time is for whatever has to warm up. */
const ADDED = [
  { lastMile: 0, upstream: 0 },
  { lastMile: 0, upstream: 0 },
  { lastMile: 0, upstream: 50 },
  { lastMile: 0, upstream: 200 },
  { lastMile: 50, upstream: 0 },
  { lastMile: 200, upstream: 0 },
];

export async function run(t) {
  const service = await startService(t);
  const sections = [`[bet_service]\nkind = "http"\nhttp.url = "http://127.0.0.1:${service.port}/bets"`];
  const { gateway, netsim } = await studioBehindNetsim(t, { sections });
  const browser = await t.chromium();
  let before;
  for (const [turn, added] of ADDED.entries()) {
    service.delayMs = added.upstream;
    service.took = [];
    await netsim.command(`both delay=${added.lastMile / 2}ms`);
    const page = await browser.openPeers(gateway.url('/'));
    const tokens = Array.from({ length: PLAYERS }, (_, n) => gateway.issuer.player(`player-${n}`));
    const acks = await page.evaluate(bet, { tokens, bets: BETS, pauseMs: PAUSE_MS });
    await browser.shut(page);
    assert.equal(acks.length, PLAYERS * BETS);
    assert.deepEqual([...new Set(acks.map(({ status }) => status))], ['accepted']);

    const median = (values) => percentile(values, 50);
    const of = (leg) => median(acks.map(leg));
    const legs = {
      lastMile: of(({ timing }) => timing.lastMileMs),
      edge: of(({ timing }) => timing.edgeMs),
      upstream: of(({ timing }) => timing.upstreamMs),
      total: of(({ totalMs }) => totalMs),
    };
    const values = Object.values(legs).map((value) => value.toFixed(1)).join(', ');
    t.measure(`${added.lastMile} ms on the last mile, ${added.upstream} at the service: last mile, edge, upstream, total`, values, 'ms');
    // By its own clock: a timer of its runtime may be late.
    const took = median(service.took);
    if (turn <= 1) before = { ...legs, took };
    const injected = { lastMile: added.lastMile, edge: 0, upstream: took - before.took };
    injected.total = injected.lastMile + injected.upstream;
    for (const [leg, wanted] of Object.entries(injected)) {
      const moved = legs[leg] - before[leg];
      assert(Math.abs(moved - wanted) <= Math.max(2, 0.02 * wanted), `${leg} moved by ${moved} ms, not by ${wanted}`);
    }
  }
  const counted = async (leg) => (await gateway.metrics()).sum('tableside_bet_signal_rtt_seconds_count', { leg });
  const all = ADDED.length * PLAYERS * BETS;
  for (const leg of ['last_mile', 'edge', 'upstream']) {
    await until(`the histogram of ${leg} has all`, 10, async () => (await counted(leg)) === all);
  }
  // Players tell it once, and not again if that is lost; who leaves may not have told the last.
  assert(await counted('total') >= 0.95 * all, `${await counted('total')} of ${all} in the histogram of total`);
}

/** A bet service that takes its time and every bet. `took` are the milliseconds from each request to its answer. */
async function startService(t) {
  const service = { port: 0, delayMs: 0, took: [] };
  const server = createServer((request, response) => {
    const came = performance.now();
    request.resume().on('end', () => {
      setTimeout(() => {
        service.took.push(performance.now() - came);
        response.writeHead(200, { 'Content-Type': 'application/json' }).end('{"status":"accepted"}');
      }, service.delayMs);
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  service.port = server.address().port;
  t.defer(() => {
    server.closeAllConnections();
    server.close();
  });
  return service;
}

/** In the page: players of the SDK that bet, once the round trip to each has been measured. @returns what became of each bet */
async function bet({ tokens, bets, pauseMs }) {
  const { TablesidePlayer } = await import('/sdk/player.js');
  const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const players = await Promise.all(tokens.map(async (token) => {
    const video = document.createElement('video');
    video.muted = true;
    const player = new TablesidePlayer({ url: '/whep/one', video, token });
    const measured = new Promise((resolve) => player.addEventListener('latency', resolve, { once: true }));
    const live = new Promise((resolve) => player.addEventListener('live', resolve, { once: true }));
    player.start();
    await live;
    await measured;
    return player;
  }));
  const placed = players.map(async (player) => {
    const outcomes = [];
    for (let n = 0; n < bets; n += 1) {
      outcomes.push(player.bet({ roundId: 'a-round', payload: n }));
      await later(pauseMs);
    }
    return Promise.all(outcomes);
  });
  const outcomes = (await Promise.all(placed)).flat();
  await Promise.all(players.map((player) => player.stop()));
  return outcomes;
}
