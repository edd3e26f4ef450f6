import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { freePorts } from '../lib/gateway.mjs';
import { offer } from '../lib/offers.mjs';
import { ROOT } from '../lib/tools.mjs';
import { until } from '../lib/until.mjs';

export const about = 'the shipped config files are valid, mistakes are named, and only who has a key publishes';

const SHIPPED = ['config/gateway.toml', 'daemonset/base/gateway.toml'];
const KEY = 'a-key-for-this-test-only';

export async function run(t) {
  for (const file of SHIPPED) {
    const { code, output } = await checkConfig(t, withKeys(t, readFileSync(join(ROOT, file), 'utf8')));
    assert.equal(code, 0, `${file}: ${output}`);
  }

  const typo = await checkConfig(t, withKeys(t, '[publish]\nkeys_file = "none"\n\n[http]\nlisten = "127.0.0.1:1"\nmax_sdp_byte = 1\n'));
  assertRefused(typo);
  for (const hint of ['gateway.toml:6', 'max_sdp_byte', 'max_sdp_bytes']) {
    assert(typo.output.includes(hint), `the message names ${hint}: ${typo.output}`);
  }
  t.measure('what a mistyped key says', typo.output.trim().split('\n')[0]);

  const keyless = await gatewayExits(t, write(t, 'keyless.toml', '[tables.one]\n'));
  assertRefused(keyless);
  assert.match(keyless.output, /keys_file/);

  await onlyWhoHasAKey(t);
}

async function onlyWhoHasAKey(t) {
  const [http, admin, udp] = await freePorts(3);
  const text = [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nlisten = "127.0.0.1"\nannounce = ["127.0.0.1"]\nfirst_port = ${udp}\nshards = 1`,
    '[tables.one]\n[tables.two]',
    '[publish]\nkeys_file = "none"',
  ].join('\n\n');
  const gateway = await t.configured(withKeys(t, text), { http, admin });
  const publish = (table, headers = {}) => fetch(gateway.url(`/whip/${table}`), {
    method: 'POST',
    headers: { 'Content-Type': 'application/sdp', ...headers },
    body: offer({ direction: 'sendonly' }),
  });

  const missing = await publish('one');
  assert.equal(missing.status, 401, 'no key');
  assert.match(missing.headers.get('WWW-Authenticate') ?? '', /^Bearer/);
  assert.equal((await publish('one', { Authorization: 'Bearer another-key-altogether' })).status, 401, 'a wrong key');
  assert.equal((await publish('two', { Authorization: `Bearer ${KEY}` })).status, 403, "another table's key");
  assert.equal((await publish('three', { Authorization: `Bearer ${KEY}` })).status, 404, 'an unknown table');

  const publisher = t.ffmpeg(gateway.url('/whip/one'), { key: KEY });
  await until('who has the key publishes', 10, async () => {
    return (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 1;
  });
  await publisher.leave();
}

/** It ended by itself, with an error. */
function assertRefused({ code, output }) {
  assert(Number.isInteger(code) && code !== 0, `exit ${code}: ${output}`);
}

/** A copy of a configuration whose keys are a file of this test. */
function withKeys(t, text) {
  write(t, 'keys.toml', `one = "${KEY}"\n`);
  return write(t, 'gateway.toml', text.replace(/^keys_file = .*$/m, 'keys_file = "keys.toml"'));
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
