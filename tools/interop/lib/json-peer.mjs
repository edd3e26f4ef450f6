// A player or publisher that is a program of ours around somebody's library. It prints one JSON object a line:
// `{"answered": {status, offer, answer}}` once, then, if it plays, `{"statistics": {…}}`; SIGINT makes it leave by DELETE.

import assert from 'node:assert/strict';

import { Child } from './process.mjs';
import { until } from './until.mjs';

const ANSWERED_WITHIN = 60;
const LEAVES_WITHIN = 10;

export class JsonPeer {
  constructor(command, args, log) {
    this.said = {};
    this.child = new Child(command, args, log, (line) => Object.assign(this.said, JSON.parse(line)));
  }

  /** What its POST was answered. */
  async answered() {
    const { value } = await until('the offer is answered', ANSWERED_WITHIN, () => this.said.answered ?? assertRuns(this.child));
    return value;
  }

  /** The codec is that of the answer: the libraries do not say which decoder runs. */
  statistics() {
    assertRuns(this.child);
    return { codec: videoCodec(this.said.answered?.answer), frames: 0, audio: { received: 0 }, ...this.said.statistics };
  }

  /** Leaves, and is held to a clean end if it had a session. */
  async stop({ playing }) {
    const { code } = await this.child.end('SIGINT', LEAVES_WITHIN);
    if (playing) assert.equal(code, 0, `it ended with ${code}: ${lastLines(this.child)}`);
  }
}

/** @throws with the end of its log if the child has ended */
export function assertRuns(child) {
  if (child.ended) throw new Error(`${child.name} ended (${JSON.stringify(child.ended)}): ${lastLines(child)}`);
}

function lastLines(child) {
  return child.output().trimEnd().split('\n').slice(-8).join(' | ');
}

/** The first codec of a description's video section, as in `H264`. */
export function videoCodec(sdp) {
  const [, section = ''] = (sdp ?? '').split(/^m=video /m);
  return /^a=rtpmap:\d+ ([^/]+)\//m.exec(section.split(/^m=/m)[0])?.[1];
}
