import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';

import { percentile } from '../lib/statistics.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { SLOW_DISK } from '../lib/tools.mjs';
import { until } from '../lib/until.mjs';

export const about = 'what is added to one leg of a bet is seen on that leg and on the whole, and on no other: 0, 50 and 200 ms on the last mile, on the edge and at the service';
export const timeLimitSeconds = 360;

const PLAYERS = 5;
/** From each player, of each page. */
const BETS = 12;
/** Pages without and with what is added, by turns: what the machine does meanwhile is then in both alike. */
const ROUNDS = 2;
/** From one bet to the next one of another player: slower than the edge takes from one player for good, and none waits for the one before. */
const PAUSE_MS = 24;
const NOTHING = { lastMile: 0, edge: 0, upstream: 0 };
/**
 * Added to a leg, in milliseconds. On the edge an outcome waits for the disk: bets are placed only once the one before has its
 * outcome then, as those that come during a sync wait for the next one.
 */
const ADDED = [
  { ...NOTHING, upstream: 50 },
  { ...NOTHING, upstream: 200 },
  { ...NOTHING, lastMile: 50 },
  { ...NOTHING, lastMile: 200 },
  { ...NOTHING, edge: 50 },
  { ...NOTHING, edge: 200 },
];

export async function run(t) {
  const service = await startService(t);
  const disk = slowDisk(t);
  const sections = [
    `[bet_service]\nkind = "http"\nhttp.url = "http://127.0.0.1:${service.port}/bets"`,
    '[audit]\ndirectory = "trail"\nnode = "edge"\nsigning_key_file = "audit.key"\nfsync = "always"',
  ];
  const { gateway, netsim } = await studioBehindNetsim(t, { sections, env: disk.env });
  const browser = await t.chromium();
  let bets = 0;
  /** What became of each bet of a page's players, and how long the service took by its own clock: a timer of its runtime may be late. */
  const place = async (added, pacing) => {
    service.delayMs = added.upstream;
    service.took = [];
    disk.takes(added.edge);
    await netsim.command(`both delay=${added.lastMile / 2}ms`);
    const page = await browser.openPeers(gateway.url('/'));
    const tokens = Array.from({ length: PLAYERS }, (_, n) => gateway.issuer.player(`player-${n}`));
    const acks = await page.evaluate(bet, { tokens, bets: BETS, ...pacing });
    await browser.shut(page);
    assert.equal(acks.length, PLAYERS * BETS);
    assert.deepEqual([...new Set(acks.map(({ status }) => status))], ['accepted']);
    bets += acks.length;
    return { acks, took: service.took };
  };
  // For whatever has to warm up.
  await place(NOTHING, { pauseMs: PAUSE_MS, inTurn: false });
  for (const added of ADDED) {
    // As far apart without as with it: processes that slept in between are slower by themselves.
    const pacing = { pauseMs: PAUSE_MS + added.edge, inTurn: added.edge > 0 };
    const [without, withIt] = [[], []];
    for (let round = 0; round < ROUNDS; round += 1) {
      without.push(await place(NOTHING, pacing));
      withIt.push(await place(added, pacing));
    }
    const [before, after] = [medians(without), medians(withIt)];
    const values = ({ lastMile, edge, upstream, total }) => [lastMile, edge, upstream, total].map((value) => value.toFixed(1)).join(', ');
    const where = `${added.lastMile} ms on the last mile, ${added.edge} on the edge, ${added.upstream} at the service`;
    t.measure(`${where}: last mile, edge, upstream, total`, `${values(before)} without, ${values(after)} with it`, 'ms');
    const injected = { lastMile: added.lastMile, edge: added.edge, upstream: after.took - before.took };
    injected.total = injected.lastMile + injected.edge + injected.upstream;
    for (const [leg, wanted] of Object.entries(injected)) {
      const moved = after[leg] - before[leg];
      assert(Math.abs(moved - wanted) <= Math.max(2, 0.02 * wanted), `${leg} moved by ${moved} ms, not by ${wanted}`);
    }
  }
  const counted = async (leg) => (await gateway.metrics()).sum('tableside_bet_signal_rtt_seconds_count', { leg });
  for (const leg of ['last_mile', 'edge', 'upstream']) {
    await until(`the histogram of ${leg} has all`, 10, async () => (await counted(leg)) === bets);
  }
  // Players tell it once, and not again if that is lost; who leaves may not have told the last.
  assert(await counted('total') >= 0.95 * bets, `${await counted('total')} of ${bets} in the histogram of total`);
}

/** Of the bets of some pages, each leg's median, and the service's own. */
function medians(pages) {
  const acks = pages.flatMap((page) => page.acks);
  const median = (values) => percentile(values, 50);
  const of = (leg) => median(acks.map(leg));
  return {
    lastMile: of(({ timing }) => timing.lastMileMs),
    edge: of(({ timing }) => timing.edgeMs),
    upstream: of(({ timing }) => timing.upstreamMs),
    total: of(({ totalMs }) => totalMs),
    took: median(pages.flatMap(({ took }) => took)),
  };
}

/** A disk that takes the gateway as long to write to as is said, and the key of an audit trail on it. */
function slowDisk(t) {
  const [file, key] = ['disk-ms', 'audit.key'].map((name) => join(t.folder, name));
  const takes = (ms) => writeFileSync(file, String(ms));
  mkdirSync(t.folder, { recursive: true });
  // Of an earlier run.
  for (const left of ['trail', 'audit.key', 'audit.key.pub']) rmSync(join(t.folder, left), { recursive: true, force: true });
  execFileSync(t.binary, ['audit', 'keygen', key], { stdio: 'ignore' });
  takes(0);
  return { env: { LD_PRELOAD: SLOW_DISK, SLOW_DISK_MS: file }, takes };
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

/**
 * In the page: players of the SDK that bet by turns, once the round trip to each has been measured: after a pause each, and, in
 * turn, not before the outcome of the one before.
 *
 * @returns what became of each bet
 */
async function bet({ tokens, bets, pauseMs, inTurn }) {
  const { TablesidePlayer } = await import('/sdk/player.js');
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
  const outcomes = [];
  for (let n = 0; n < bets; n += 1) {
    for (const player of players) {
      const pause = new Promise((resolve) => setTimeout(resolve, pauseMs));
      const outcome = player.bet({ roundId: 'a-round', payload: n });
      outcomes.push(outcome);
      await Promise.all(inTurn ? [pause, outcome] : [pause]);
    }
  }
  const settled = await Promise.all(outcomes);
  await Promise.all(players.map((player) => player.stop()));
  return settled;
}
