import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Front } from '../lib/front.mjs';
import { freePorts } from '../lib/gateway.mjs';
import { AUTH, Issuer } from '../lib/issuer.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { until } from '../lib/until.mjs';

export const about = 'player page, camera page, SDK and FFmpeg follow a 307 to another origin, whose URL carries a ticket';

export async function run(t) {
  const gateway = await t.demo();
  const node = await Front.before(gateway);
  t.defer(() => node.close());
  const balancer = await Front.before(gateway, { redirectTo: node });
  t.defer(() => balancer.close());
  const live = async (table) => (await gateway.metrics()).sum('tableside_table_live', { table }) === 1;

  const browser = await t.chromium({ camera: true });
  const page = await browser.open(balancer.url('/play/demo'));
  const player = new PlayerPage(page);
  await until('the player page plays', 15, async () => (await player.state()) === 'live');
  await gateway.sessionsAre({ players: 1 }, 5);
  await page.goto('about:blank');
  await gateway.sessionsAre({ players: 0 }, 5);
  assert.match(paths(node, 'POST').join(), /^\/whep\/demo\?player=[\w.-]+&ticket=for-one$/, 'with the ticket, and who plays');
  // A page that is left says goodbye both ways at once: the session may be gone before the DELETE comes.
  await until('the page that is left sends DELETE', 5, () => paths(node, 'DELETE').length > 0);
  assert.match(paths(node, 'DELETE').join(), /^\/whep\/demo\/[0-9a-f]{32}$/, 'DELETE goes to the node that has the session');
  assert.deepEqual(balancer.by('DELETE'), []);

  const camera = await browser.open(balancer.url('/publish/redirected'));
  await camera.getByRole('button', { name: 'Go on air' }).click();
  await until('the camera page publishes', 15, () => live('redirected'));
  await camera.getByRole('button', { name: 'Go off air' }).click();
  const ended = () => node.by('DELETE').filter(({ path }) => path.startsWith('/whip/redirected/')).map(({ status }) => status);
  await until('the camera page ends its session before its connection says goodbye', 5, () => ended().includes(200));
  await gateway.sessionsAre({ players: 0, publishers: 0 }, 5);

  await tokenStaysAtHome(t, gateway, browser, { node, balancer });

  const ffmpeg = t.ffmpeg(balancer.url('/whip/encoder'), { token: 'a-token-of-no-use-in-the-demo' });
  await until('FFmpeg publishes', 15, () => live('encoder'));
  await ffmpeg.leave();
  await gateway.sessionsAre({ players: 0, publishers: 0 }, 5);
  assert.deepEqual(balancer.by('DELETE'), []);

  await tokenFollowsWhereItIsAskedFor(t, browser);
}

/** A token is for the origin it was given for: neither browser nor SDK send it to the one that a redirect names, unless that asks. */
async function tokenStaysAtHome(t, gateway, browser, { node, balancer }) {
  const page = await browser.open(balancer.url('/'));
  const seen = [node, balancer].map((front) => front.requests.length);
  await page.evaluate(async () => {
    const { TablesidePlayer } = await import('/sdk/player.js');
    const video = document.createElement('video');
    video.muted = true;
    document.body.append(video);
    globalThis.player = new TablesidePlayer({ url: '/whep/demo', video, token: 'for-home' });
    await globalThis.player.start();
  });
  await until('the SDK plays', 15, () => page.evaluate(() => globalThis.player.state === 'live'));
  await page.evaluate(() => globalThis.player.stop());
  await gateway.sessionsAre({ players: 0 }, 5);
  const [away, home] = [node, balancer].map((front, n) => front.requests.slice(seen[n]));
  assert.deepEqual(home.filter(({ method }) => method === 'POST').map(({ authorization }) => authorization), ['Bearer for-home']);
  const made = away.filter(({ method }) => method === 'POST' || method === 'DELETE');
  const asked = made.map(({ method, authorization, status }) => [method, authorization, status]);
  assert.deepEqual(asked, [['POST', undefined, 201], ['DELETE', undefined, 200]], '`stop` resolves once the server has ended the session');
}

/** A node that wants tokens, and a redirect whose URL has none: the SDK and the camera page post again, with theirs. */
async function tokenFollowsWhereItIsAskedFor(t, browser) {
  const issuer = new Issuer(t);
  const [http, admin, udp] = await freePorts(3);
  const file = join(t.folder, 'gateway.toml');
  writeFileSync(file, [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nlisten = "127.0.0.1"\nannounce = ["127.0.0.1"]\nfirst_port = ${udp}\nshards = 1`,
    `[tables.one]\n${AUTH}\n`,
  ].join('\n\n'));
  const gateway = await t.configured(file, { http, admin });
  gateway.tokensFrom(issuer);
  const node = await Front.before(gateway);
  t.defer(() => node.close());
  const balancer = await Front.before(gateway, { redirectTo: node });
  t.defer(() => balancer.close());

  const camera = await browser.open(`${balancer.url('/publish/one')}#token=${gateway.publisherToken}`);
  await camera.getByRole('button', { name: 'Go on air' }).click();
  await until('the camera page publishes', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 1);
  const player = new PlayerPage(await browser.open(gateway.page('one', balancer.url(''))));
  await until('the player page plays', 15, async () => (await player.state()) === 'live');
  const posts = node.by('POST').map(({ path, authorization, status }) => [path.split('?')[0], authorization, status]);
  assert.deepEqual(posts, [
    ['/whip/one', undefined, 401],
    ['/whip/one', `Bearer ${gateway.publisherToken}`, 201],
    ['/whep/one', undefined, 401],
    ['/whep/one', `Bearer ${gateway.playerToken}`, 201],
  ]);
}

function paths(front, method) {
  return front.by(method).map(({ path }) => path);
}
