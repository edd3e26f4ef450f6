// docs/loss.md: what a whole run of the loss matrix came to.

import { BURST, FPS, JOINS_WITHIN, TABLE } from './loss-matrix.mjs';

/**
 * @param {import('./loss-matrix.mjs').Cell[]} cells with their results
 * @param {{ seconds: number, together: number, seed: number, chromium: string }} how
 */
export function document(cells, { seconds, together, seed, chromium }) {
  const header = ['loss', 'round trip', 'jitter', ...COLUMNS.map(([title]) => title)];
  const links = cells.filter(({ repair }) => repair);
  const rows = links.map((cell) => {
    const without = cells.find((other) => !other.repair && SAME.every((key) => other[key] === cell[key]));
    return [lossText(cell), `${cell.rtt} ms`, `${cell.jitter} ms`, ...COLUMNS.map(([, text]) => `${text(cell)} / ${text(without)}`)];
  });
  return `# What a bad network does to the picture

<!-- Written by \`tools/matrix --write\`; do not edit. -->

Chromium (${chromium}) watches the table \`${TABLE}\` of \`tableside demo\` (1280×720, ${FPS} frames a second, 2.4 Mbit/s) through the link
emulator (\`tools/netsim\`), for ${seconds} seconds in each cell, ${together} players at a time on links of their own. Delay, jitter and
loss are the same in both directions: half of the round trip each way, up to so much jitter on top in each, order kept; loss
is of each packet by itself, or in bursts of ${BURST} packets in the mean. Seed ${seed}.

Each number stands twice: with repair / without it (no NACK, no RTX).

* **shown**: frames decoded and not dropped, of those that the publisher sent meanwhile: between the moments of the first and of the
  last five seconds at which the player was least behind. What waits for a repair at the end is not lost, nor is what the jitter buffer
  holds; a cell whose picture stands then is watched for up to five seconds more.
* **freezes**: how many, the longest, and all together, as Chromium counts them; ∞ where no picture came within ${JOINS_WITHIN} s.
* **buffer**: how long a frame waits in the jitter buffer, 95th percentile of quarters of a second.
* **NACKs, PLIs**: sent by the player. Of all players' PLIs at most one in half a second goes on to a publisher; the demo's is
  inside of the gateway and gets none.

\`\`\`
tools/matrix                                # all cells; prints each
tools/matrix --only '5%random-80ms*'
tools/matrix --write                        # all cells, and this document
\`\`\`

${table(header, rows)}
`;
}

const SAME = ['loss', 'kind', 'rtt', 'jitter'];

const COLUMNS = [
  ['shown', ({ shown }) => `${(100 * shown).toFixed(1)} %`],
  ['freezes', ({ freezes }) => String(freezes)],
  ['longest', ({ longestFreeze }) => number(longestFreeze, 2, 's')],
  ['frozen', ({ frozen }) => number(frozen, 1, 's')],
  ['buffer', ({ jitterBufferMs }) => number(jitterBufferMs, 0, 'ms')],
  ['NACKs', ({ nacks }) => String(nacks)],
  ['PLIs', ({ keyframeRequests }) => String(keyframeRequests)],
];

function number(value, digits, unit) {
  return value === Infinity ? '∞' : `${value.toFixed(digits)} ${unit}`;
}

/** One cell in a line. */
export function line(result) {
  return COLUMNS.map(([title, text]) => `${title} ${text(result)}`).join(', ');
}

function lossText({ loss, kind }) {
  return kind === 'none' ? '0 %' : `${loss} % ${kind}`;
}

function table(header, rows) {
  const row = (cells) => `| ${cells.join(' | ')} |`;
  return [row(header), row(header.map(() => '---')), ...rows.map(row)].join('\n');
}
