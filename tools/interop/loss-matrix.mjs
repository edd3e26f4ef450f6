// The command line of the loss matrix; the cells are in lib/loss-matrix.mjs.

import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { document, line } from './lib/loss-document.mjs';
import { allCells, cellName, playCells } from './lib/loss-matrix.mjs';
import { Scenario, runScenario } from './lib/scenario.mjs';
import { CHROMIUM, NETSIM, ROOT } from './lib/tools.mjs';

const HELP = `tools/matrix [--only CELL]... [--seconds N] [--together N] [--seed N] [--list] [--write] [--binary PATH]

Plays the demo's table in Chromium through an emulated network, cell by cell: loss 0 to 10 %, alone and in bursts, round
trips of 20, 80 and 200 ms, jitter of 0 and 30 ms, with and without repair. Prints what the player saw in each. Needs what
tools/setup installs, cargo build --release, and cargo build -p tableside-netsim.

  --only CELL      these cells, * being anything
  --seconds N      how long each is watched: 30
  --together N     players at a time, each on a link of its own: 6
  --seed N         what chance is made from: 1
  --list           the cells, without playing them
  --write          writes the results into docs/loss.md; all cells only
  --binary PATH    instead of target/release/tableside

Example: tools/matrix --only '5%*-80ms*' --seconds 10`;

const { values: options } = parse();
if (options.help) {
  console.log(HELP);
  process.exit(0);
}
const [seconds, together, seed] = [options.seconds, options.together, options.seed].map(Number);
if (!(seconds > 0) || !(together >= 1) || !Number.isSafeInteger(seed) || seed < 0) stop('--seconds, --together and --seed are numbers above 0');
if (options.write && options.only.length > 0) stop('--write is for all cells: leave --only out');
const cells = chosen();
if (options.list) {
  for (const cell of cells) console.log(cellName(cell));
  process.exit(0);
}
for (const [path, how] of [[options.binary, 'cargo build --release'], [NETSIM, 'cargo build -p tableside-netsim'], [CHROMIUM ?? '', 'tools/setup']]) {
  if (!existsSync(path)) stop(`${path || 'chromium'} is missing: ${how}`);
}

const scenario = {
  about: `${cells.length} links, ${seconds} s each, ${together} at a time`,
  timeLimitSeconds: 60 + (cells.length / together + 1) * (seconds + 60),
  async run(t) {
    const { results, chromium } = await playCells(t, cells, {
      seconds,
      together,
      seed,
      progress: (batch, done) => batch.forEach((result) => console.log(`    ${cellName(result).padEnd(36)} ${line(result)} (${done} of ${cells.length})`)),
    });
    if (options.write) writeFileSync(join(ROOT, 'docs/loss.md'), document(results, { seconds, together, seed, chromium }));
  },
};
process.exit((await runScenario('loss-matrix', scenario, options.binary)) ? 1 : 0);

function parse() {
  try {
    return parseArgs({
      options: {
        help: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        only: { type: 'string', multiple: true, default: [] },
        seconds: { type: 'string', default: '30' },
        together: { type: 'string', default: '6' },
        seed: { type: 'string', default: '1' },
        write: { type: 'boolean', default: false },
        binary: { type: 'string', default: Scenario.defaultBinary },
      },
    });
  } catch (error) {
    return stop(error.message);
  }
}

function chosen() {
  const all = allCells();
  if (options.only.length === 0) return all;
  const matching = all.filter((cell) => options.only.some((pattern) => matches(cellName(cell), pattern)));
  return matching.length > 0 ? matching : stop(`no such cell: ${options.only.join(', ')}; see --list`);
}

function matches(name, pattern) {
  const literal = pattern.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${literal.join('.*')}$`).test(name);
}

function stop(message) {
  console.error(`tools/matrix: ${message}`);
  process.exit(2);
}
