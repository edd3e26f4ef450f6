// What a series of shown frames comes to: `[time, height]` each, the time in milliseconds (see page/shown.js).

import { performance } from 'node:perf_hooks';

/** In milliseconds since 1970, as pages have it: the steps of the wall clock since then left out. */
export function now() {
  return performance.timeOrigin + performance.now();
}

/** Frames of one height, one after the other: `{ height, from, to, frames }`. */
export function stretches(frames) {
  const all = [];
  for (const [at, height] of frames) {
    const last = all.at(-1);
    if (last?.height === height) Object.assign(last, { to: at, frames: last.frames + 1 });
    else all.push({ height, from: at, to: at, frames: 1 });
  }
  return all;
}

/** Those shown between two times. */
export function shownBetween(frames, from, to) {
  return frames.filter(([at]) => at >= from && at <= to);
}

/** The longest time between two times in which no new frame was shown, in seconds: also at the beginning and the end. */
export function longestGap(frames, from, to) {
  const times = [from, ...shownBetween(frames, from, to).map(([at]) => at), to];
  return Math.max(...times.slice(1).map((at, n) => at - times[n])) / 1000;
}

/** When a frame of a height that `matches` was first shown after `from`, in seconds from there; `undefined` if none was. */
export function firstAfter(frames, from, matches) {
  const found = frames.find(([at, height]) => at >= from && matches(height));
  return found && (found[0] - from) / 1000;
}
