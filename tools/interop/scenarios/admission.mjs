import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { freePorts } from '../lib/gateway.mjs';
import { AUTH, Issuer } from '../lib/issuer.mjs';
import { Child } from '../lib/process.mjs';
import { LOAD } from '../lib/tools.mjs';
import { until } from '../lib/until.mjs';

export const about = 'a crowd comes to a shard that may use 20 % of its core: the node refuses those it has no room for, and nobody who watches loses a packet';

const WATCHING = 50;
/** So many that the cheapest of players would use more than the limit. */
const CROWD = 450;

export async function run(t) {
  const [http, admin, udp] = await freePorts(3);
  const file = join(t.folder, 'gateway.toml');
  const issuer = new Issuer(t);
  writeFileSync(file, [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nlisten = "127.0.0.1"\nannounce = ["127.0.0.1"]\nfirst_port = ${udp}\nshards = 1`,
    '[sessions]\nmax_shard_utilisation_percent = 20',
    '[tables.load]',
    AUTH,
  ].join('\n\n'));
  const gateway = await t.configured(file, { http, admin });

  const child = new Child(LOAD, [
    ...['--whip', gateway.url('/whip/{table}'), '--whep', gateway.url('/whep/{table}'), '--publish-token', issuer.publisher(), '--token', issuer.player()],
    ...['--players', WATCHING, '--burst', CROWD, '--burst-rate', 100, '--seconds', 12, '--json', '-'],
  ].map(String), join(t.folder, 'load.log'));
  t.defer(async () => {
    if (!child.ended) await child.end('SIGKILL', 5);
  });
  const { value: refused } = await until('all have been answered', 60, async () => {
    const metrics = await gateway.metrics();
    const count = metrics.sum('tableside_offers_refused_total', { reason: 'shard_utilisation' });
    const admitted = metrics.sum('tableside_sessions_created_total', { role: 'player' });
    return admitted + count === WATCHING + CROWD && count;
  });
  t.measure('shard, of its core', (await gateway.metrics()).sum('tableside_shard_utilisation_ratio'));
  await until('the generator is done', 60, () => child.ended);

  const [watching, joining] = JSON.parse(child.output().slice(0, child.output().lastIndexOf('}') + 1)).players;
  t.measure('admitted of the crowd, refused', `${joining.connected}, ${refused}`);
  assert.deepEqual(watching.failures, {});
  assert.equal(watching.without_loss, WATCHING);
  const [reason, ...others] = Object.entries(joining.failures);
  assert.deepEqual(others, []);
  assert.match(reason[0], /503/);
  assert.equal(reason[1], refused, 'whoever is refused is counted');
  assert.equal(joining.connected, CROWD - refused);
  assert(joining.connected > 0, 'there was room for some');
  assert.equal(joining.without_loss, joining.connected);
}
