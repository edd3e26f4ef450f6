// Whoever issues a scenario's tokens: `tableside token`, as a developer uses it.

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

/** What a gateway's configuration says of it, in the scenario's folder. */
export const AUTH = '[auth]\njwks_file = "jwks.json"\njurisdictions = ["*"]';

export class Issuer {
  #binary;
  #folder;

  /** With a new key, whose public half is `jwks.json` in the scenario's folder. */
  constructor(t) {
    this.#binary = t.binary;
    this.#folder = t.folder;
    this.#run('token', 'keygen', ...this.#files());
  }

  /** An encoder's token, for all tables if none is named. @param {string[]} tables */
  publisher(sub = 'studio', tables = []) {
    return this.token({ sub, role: 'publisher', tables });
  }

  /** A player's token. @param {string[]} tables */
  player(sub = 'ann', tables = []) {
    return this.token({ sub, role: 'player', tables });
  }

  /** @param {{ sub: string, role: string, tables?: string[], more?: string[] }} claims `more` are further arguments */
  token({ sub, role, tables = [], more = [] }) {
    const named = tables.flatMap((table) => ['--table', table]);
    return this.#run('token', ...this.#files(), '--sub', sub, '--role', role, ...named, ...more).trim();
  }

  #files() {
    return ['--key', join(this.#folder, 'issuer.pem'), '--jwks', join(this.#folder, 'jwks.json')];
  }

  #run(...args) {
    return execFileSync(this.#binary, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  }
}
