import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2, constants } from 'node:http2';
import { request } from 'node:https';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';

import { halfOpen, unnoticed } from '../lib/floods.mjs';
import { freePorts } from '../lib/gateway.mjs';
import { AUTH, Issuer } from '../lib/issuer.mjs';
import { offer } from '../lib/offers.mjs';
import { isLevel } from '../lib/playback.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { until } from '../lib/until.mjs';

export const about = 'HTTPS with HTTP/2 and 1.1: Chromium publishes and plays, the certificate changes, handshakes are left half done';

const HANDSHAKES = 1000;
const HANDSHAKE_TIMEOUT_MS = 5000;

export async function run(t) {
  const certificates = ['old', 'new'].map((name) => makeCertificate(t, name));
  serve(t, 'old');
  const [http, admin, udp] = await freePorts(3);
  const issuer = new Issuer(t);
  const gateway = await t.configured(configuration(t, { http, admin, udp }), { http, admin, scheme: 'https' });
  gateway.tokensFrom(issuer);
  const studio = await t.chromium({ camera: true, anyCertificate: true });
  const camera = await studio.open(`${gateway.url('/publish/one')}`);
  await camera.locator('#token').fill(gateway.publisherToken);
  await camera.getByRole('button', { name: 'Go on air' }).click();
  await until('the camera is published', 15, async () => {
    return (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 1;
  });

  const home = await t.chromium({ anyCertificate: true });
  const page = await home.open(gateway.page('one'));
  const player = new PlayerPage(page);
  await until('the page is live', 15, async () => (await player.state()) === 'live');
  assert.deepEqual(await protocols(page), ['h2'], 'what the browser speaks');
  await otherClients(gateway, certificates[0]);

  await until('the player is level with the table', 20, isLevel(() => player.latest(), 30));
  const framesSent = async () => (await sent(camera)).framesSent;
  const watched = { gateway, player, framesSent, atLeastSeconds: 8 };

  await unnoticed(t, 'a new certificate', watched, async () => {
    assert.equal(await fingerprint(http), certificates[0].fingerprint);
    serve(t, 'new');
    const seen = async () => (await fingerprint(http)) === certificates[1].fingerprint;
    const { seconds } = await until('new connections see the new certificate', 10, seen);
    t.measure('until new connections see the new certificate', seconds, 's');
  });
  await otherClients(gateway, certificates[1]);
  const expiry = (await gateway.metrics()).sum('tableside_tls_certificate_expiry_timestamp_seconds');
  assert.equal(expiry, certificates[1].expires, 'the metric is of the new one');

  // The beginning of a ClientHello: a handshake record of 512 bytes that never come.
  const end = await unnoticed(t, 'half handshakes', watched, () => {
    return halfOpen(http, HANDSHAKES, Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]));
  });
  await until('all are let go', 10, async () => {
    const metrics = await gateway.metrics();
    return metrics.sum('tableside_http_limited_total', { listener: 'public', reason: 'tls_handshake_time' }) >= HANDSHAKES;
  });
  end();
  assert.equal(await player.state(), 'live');
  assert.deepEqual([...studio.errors, ...home.errors], [], 'a page logged errors');
}

/** Node's two clients, which trust nothing but this certificate. */
async function otherClients(gateway, { certificate }) {
  const client = connectHttp2(gateway.url(''), { ca: certificate });
  const status = await new Promise((resolve, reject) => {
    client.on('error', reject);
    client.request({ [constants.HTTP2_HEADER_PATH]: '/api/tables' }).on('response', (headers) => resolve(headers[':status'])).end();
  });
  assert.equal(status, 200, 'HTTP/2');
  client.close();

  const { statusCode, headers } = await new Promise((resolve, reject) => {
    const options = { method: 'POST', ca: certificate, headers: { 'Content-Type': 'application/sdp', Authorization: `Bearer ${gateway.playerToken}` } };
    request(gateway.url('/whep/one'), options, (response) => resolve(response.resume())).on('error', reject)
      .end(offer({ direction: 'recvonly', video: 'VP8' }));
  });
  assert([201, 422].includes(statusCode), `HTTP/1.1: ${statusCode}`);
  if (statusCode === 201) assert(headers.location.startsWith(gateway.url('/whep/one/')), headers.location);
}

/** The protocols by which the page and all that it fetched came. */
function protocols(page) {
  return page.evaluate(() => {
    const entries = ['navigation', 'resource'].flatMap((type) => performance.getEntriesByType(type));
    return [...new Set(entries.map((entry) => entry.nextHopProtocol).filter(Boolean))];
  });
}

/** What the publishing browser says it sends. */
function sent(page) {
  return page.evaluate(async () => {
    const stats = await globalThis.interopRecorder.connections.at(-1).getStats();
    return [...stats.values()].find((entry) => entry.type === 'outbound-rtp' && entry.kind === 'video');
  });
}

/** The SHA-256 fingerprint of the certificate that a new connection is shown. */
function fingerprint(port) {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.end();
    }).on('error', reject);
  });
}

/** A certificate of two days for this machine, in a directory of its own. */
function makeCertificate(t, name) {
  const folder = join(t.folder, name);
  mkdirSync(folder, { recursive: true });
  const [crt, key] = [join(folder, 'tls.crt'), join(folder, 'tls.key')];
  execFileSync('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', crt],
  ], { stdio: 'pipe' });
  const say = (what) => execFileSync('openssl', ['x509', '-in', crt, '-noout', ...what], { encoding: 'utf8' }).trim().split('=')[1];
  return {
    certificate: readFileSync(crt),
    fingerprint: say(['-fingerprint', '-sha256']),
    expires: Date.parse(say(['-enddate'])) / 1000,
  };
}

/** Exchanges the certificate as Kubernetes does: by a link far up the path. */
function serve(t, name) {
  symlinkSync(name, join(t.folder, '..data.new'));
  renameSync(join(t.folder, '..data.new'), join(t.folder, '..data'));
}

function configuration(t, { http, admin, udp }) {
  const file = join(t.folder, 'gateway.toml');
  writeFileSync(file, [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[http.tls]\ncertificate = "..data/tls.crt"\nkey = "..data/tls.key"\nhandshake_timeout_ms = ${HANDSHAKE_TIMEOUT_MS}`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nlisten = "127.0.0.1"\nannounce = ["127.0.0.1"]\nfirst_port = ${udp}\nshards = 1`,
    `[tables.one]\n${AUTH}\n`,
  ].join('\n\n'));
  return file;
}
