// A child process whose output goes to a file, and who never outlives the run.

import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

import { until } from './until.mjs';

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

export class Child {
  /**
   * @param {string} command
   * @param {string[]} args
   * @param {string} log the file that gets what it prints
   * @param {(line: string) => void} [onLine] sees each line of its standard output
   * @param {NodeJS.ProcessEnv} [env]
   * @param {'ignore' | 'pipe'} [stdin]
   */
  constructor(command, args, log, onLine, env = process.env, stdin = 'ignore') {
    mkdirSync(dirname(log), { recursive: true });
    this.log = log;
    this.name = command.split('/').at(-1);
    /** `{ code, signal }` once it has ended. @type {{ code: number | null, signal: string | null } | undefined} */
    this.ended = undefined;
    this.process = spawn(command, args, { stdio: [stdin, 'pipe', 'pipe'], env });
    running.add(this.process);
    // Written at once: what it printed is in the file by the time that it has ended.
    const file = openSync(log, 'w');
    const tee = (stream, perLine) => {
      let rest = '';
      stream.setEncoding('utf8');
      stream.on('data', (chunk) => {
        writeSync(file, chunk);
        const lines = (rest + chunk).split('\n');
        rest = lines.pop() ?? '';
        if (perLine) lines.forEach(perLine);
      });
    };
    tee(this.process.stdout, onLine);
    tee(this.process.stderr);
    this.process.on('error', (error) => this.#end({ code: null, signal: String(error) }));
    this.process.on('close', (code, signal) => {
      closeSync(file);
      this.#end({ code, signal });
    });
  }

  #end(how) {
    running.delete(this.process);
    this.ended ??= how;
  }

  /** Sends a signal and waits for the end. @returns how it ended, and after how many seconds */
  async end(signal, withinSeconds) {
    if (!this.ended) this.process.kill(signal);
    const { seconds } = await until(`${this.name} ends after ${signal}`, withinSeconds, () => this.ended, { everyMs: 10 });
    return { ...this.ended, seconds };
  }

  /** All that it printed. */
  output() {
    return readFileSync(this.log, 'utf8');
  }
}
