// Waiting for a condition, with a deadline: the one way in which the scenarios wait for something to become true.

import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Asks `probe` until it returns something truthy, and returns that with the time it took.
 *
 * @template T
 * @param {string} what in an error: what was waited for
 * @param {number} seconds the deadline
 * @param {() => T | Promise<T>} probe
 * @param {{ everyMs?: number }} [options]
 * @returns {Promise<{ value: NonNullable<T>, seconds: number }>}
 * @throws when the deadline passes; says what the last probe returned or threw
 */
export async function until(what, seconds, probe, { everyMs = 50 } = {}) {
  const begin = performance.now();
  let last = 'nothing yet';
  for (;;) {
    try {
      const value = await probe();
      const taken = (performance.now() - begin) / 1000;
      if (value) return { value, seconds: taken };
      last = JSON.stringify(value) ?? String(value);
    } catch (error) {
      last = String(error?.message ?? error);
    }
    if (performance.now() - begin > seconds * 1000) throw new Error(`${what}: not within ${seconds} s (last: ${last})`);
    await delay(everyMs);
  }
}

/** Lets `seconds` pass while something is measured. Never to wait for a condition: that is `until`. */
export async function measureFor(seconds) {
  await delay(seconds * 1000);
}
