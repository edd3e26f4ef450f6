import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { freePorts } from '../lib/gateway.mjs';
import { AUTH, Issuer } from '../lib/issuer.mjs';
import { offer } from '../lib/offers.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { ROOT } from '../lib/tools.mjs';
import { until } from '../lib/until.mjs';

export const about = 'the shipped config files are valid, mistakes are named, and only who has a token publishes and watches';

const SHIPPED = ['config/gateway.toml', 'daemonset/base/gateway.toml'];

export async function run(t) {
  const issuer = new Issuer(t);
  for (const file of SHIPPED) {
    const { code, output } = await checkConfig(t, withKeys(t, readFileSync(join(ROOT, file), 'utf8')));
    assert.equal(code, 0, `${file}: ${output}`);
  }

  const typo = await checkConfig(t, withKeys(t, `${AUTH}\n\n[http]\nlisten = "127.0.0.1:1"\nmax_sdp_byte = 1\n`));
  assertRefused(typo);
  for (const hint of ['gateway.toml:7', 'max_sdp_byte', 'max_sdp_bytes']) {
    assert(typo.output.includes(hint), `the message names ${hint}: ${typo.output}`);
  }
  t.measure('what a mistyped key says', typo.output.trim().split('\n')[0]);

  const keyless = await gatewayExits(t, write(t, 'keyless.toml', '[tables.one]\n'));
  assertRefused(keyless);
  assert.match(keyless.output, /jwks_file/);

  await onlyWhoHasAToken(t, issuer);
}

async function onlyWhoHasAToken(t, issuer) {
  const [http, admin, udp] = await freePorts(3);
  const text = [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nlisten = "127.0.0.1"\nannounce = ["127.0.0.1"]\nfirst_port = ${udp}\nshards = 1`,
    '[tables.one]\n[tables.two]',
    AUTH,
  ].join('\n\n');
  const gateway = await t.configured(write(t, 'gateway.toml', text), { http, admin });
  gateway.tokensFrom(issuer);
  const post = (path, token) => fetch(gateway.url(path), {
    method: 'POST',
    headers: { 'Content-Type': 'application/sdp', ...(token ? { Authorization: `Bearer ${token}` } : {}) },
    body: offer({ direction: path.startsWith('/whip') ? 'sendonly' : 'recvonly' }),
  });

  const studio = issuer.publisher('studio', ['one']);
  for (const path of ['/whip/one', '/whep/one']) {
    const missing = await post(path);
    assert.equal(missing.status, 401, `${path} without a token`);
    assert.match(missing.headers.get('WWW-Authenticate') ?? '', /^Bearer/);
    assert.equal((await post(path, 'no-token')).status, 401, `${path} with nonsense`);
  }
  assert.equal((await post('/whip/two', studio)).status, 403, "another table's token");
  assert.equal((await post('/whip/one', gateway.playerToken)).status, 403, "a player's token");
  assert.equal((await post('/whep/one', studio)).status, 403, "a publisher's token");
  assert.equal((await post('/whip/three', studio)).status, 404, 'an unknown table');

  const publisher = t.ffmpeg(gateway.url('/whip/one'), { token: studio });
  await until('who has a token publishes', 10, async () => {
    return (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 1;
  });
  const browser = await t.chromium();
  const player = new PlayerPage(await browser.open(gateway.page('one')));
  await until('who has a token watches', 15, async () => (await player.state()) === 'live');
  const stranger = new PlayerPage(await browser.open(gateway.url('/play/one')));
  await until('who has none is told so', 15, async () => (await stranger.state()) === 'refused');
  assert.match(await stranger.text(), /sign in/);
  await publisher.leave();
}

/** It ended by itself, with an error. */
function assertRefused({ code, output }) {
  assert(Number.isInteger(code) && code !== 0, `exit ${code}: ${output}`);
}

/** A copy of a configuration whose key set is that of this test. */
function withKeys(t, text) {
  return write(t, 'gateway.toml', text.replace(/^jwks_file = .*$/m, 'jwks_file = "jwks.json"'));
}

function write(t, name, text) {
  mkdirSync(t.folder, { recursive: true });
  const file = join(t.folder, name);
  writeFileSync(file, text);
  return file;
}

const checkConfig = (t, file) => execute(t.binary, ['check-config', file]);
const gatewayExits = (t, file) => execute(t.binary, ['gateway', '--config', file]);

function execute(binary, args) {
  return new Promise((resolve) => {
    execFile(binary, args, { timeout: 5000 }, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? error.signal) : 0, output: `${stdout}${stderr}` });
    });
  });
}
