import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { freePorts } from '../lib/gateway.mjs';
import { AUTH, Issuer } from '../lib/issuer.mjs';
import { offer } from '../lib/offers.mjs';
import { between, isLevel } from '../lib/playback.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'a second FFmpeg of the same subject takes over a live table; the player sees its keyframe next, nothing else';

const FPS = 30;
/** FFmpeg needs this long for its first frame once it is connected. A group of pictures has 2 s. */
const LONGEST_FREEZE = 1;

export async function run(t) {
  const issuer = new Issuer(t);
  const gateway = await start(t);
  gateway.tokensFrom(issuer);
  // Two tokens of one studio, as it renews them, and one of another studio that may publish the table too.
  const [token, renewed] = ['1h', '2h'].map((time) => issuer.token({ sub: 'studio-1', role: 'publisher', tables: ['one'], more: ['--for', time] }));
  assert.notEqual(token, renewed);
  const other = issuer.publisher('studio-2');
  const endpoint = gateway.url('/whip/one');
  const first = t.ffmpeg(endpoint, { name: 'first', token });
  await until('the first publishes', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 1);
  const browser = await t.chromium();
  const player = new PlayerPage(await browser.open(gateway.page('one')));
  await until('the player plays', 15, async () => (await player.state()) === 'live');
  await until('the player is level with the table', 15, isLevel(() => player.latest(), FPS));

  // Another subject is another publisher, and a takeover that never connects hurts nobody.
  assert.equal((await post(endpoint, other)).status, 409);
  const before = await player.latest();
  const never = await post(endpoint, renewed);
  assert.equal(never.status, 201);
  await measureFor(2);
  const meanwhile = between(before, await player.latest());
  assert.equal(meanwhile.freezes, 0);
  assert(meanwhile.framesPerSecond > 0.9 * FPS, `${meanwhile.framesPerSecond} frames per second while it does not connect`);

  const second = t.ffmpeg(endpoint, { name: 'second', token: renewed });
  await until('the second sends', 15, () => second.framesSent > 2 * FPS);
  // The first, and the one that never connected, which the second overtook. FFmpeg does not mind the alert and sends on.
  await until('the others are ended', 5, async () => {
    return (await gateway.metrics()).sum('tableside_sessions_ended_total', { role: 'publisher', cause: 'replaced' }) === 2;
  });
  await measureFor(2);
  const after = await player.latest();
  const played = between(before, after);
  const frozen = (after.video.totalFreezesDuration ?? 0) - (before.video.totalFreezesDuration ?? 0);
  t.measure('player, frames per second', played.framesPerSecond);
  t.measure('player, freezes', played.freezes);
  t.measure('player, frozen', frozen, 's');
  assert(played.freezes <= 1 && frozen <= LONGEST_FREEZE, `${played.freezes} freezes, ${frozen} s`);
  assert.equal(after.made, before.made, 'the player stays in its session');
  assert.equal(await player.state(), 'live');
  await Promise.all([first.vanish(), second.leave()]);
}

async function start(t) {
  const [http, admin, udp] = await freePorts(3);
  const text = [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nlisten = "127.0.0.1"\nannounce = ["127.0.0.1"]\nfirst_port = ${udp}\nshards = 1`,
    '[tables.one]',
    AUTH,
  ].join('\n\n');
  const file = join(t.folder, 'gateway.toml');
  writeFileSync(file, text);
  return t.configured(file, { http, admin });
}

/** A POST with a token and nobody behind it. */
function post(endpoint, token) {
  const headers = { 'Content-Type': 'application/sdp', Authorization: `Bearer ${token}` };
  return fetch(endpoint, { method: 'POST', headers, body: offer({ direction: 'sendonly' }) });
}
