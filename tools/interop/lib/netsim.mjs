// A bad network between a client and a gateway: the program tableside-netsim, as a child that takes commands.

import { join } from 'node:path';

import { assertRuns } from './json-peer.mjs';
import { Child } from './process.mjs';
import { NETSIM } from './tools.mjs';
import { until } from './until.mjs';

const ANSWERS_WITHIN = 5;

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

  constructor(args, log) {
    this.child = new Child(NETSIM, args, log, (line) => this.#lines.push(JSON.parse(line)), process.env, 'pipe');
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
