// The release binary as its operators run it: the command line, a config file, signals, the admin listener.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { basename, join } from 'node:path';

import { Metrics } from './metrics.mjs';
import { Child } from './process.mjs';
import { until } from './until.mjs';

const READY_WITHIN = 10;
const DTLS_VERSIONS = ['1.2', '1.3'];
const SRTP_PROFILES = ['aes128_cm_sha1_80', 'aead_aes_128_gcm', 'aead_aes_256_gcm'];
/** `tableside demo` listens there. */
const DEMO = { http: 8080, admin: 9090, tables: ['demo', 'demo-vp8'] };

export class Gateway {
  /** `tableside demo`, ready, with its own tables live. */
  static async demo(binary, folder) {
    await assertFree([DEMO.http, DEMO.admin]);
    const gateway = await new Gateway(new Child(binary, ['demo'], join(folder, 'gateway.log')), DEMO).ready();
    const { value: metrics } = await until('the demo tables are live', READY_WITHIN, async () => {
      const read = await gateway.metrics();
      return DEMO.tables.every((table) => read.sum('tableside_table_live', { table }) === 1) && read;
    });
    gateway.ownPublishers = metrics.sum('tableside_sessions', { role: 'publisher' });
    return gateway;
  }

  /**
   * `tableside gateway --config FILE`, ready; `ports` are those the file names, with `scheme: 'https'` if it names a certificate. `env`
   * is added to its environment.
   */
  static async configured(binary, folder, file, ports, env = {}) {
    const log = join(folder, `${basename(file, '.toml')}.log`);
    const child = new Child(binary, ['gateway', '--config', file], log, undefined, { ...process.env, ...env });
    return new Gateway(child, ports).ready();
  }

  constructor(child, ports) {
    this.child = child;
    this.ports = ports;
    /** Sessions by which the demo publishes its own tables, if it counts them. */
    this.ownPublishers = 0;
  }

  /** A URL of the public listener. */
  url(path) {
    const { http, scheme = 'http' } = this.ports;
    return `${scheme}://127.0.0.1:${http}${path}`;
  }

  /** From here on its pages and endpoints come with tokens of this issuer. @param {import('./issuer.mjs').Issuer} issuer */
  tokensFrom(issuer) {
    this.issuer = issuer;
    this.publisherToken = issuer.publisher();
    this.playerToken = issuer.player();
  }

  /** The player page of a table, at another origin than `url` if need be; a browser keeps the token in the fragment to itself. */
  page(table, origin = this.url('')) {
    return `${origin}/play/${table}${this.playerToken ? `#token=${this.playerToken}` : ''}`;
  }

  /** The WHEP endpoint of a table, with its token: for players that have no place for one. */
  whep(table) {
    return this.url(`/whep/${table}${this.playerToken ? `?access_token=${this.playerToken}` : ''}`);
  }

  /** A URL of the admin listener. */
  admin(path) {
    return `http://127.0.0.1:${this.ports.admin}${path}`;
  }

  async ready() {
    await until('the gateway is ready', READY_WITHIN, async () => {
      if (this.child.ended) throw new Error(`it ended: ${JSON.stringify(this.child.ended)}`);
      return (await fetch(this.admin('/readyz'))).ok;
    });
    return this;
  }

  /** What `/metrics` says now. */
  async metrics() {
    const response = await fetch(this.admin('/metrics'));
    assert.equal(response.status, 200, '/metrics');
    return new Metrics(await response.text());
  }

  /** Handshakes by now, `{ 'VERSION PROFILE': count }`, those that there were none of left out. */
  async handshakes() {
    const metrics = await this.metrics();
    const all = DTLS_VERSIONS.flatMap((version) => SRTP_PROFILES.map((profile) => ({ version, profile })));
    const counts = all.map((labels) => [`${labels.version} ${labels.profile}`, metrics.sum('tableside_dtls_handshakes_total', labels)]);
    return Object.fromEntries(counts.filter(([, count]) => count > 0));
  }

  /** `/status`, parsed. */
  async status() {
    const response = await fetch(this.admin('/status'));
    assert.equal(response.status, 200, '/status');
    return response.json();
  }

  /** Resident memory in bytes. */
  residentBytes() {
    const status = readFileSync(`/proc/${this.child.process.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
  }

  /** Waits until the gauges say so many sessions, those of the demo itself apart. */
  async sessionsAre({ players, publishers = 0 }, withinSeconds) {
    const wanted = `${players} players and ${publishers} publishers`;
    return until(wanted, withinSeconds, async () => {
      const metrics = await this.metrics();
      const player = metrics.sum('tableside_sessions', { role: 'player' });
      const publisher = metrics.sum('tableside_sessions', { role: 'publisher' }) - this.ownPublishers;
      const found = `${player} players and ${publisher} publishers`;
      if (found !== wanted) throw new Error(found);
      return true;
    });
  }

  /** Ends it as the kubelet would, and holds it to a clean exit. */
  async stop(withinSeconds = 5) {
    const { code, signal, seconds } = await this.child.end('SIGTERM', withinSeconds);
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, 'the gateway exits with 0 after SIGTERM');
    assert.doesNotMatch(this.child.output(), /panicked at/, 'the gateway panicked');
    return { seconds };
  }
}

/** Ports that were free a moment ago, so many. */
export async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, () => listen(0)));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map(close));
  return ports;
}

/** A gateway that answers must be the one that was started, not one that was there already. */
async function assertFree(ports) {
  for (const port of ports) {
    const server = await listen(port).catch(() => undefined);
    assert(server, `port ${port} is in use by another process`);
    await close(server);
  }
}

function listen(port) {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

function close(server) {
  return new Promise((resolve) => server.close(resolve));
}
