// The command line of the matrix; the pairs and what they have to come to are in lib/matrix.mjs.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { choose, expected, playMatrix, surprises } from './lib/matrix.mjs';
import { document } from './lib/matrix-document.mjs';
import { Scenario, runScenario } from './lib/scenario.mjs';
import { ROOT, missingPeers } from './lib/tools.mjs';

const HELP = `tools/interop/matrix [--only PUBLISHER×PLAYER]... [--list] [--write] [--binary PATH]

Plays every publisher to every player through the gateway, and fails if a pair does not come to what it should: it plays,
or it is refused because the player's offer lacks the codec. Needs what tools/setup installs, and cargo build --release.

  --only PUBLISHER×PLAYER  these pairs; either may be *, and : serves for ×
  --list                   the pairs and what they have to come to, without running them
  --write                  writes the results into docs/interop.md; the whole matrix only
  --binary PATH            instead of target/release/tableside

Example: tools/interop/matrix --only 'chromium-av1:*'`;

const { values: options } = parse();
if (options.help) {
  console.log(HELP);
  process.exit(0);
}
if (options.write && options.only.length > 0) stop('--write is for the whole matrix: leave --only out');
const pairs = chosen();
if (options.list) {
  for (const { publisher, player } of pairs) console.log(`${publisher.name}×${player.name}: ${expected(publisher, player)}`);
  process.exit(0);
}
const missing = missingPeers(options.binary);
if (missing.length > 0) stop(`missing: ${missing.join('; ')}`);

const scenario = {
  about: `${pairs.length} pairs of a publisher and a player`,
  timeLimitSeconds: 600,
  async run(t) {
    const { cells, versions } = await playMatrix(t, pairs);
    assert.deepEqual(surprises(cells), []);
    if (options.write) writeFileSync(join(ROOT, 'docs/interop.md'), document(cells, versions));
  },
};
process.exit((await runScenario('matrix', scenario, options.binary)) ? 1 : 0);

function parse() {
  try {
    return parseArgs({
      options: {
        help: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        only: { type: 'string', multiple: true, default: [] },
        write: { type: 'boolean', default: false },
        binary: { type: 'string', default: Scenario.defaultBinary },
      },
    });
  } catch (error) {
    return stop(error.message);
  }
}

function chosen() {
  try {
    return choose(options.only);
  } catch (error) {
    return stop(error.message);
  }
}

function stop(message) {
  console.error(`tools/interop/matrix: ${message}`);
  process.exit(2);
}
