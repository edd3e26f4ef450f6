import assert from 'node:assert/strict';

import { load } from '../lib/load.mjs';
import { until } from '../lib/until.mjs';

export const about = '300 generated players bet 1,500 times a second while they watch: each signal has one outcome, and nobody loses a packet';

const PLAYERS = 300;
const BETS_PER_SECOND = 5;
const SECONDS = 15;

export async function run(t) {
  const gateway = await t.demo();
  const result = await load(t, 'bets', [
    ...['--whip', gateway.url('/whip/{table}'), '--whep', gateway.url('/whep/{table}?player=load-{player}')],
    ...['--players', PLAYERS, '--bets', BETS_PER_SECOND, '--seconds', SECONDS, '--bitrate', '500k', '--no-loss'],
  ]);
  const [{ bets, connected, without_loss: whole }] = result.players;
  assert.deepEqual([connected, whole], [PLAYERS, PLAYERS]);
  const { sent, without_outcome: without, outcomes, edge_ms: edge, round_trip_ms: total } = bets;
  t.measure('signals', sent);
  t.measure('outcomes', JSON.stringify(outcomes));
  t.measure('on the edge, p50 and p99', `${edge.p50} and ${edge.p99} ms`);
  t.measure('bet to outcome, p50 and p99', `${total.p50} and ${total.p99} ms`);
  assert(sent > 0.9 * PLAYERS * BETS_PER_SECOND * SECONDS, `${sent} signals`);
  assert.equal(without, 0, 'signals without outcome');
  assert.equal(Object.values(outcomes).reduce((sum, count) => sum + count, 0), sent, 'one outcome for each signal');
  // Rounds open and close meanwhile; what the edge itself refuses would be its own limits or its queues.
  assert(Object.keys(outcomes).every((outcome) => /^(accepted|rejected)/.test(outcome)), Object.keys(outcomes).join('; '));
  const counted = async () => (await gateway.metrics()).sum('tableside_bet_signals_total');
  await until('the gateway has counted as many', 5, async () => (await counted()) === sent);
}
