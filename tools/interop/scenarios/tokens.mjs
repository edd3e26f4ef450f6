import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';

import { SignJWT, UnsecuredJWT, createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose';

import { freePorts } from '../lib/gateway.mjs';
import { offer } from '../lib/offers.mjs';
import { until } from '../lib/until.mjs';

export const about = 'tokens of npm jose, whose keys come over HTTPS and change, open the gateway, and jose verifies those of `tableside token`';

const ALGORITHMS = ['EdDSA', 'ES256', 'RS256'];
const ISSUER = 'https://id.example';
const AUDIENCE = 'tableside';

export async function run(t) {
  const keys = Object.fromEntries(await Promise.all(ALGORITHMS.map(async (alg) => [alg, await makeKey(alg)])));
  const issuer = await Issuer.listen(t);
  issuer.publish(keys.EdDSA);
  const gateway = await start(t, issuer);

  await opens(gateway, keys.EdDSA);
  // Each new key beside the old one, and signed with at once: the first token that names it has the set fetched again.
  issuer.publish(...Object.values(keys));
  for (const key of [keys.ES256, keys.RS256]) await opens(gateway, key);
  assert.equal(issuer.asked, 2, 'at start, and because of the new keys');
  await forgeries(gateway, keys);

  ours(t);
  for (const alg of ALGORITHMS) await verifiesOurs(t, alg);
}

/** An encoder of the subject and a player get past the token, by header and by URL. */
async function opens(gateway, key) {
  const [publisher, player] = await Promise.all(['publisher', 'player'].map((role) => sign(key, { role })));
  const published = await post(gateway, '/whip/one', publisher);
  assert.equal(published.status, 201, `${key.alg}: ${await published.text()}`);
  assert.equal((await fetch(published.headers.get('Location'), { method: 'DELETE' })).status, 200);
  // Nobody sends: whoever gets as far as that has been let in.
  assert.equal(await problem(await post(gateway, '/whep/one', player)), 'table-not-live', key.alg);
  assert.equal(await problem(await post(gateway, `/whep/one?access_token=${player}`)), 'table-not-live', key.alg);
}

async function forgeries(gateway, keys) {
  const player = { role: 'player' };
  const ec = await new SignJWT(claims(player)).setProtectedHeader({ alg: 'ES256', kid: keys.EdDSA.jwk.kid }).sign(keys.ES256.privateKey);
  const secret = new TextEncoder().encode(JSON.stringify(keys.RS256.jwk));
  const hmac = await new SignJWT(claims(player)).setProtectedHeader({ alg: 'HS256', kid: keys.RS256.jwk.kid }).sign(secret);
  const pss = await new SignJWT(claims(player)).setProtectedHeader({ alg: 'PS256', kid: keys.RS256.jwk.kid }).sign(keys.RS256.privateKey);
  const embedded = await makeKey('EdDSA');
  const brought = await new SignJWT(claims(player)).setProtectedHeader({ alg: 'EdDSA', jwk: embedded.jwk }).sign(embedded.privateKey);
  const cases = {
    'another key\'s signature': [ec, 'token-invalid'],
    'HMAC with the public key': [hmac, 'token-invalid'],
    'RSASSA-PSS': [pss, 'token-invalid'],
    'no signature': [new UnsecuredJWT(claims(player)).encode(), 'token-invalid'],
    'a key of its own': [brought, 'token-invalid'],
    // The issuer was asked just now: it may have this key the next time.
    'an unknown key': [await sign(embedded, player), 'keys-unavailable'],
    'another audience': [await sign(keys.EdDSA, { ...player, aud: 'another' }), 'token-invalid'],
    'another issuer': [await sign(keys.EdDSA, { ...player, iss: 'https://id.example.com' }), 'token-invalid'],
    expired: [await sign(keys.EdDSA, { ...player, exp: seconds() - 60 }), 'token-expired'],
    'not valid yet': [await sign(keys.EdDSA, { ...player, nbf: seconds() + 60 }), 'token-not-yet-valid'],
    'another table': [await sign(keys.EdDSA, { ...player, tables: ['two'] }), 'token-for-other-table'],
    'another role': [await sign(keys.EdDSA, { role: 'publisher' }), 'token-for-other-role'],
    'another jurisdiction': [await sign(keys.EdDSA, { ...player, jurisdiction: 'GB' }), 'token-for-other-jurisdiction'],
  };
  for (const [what, [token, expected]] of Object.entries(cases)) {
    assert.equal(await problem(await post(gateway, '/whep/one', token)), expected, what);
  }
}

/** Three keys in one set, as `tableside token keygen` makes them. */
function ours(t) {
  for (const alg of ALGORITHMS) tableside(t, ['keygen', '--alg', alg, '--key', join(t.folder, `${alg}.pem`), '--jwks', join(t.folder, 'ours.json')]);
}

async function verifiesOurs(t, alg) {
  const token = tableside(t, [
    ...['--key', join(t.folder, `${alg}.pem`), '--sub', 'ann', '--role', 'player', '--table', 'one', '--jurisdiction', 'MT'],
    ...['--iss', ISSUER, '--aud', AUDIENCE, '--for', '15m'],
  ]).trim();
  const set = createLocalJWKSet(JSON.parse(readFileSync(join(t.folder, 'ours.json'), 'utf8')));
  const { payload, protectedHeader } = await jwtVerify(token, set, { algorithms: [alg], issuer: ISSUER, audience: AUDIENCE, typ: 'JWT', requiredClaims: ['sub', 'exp', 'iat'] });
  assert.equal(protectedHeader.alg, alg);
  assert.deepEqual([payload.sub, payload.role, payload.tables, payload.jurisdiction], ['ann', 'player', ['one'], 'MT']);
  assert.equal(payload.exp - payload.iat, 900);
  const [signed, signature] = [token.slice(0, token.lastIndexOf('.')), token.slice(token.lastIndexOf('.') + 1)];
  const changed = `${signed}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
  await assert.rejects(jwtVerify(changed, set), { code: 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED' });
}

async function makeKey(alg) {
  const { publicKey, privateKey } = await generateKeyPair(alg);
  return { alg, privateKey, jwk: { ...(await exportJWK(publicKey)), alg, use: 'sig', kid: `key-${alg}-${Math.random()}` } };
}

const seconds = () => Math.floor(Date.now() / 1000);

function claims(changes) {
  return { sub: 'ann', tables: ['one'], jurisdiction: 'MT', iss: ISSUER, aud: AUDIENCE, iat: seconds(), exp: seconds() + 60, ...changes };
}

function sign({ alg, privateKey, jwk }, changes) {
  return new SignJWT(claims(changes)).setProtectedHeader({ alg, kid: jwk.kid, typ: 'at+jwt' }).sign(privateKey);
}

/** Serves a JWK Set over HTTPS, with a certificate that no system knows. */
class Issuer {
  static async listen(t) {
    const [certificate, key] = [join(t.folder, 'issuer.crt'), join(t.folder, 'issuer.key')];
    execFileSync('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
      ...['-subj', '/CN=issuer', '-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE', '-keyout', key, '-out', certificate],
    ], { stdio: 'pipe' });
    const issuer = new Issuer();
    issuer.server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => {
      issuer.asked += 1;
      response.setHeader('Content-Type', 'application/jwk-set+json').end(JSON.stringify({ keys: issuer.keys }));
    });
    await new Promise((resolve) => issuer.server.listen(0, '127.0.0.1', resolve));
    t.defer(() => issuer.server.close());
    return issuer;
  }

  asked = 0;
  keys = [];

  publish(...keys) {
    this.keys = keys.map(({ jwk }) => jwk);
  }

  get url() {
    return `https://127.0.0.1:${this.server.address().port}/jwks.json`;
  }
}

