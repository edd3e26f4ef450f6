import assert from 'node:assert/strict';
import { join as path } from 'node:path';
import { performance } from 'node:perf_hooks';

import { LIGHT } from '../lib/ffmpeg.mjs';
import { Child } from '../lib/process.mjs';
import { randomFrom } from '../lib/statistics.mjs';
import { CROWD } from '../lib/tools.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = '20 Chromium players and 100 in-process ones join and leave for a minute: memory and gauges return';
export const timeLimitSeconds = 400;

const PAGES = 4;
const PLAYERS_PER_PAGE = 5;
const CROWD_SIZE = 100;
const SECONDS = 60;
const TABLE = 'churn';
/** Players whose page is gone say no goodbye: consent has to expire (30 s), and the report comes twice a second. */
const EXPIRED_WITHIN = 45;
/** Twice what the players together hold would be a leak by any reading; an allocator keeps some of what was freed. */
const MOST_GROWTH_BYTES = 6 * 1024 * 1024;

export async function run(t) {
  const gateway = await t.demo();
  t.ffmpeg(gateway.url(`/whip/${TABLE}`), { name: 'light', picture: LIGHT });
  await until('the table is live', 10, async () => (await gateway.metrics()).sum('tableside_table_live', { table: TABLE }) === 1);
  const browser = await t.chromium();
  const pages = await Promise.all(Array.from({ length: PAGES }, () => browser.openPeers(gateway.url('/'))));
  const seats = pages.flatMap((page) => Array.from({ length: PLAYERS_PER_PAGE }, () => ({ page, peer: undefined })));
  const endpoint = gateway.url(`/whep/${TABLE}`);

  // All of them at once, then none: what the node has allocated for as many players it may keep. The gauge says how many.
  const everybody = crowd(t, endpoint, 'everybody', { shortest: 25_000, longest: 25_000, seconds: 30 });
  await Promise.all(seats.map((seat) => join(seat, endpoint)));
  const full = await gateway.sessionsAre({ players: seats.length + CROWD_SIZE, publishers: 1 }, 30);
  t.measure(`until ${seats.length + CROWD_SIZE} players were counted`, full.seconds, 's');
  await Promise.all(seats.map((seat) => leave(seat, 'delete')));
  const first = await everybody.outcome(60);
  await gateway.sessionsAre({ players: 0, publishers: 1 }, EXPIRED_WITHIN);
  const before = gateway.residentBytes();

  const others = crowd(t, endpoint, 'others', { shortest: 2_000, longest: 20_000, seconds: SECONDS });
  const random = randomFrom(7);
  let joins = 0;
  let peak = 0;
  const end = performance.now() + SECONDS * 1000;
  while (performance.now() < end) {
    const seat = seats[Math.floor(random() * seats.length)];
    if (seat.peer === undefined) {
      await join(seat, endpoint);
      joins += 1;
    } else {
      await leave(seat, random() < 0.5 ? 'delete' : 'close');
    }
    peak = Math.max(peak, gateway.residentBytes());
    await measureFor(random() * 0.3);
  }

  const watching = seats.filter((seat) => seat.peer !== undefined);
  const stats = await Promise.all(watching.map(({ page, peer }) => page.evaluate((n) => globalThis.interop.stats(n), peer)));
  assert(stats.every(({ state }) => state === 'connected'), `not all are connected: ${stats.map(({ state }) => state)}`);
  await pages[0].context().close();
  const left = watching.filter((seat) => seat.page !== pages[0]);
  await Promise.all(left.map((seat, i) => leave(seat, i % 2 === 0 ? 'delete' : 'close')));
  const second = await others.outcome(60);
  const { seconds } = await gateway.sessionsAre({ players: 0, publishers: 1 }, EXPIRED_WITHIN);
  const after = gateway.residentBytes();

  t.measure('joins by Chromium, and in process', `${joins} and ${second.joins}`);
  t.measure('packets to players in process', first.packets + second.packets);
  t.measure('until all sessions were gone', seconds, 's');
  t.measure('resident after the first round, at most, after the second', [before, peak, after].map(mebibytes).join(', '), 'MiB');
  assert(joins > SECONDS / 3, `${joins} joins only: the machine cannot keep up, this run says nothing`);
  assert(after - before <= MOST_GROWTH_BYTES, `memory grew by ${mebibytes(after - before)} MiB`);

  const metrics = await gateway.metrics();
  const created = metrics.sum('tableside_sessions_created_total', { role: 'player' });
  const ended = metrics.sum('tableside_sessions_ended_total', { role: 'player' });
  assert.equal(created, seats.length + joins + first.joins + second.joins, 'sessions created');
  assert.equal(ended, created, 'every session that was created ended with a cause');
}

/** Players of the `webrtc` crate, all in one process (tests/peers/crowd.rs). */
function crowd(t, url, name, { shortest, longest, seconds }) {
  const stay = ['--shortest', shortest, '--longest', longest, '--seconds', seconds];
  const child = new Child(CROWD, ['--url', url, '--players', CROWD_SIZE, ...stay].map(String), path(t.folder, `${name}.log`));
  t.defer(async () => {
    if (!child.ended) await child.end('SIGKILL', 5);
  });
  return {
    async outcome(withinSeconds) {
      await until(`the crowd (${name}) has gone home`, withinSeconds, () => child.ended);
      const outcome = JSON.parse(child.output().trim().split('\n').at(-1));
      assert.equal(outcome.failures, 0, `players failed: ${outcome.examples?.join('; ')}`);
      return outcome;
    },
  };
}

async function join(seat, endpoint) {
  const { peer } = await seat.page.evaluate((url) => globalThis.interop.watch(url), endpoint);
  seat.peer = peer;
}

async function leave(seat, how) {
  const { peer } = seat;
  seat.peer = undefined;
  await seat.page.evaluate(([number, way]) => globalThis.interop.leave(number, way), [peer, how]);
}

function mebibytes(bytes) {
  return (bytes / 1024 / 1024).toFixed(1);
}
