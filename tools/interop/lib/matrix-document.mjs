// docs/interop.md: what a whole run of the matrix came to.

import { PLAYERS, PUBLISHERS } from './matrix.mjs';

const NAMES = { H264: 'H.264', VP8: 'VP8', VP9: 'VP9', AV1: 'AV1' };

/** @param {Array<object>} cells of all pairs @param {Record<string, string>} versions by product */
export function document(cells, versions) {
  const header = ['publisher', 'codecs', ...PLAYERS.map(({ title }) => title)];
  const rows = PUBLISHERS.map((publisher) => {
    const row = PLAYERS.map((player) => cells.find((cell) => cell.publisher === publisher.name && cell.player === player.name));
    return [publisher.title, `${NAMES[publisher.codec]}, Opus`, ...row.map(cellText)];
  });
  const cannot = PUBLISHERS.filter((publisher) => publisher.cannot);
  const refused = cells.filter(({ outcome }) => outcome === 'refused');
  const notYet = [...new Set(cannot.map(({ product, cannot: { why } }) => `${product}: ${why}`))];
  return `# Which publishers and players work together

<!-- Written by \`tools/interop/matrix --write\`; do not edit. -->

Each publisher's table is watched by all players at the same time, through \`tableside gateway\` and this machine's own
address. *plays* means that the player's own decoder made pictures of the publisher's codec and size, which are not of one
colour, that more followed for at least three seconds, and that sound came, which is not silence where the client tells;
the number is that of the frames decoded when the player left, by DELETE. *no codec* means that the gateway refused the
offer with 422 and the problem \`no-common-codec\`, and that the offer indeed has no such codec: the gateway does not
transcode.

\`tools/test\` runs the same matrix and fails where a pair comes to anything else. To run it alone, or a part of it:

\`\`\`
tools/interop/matrix
tools/interop/matrix --only 'chromium-av1:*'
\`\`\`

${table(header, rows)}

${notYet.length > 0 ? `*not yet*: ${notYet.join(' ')}\n\n` : ''}## Refusals, as the gateway words them

${table(['publisher', 'player', 'the problem document says'], refused.map(({ publisher, player, why }) => [titled(PUBLISHERS, publisher), titled(PLAYERS, player), why]))}

## Versions

${table(['peer', 'version'], Object.entries(versions))}
`;
}

function cellText({ outcome, frames }) {
  return { plays: `plays, ${frames}`, refused: 'no codec', cannot: 'not yet' }[outcome];
}

function titled(peers, name) {
  return peers.find((peer) => peer.name === name).title;
}

function table(header, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}