async function start(t, issuer) {
  const [http, admin, udp] = await freePorts(3);
  const file = join(t.folder, 'gateway.toml');
  writeFileSync(file, [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nlisten = "127.0.0.1"\nannounce = ["127.0.0.1"]\nfirst_port = ${udp}\nshards = 1`,
    `[auth]\njwks_url = "${issuer.url}"\njwks_ca_file = "issuer.crt"\njurisdictions = ["MT"]\nissuer = "${ISSUER}"\naudience = "${AUDIENCE}"`,
    '[tables.one]\n[tables.two]\n',
  ].join('\n\n'));
  const gateway = await t.configured(file, { http, admin });
  const { seconds: took } = await until('the keys are there', 10, async () => (await gateway.metrics()).sum('tableside_token_keys', {}) === 1);
  t.measure('until there are keys', took, 's');
  return gateway;
}

function post(gateway, path, token) {
  const headers = { 'Content-Type': 'application/sdp', ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  return fetch(gateway.url(path), { method: 'POST', headers, body: offer({ direction: path.startsWith('/whip') ? 'sendonly' : 'recvonly' }) });
}

async function problem(response) {
  return (await response.json()).type.replace('urn:tableside:problem:', '');
}

function tableside(t, args) {
  return execFileSync(t.binary, ['token', ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
}
