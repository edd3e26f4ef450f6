import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';

import { randomFrom } from '../lib/statistics.mjs';
import { measureFor } from '../lib/until.mjs';

export const about = '20 players in 4 pages join and leave at random for a minute: memory and session gauges return';
export const timeLimitSeconds = 300;

const PAGES = 4;
const PLAYERS_PER_PAGE = 5;
const SECONDS = 60;
/** Players whose page is gone say no goodbye: consent has to expire (30 s), and the report comes once a second. */
const EXPIRED_WITHIN = 45;
const MOST_GROWTH_BYTES = 8 * 1024 * 1024;

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const pages = await Promise.all(Array.from({ length: PAGES }, () => browser.openPeers(gateway.url('/'))));
  const seats = pages.flatMap((page) => Array.from({ length: PLAYERS_PER_PAGE }, () => ({ page, peer: undefined })));
  const endpoint = gateway.url('/whep/demo');

  // All of them at once, then none: what the node has allocated for twenty players it may keep.
  await Promise.all(seats.map((seat) => join(seat, endpoint)));
  await gateway.sessionsAre({ players: seats.length }, 5);
  await Promise.all(seats.map((seat) => leave(seat, 'delete')));
  await gateway.sessionsAre({ players: 0 }, EXPIRED_WITHIN);
  const before = gateway.residentBytes();

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
  const { seconds } = await gateway.sessionsAre({ players: 0 }, EXPIRED_WITHIN);
  const after = gateway.residentBytes();

  t.measure('joins', joins);
  t.measure('watching at the end', watching.length);
  t.measure('until all sessions were gone', seconds, 's');
  t.measure('resident before, at most, after', [before, peak, after].map(mebibytes).join(', '), 'MiB');
  assert(joins > SECONDS / 3, `${joins} joins only: the machine cannot keep up, this run says nothing`);
  assert(after - before <= MOST_GROWTH_BYTES, `memory grew by ${mebibytes(after - before)} MiB`);

  const metrics = await gateway.metrics();
  const created = metrics.sum('tableside_sessions_created_total', { role: 'player' });
  const ended = metrics.sum('tableside_sessions_ended_total', { role: 'player' });
  assert.equal(created, seats.length + joins, 'sessions created');
  assert.equal(ended, created, 'every session that was created ended with a cause');
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
