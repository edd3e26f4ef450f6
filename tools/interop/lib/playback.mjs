// What "it plays" means, from a receiver's own statistics (W3C webrtc-stats, `inbound-rtp`).

import assert from 'node:assert/strict';

/**
 * What happened between two readings of `{ at, video, audio }`, `at` in milliseconds.
 *
 * @returns frames decoded, per second and in all; seconds of freeze, dropped frames and lost packets in between
 */
export function between(before, after) {
  const seconds = (after.at - before.at) / 1000;
  const grown = (kind, key) => (after[kind]?.[key] ?? 0) - (before[kind]?.[key] ?? 0);
  return {
    seconds,
    frames: grown('video', 'framesDecoded'),
    framesPerSecond: grown('video', 'framesDecoded') / seconds,
    framesDropped: grown('video', 'framesDropped'),
    freezes: grown('video', 'freezeCount'),
    packetsLost: grown('video', 'packetsLost') + grown('audio', 'packetsLost'),
    keyframeRequests: grown('video', 'pliCount') + grown('video', 'firCount'),
    audioEnergy: grown('audio', 'totalAudioEnergy'),
    audioSeconds: grown('audio', 'totalSamplesDuration'),
    concealedRatio: grown('audio', 'concealedSamples') / Math.max(1, grown('audio', 'totalSamplesReceived')),
  };
}

/** Prints what matters of it. */
export function report(scenario, who, played) {
  scenario.measure(`${who}, frames per second`, played.framesPerSecond);
  scenario.measure(`${who}, freezes`, played.freezes);
  scenario.measure(`${who}, keyframe requests`, played.keyframeRequests);
  scenario.measure(`${who}, audio energy`, played.audioEnergy.toExponential(2));
}

/**
 * A probe for `until`: true once a second has passed in which no more than `fps` frames a second were decoded. A joiner
 * decodes the cached group of pictures faster than real time; what is measured before it is level says nothing.
 */
export function isLevel(read, fps) {
  let since;
  return async () => {
    const now = await read();
    since ??= now;
    const played = between(since, now);
    if (played.seconds < 1) return false;
    since = now;
    return played.frames <= fps * played.seconds + 1;
  };
}

/** Video moved at `fps` without a freeze. */
export function assertMoves(played, { fps, tolerance = 0.05 }) {
  const [least, most] = [fps * (1 - tolerance), fps * (1 + tolerance)];
  const { framesPerSecond } = played;
  assert(framesPerSecond >= least && framesPerSecond <= most, `${framesPerSecond} frames per second, not about ${fps}`);
  assert.equal(played.freezes, 0, 'freezes');
}

/** Sound was there, and was what came over the wire rather than what the decoder made up. */
export function assertSounds(played) {
  assert(played.audioEnergy > 0, 'the sound is silence');
  assert(played.concealedRatio < 0.05, `${played.concealedRatio} of the sound was concealed`);
}
