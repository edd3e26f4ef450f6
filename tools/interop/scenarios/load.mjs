import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';

import { load, startLoad } from '../lib/load.mjs';

export const about = '200 players of two generated tables lose nothing while 100 more join at once; a simulcast is forwarded, losses are repaired; Ctrl-C says goodbye';

/** nft is in /usr/sbin, which is not on everybody's path. */
const NFT = { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` } };
const TABLES = 2;
const PLAYERS = 200;
const BURST = 100;
const SECONDS = 15;
const FPS = 30;
/** Of players, with video of more than one packet a frame and 50 packets of sound a second. */
const LEAST_PACKETS_PER_SECOND = FPS + 50;

export async function run(t) {
  const gateway = await t.demo();
  const result = await load(t, 'two-tables', [
    ...endpoints(gateway),
    ...['--tables', TABLES, '--players', PLAYERS, '--burst', BURST, '--seconds', SECONDS, '--fps', FPS, '--no-loss'],
  ]);
  const [watching, joining] = result.players;
  for (const players of [watching, joining]) {
    const { group, delay_ms: delay, first_packet_ms: first } = players;
    t.measure(`${group}: connected, without loss`, `${players.connected}, ${players.without_loss}`);
    t.measure(`${group}: first packet, p50 and p99`, `${first.p50} and ${first.p99} ms`);
    t.measure(`${group}: delay, p50 and p99`, `${delay.p50} and ${delay.p99} ms`);
    assert.deepEqual(players.failures, {});
    assert.equal(players.connected, players.requested);
    assert.equal(players.without_loss, players.requested);
    assert(players.frames > 0 && players.reports > 0, 'some open what they get, and all report');
  }
  assert.deepEqual([watching.requested, joining.requested], [PLAYERS, BURST]);
  const perPlayer = watching.packets / PLAYERS / result.seconds;
  assert(perPlayer > LEAST_PACKETS_PER_SECOND, `${perPlayer} packets a second for each player`);
  assert.equal(result.publishers.late_frames, 0, 'the generator cannot keep up, this run says nothing');

  const metrics = await gateway.metrics();
  assert.equal(metrics.sum('tableside_sessions_created_total', { role: 'player' }), PLAYERS + BURST, 'players, as the gateway counts them');
  await gateway.sessionsAre({ players: 0, publishers: 0 }, 5);

  const layers = await load(t, 'simulcast', [...endpoints(gateway), '--simulcast', 3, '--players', 10, '--seconds', 3, '--verify', 1, '--no-loss']);
  assert.equal(layers.players[0].without_loss, 10);
  await gateway.sessionsAre({ players: 0, publishers: 0 }, 5);

  dropSome(t);
  const repaired = await load(t, 'loss', [...endpoints(gateway), '--players', 20, '--seconds', 5, '--verify', 1]);
  const [{ lost, recovered, nacked, torn_frames: torn }] = repaired.players;
  t.measure('with loss: asked for again, recovered, lost', `${nacked}, ${recovered}, ${lost}`);
  assert(nacked > 0 && recovered > 0, 'what is missing is asked for, and comes');
  // At the end of the measurement some repairs are still under way.
  assert(recovered > 9 * lost, `${lost} packets stay lost where ${recovered} were repaired`);
  assert.equal(torn, 0, 'frames that stay torn');
  await gateway.sessionsAre({ players: 0, publishers: 0 }, 5);

  const stopped = startLoad(t, 'stopped', [...endpoints(gateway), '--players', 10, '--settle', 0, '--seconds', 600]);
  await gateway.sessionsAre({ players: 10, publishers: 1 }, 15);
  const { code } = await stopped.end('SIGINT', 10);
  assert.match(stopped.output(), /interrupted/);
  assert.notEqual(code, 2, stopped.output());
  await gateway.sessionsAre({ players: 0, publishers: 0 }, 5);
}

/** Drops two of a hundred of what the demo's shards send to players, retransmissions too, until the scenario is over. */
function dropSome(t) {
  const table = `inet tableside-load-${process.pid}`;
  const some = 'udp sport 7000-7063 meta length > 300 numgen random mod 100 < 2 drop';
  execFileSync('nft', [`table ${table} { chain out { type filter hook output priority 0; ${some}; }; }`], NFT);
  t.defer(() => execFileSync('nft', ['delete', 'table', ...table.split(' ')], NFT));
}

/** Where the generator publishes and plays. */
function endpoints(gateway) {
  return ['--whip', gateway.url('/whip/{table}'), '--whep', gateway.url('/whep/{table}')];
}
