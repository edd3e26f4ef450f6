// A bad network between a client and a gateway: the program tableside-netsim, as a child that takes commands.

import { join } from 'node:path';

import { assertRuns } from './json-peer.mjs';
import { Child } from './process.mjs';
import { NETSIM } from './tools.mjs';
import { until } from './until.mjs';

const ANSWERS_WITHIN = 5;
/** Of the demo's shards: one each, from here on. */
const FIRST_PORT = 7000;

export class Netsim {
  #lines = [];

  /**
   * Started, listening and stopped at the end of the scenario.
   *
   * @param {import('./scenario.mjs').Scenario} t
   * @param {Record<string, string>} forward where to, by where it listens; port 0 is any: `{ '127.0.0.1:0': '127.0.0.1:7000' }`
   * @param {{ both?: string, up?: string, down?: string, seed?: number, name?: string }} [network] settings as
   * `tableside-netsim --help` has them, `up` being to the gateway
   */
  static async start(t, forward, { both = '', up = '', down = '', seed = 1, name = 'netsim' } = {}) {
    const args = Object.entries(forward).map(([listen, to]) => `--forward=${listen}=${to}`);
    args.push(`--both=${both}`, `--up=${up}`, `--down=${down}`, `--seed=${seed}`);
    const netsim = new Netsim(args, join(t.folder, `${name}.log`));
    t.defer(() => netsim.stop());
    const { listening } = await netsim.#answer();
    /** Where clients send to, in the order of `forward`: `address:port`. @type {string[]} */
    netsim.listening = listening;
    return netsim;
  }

  /**
   * The same before the media ports of a demo, each of which is listened for at an address of its own.
   *
   * @param {import('./scenario.mjs').Scenario} t
   * @param {import('./gateway.mjs').Gateway} gateway
   * @param {Parameters<typeof Netsim.start>[2]} network
   * @returns {Promise<{ netsim: Netsim, via: Record<number, string> }>} with what page/peers.js makes a detour of
   */
  static async beforeDemo(t, gateway, network) {
    const ports = (await gateway.status()).shards.map(({ shard }) => FIRST_PORT + shard);
    const forward = Object.fromEntries(ports.map((port, n) => [`127.0.0.${n + 2}:0`, `127.0.0.1:${port}`]));
    const netsim = await Netsim.start(t, forward, network);
    const via = Object.fromEntries(ports.map((port, n) => [port, netsim.listening[n].replace(':', ' ')]));
    return { netsim, via };
  }

  constructor(args, log) {
    // A network is no slower because this machine is busy with browsers: it has the processor first, where that is allowed.
    this.child = new Child('nice', ['-n', '-20', NETSIM, ...args], log, (line) => this.#lines.push(JSON.parse(line)), process.env, 'pipe');
  }

  /**
   * Follows a command: `both delay=40ms`, `client 0 rebind`.
   *
   * @throws with the program's words if it cannot
   */
  async command(text) {
    this.child.process.stdin.write(`${text}\n`);
    const answer = await this.#answer();
    if (answer.error) throw new Error(`${text}: ${answer.error}`);
    return answer;
  }

  /** What has become of each client's packets: `{ client, address, up: { taken, delivered, lost, … }, down }`. */
  async clients() {
    return (await this.command('counts')).clients;
  }

  async #answer() {
    const { value } = await until('tableside-netsim answers', ANSWERS_WITHIN, () => this.#lines.shift() ?? assertRuns(this.child), { everyMs: 5 });
    return value;
  }

  async stop() {
    if (!this.child.ended) await this.child.end('SIGTERM', ANSWERS_WITHIN);
  }
}
