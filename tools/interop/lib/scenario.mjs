// What a scenario is given, and how one is run: its peers are closed in any case, and what it measured is printed.

import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';

import { Chromium } from './chromium.mjs';
import { FfmpegPublisher } from './ffmpeg.mjs';
import { Firefox } from './firefox.mjs';
import { Gateway } from './gateway.mjs';
import { ROOT } from './tools.mjs';

const TIME_LIMIT_SECONDS = 180;
/** The counters that say what a gateway did not take, and how sessions ended. */
const TELLING = /_(dropped|ended|refused|rejected|failed|errors)_total$/;

export class Scenario {
  static defaultBinary = join(ROOT, 'target/release/tableside');

  #cleanups = [];
  #browsers = [];
  #gateway;

  constructor(name, binary) {
    this.binary = binary;
    /** Logs and, after a failure, pictures of the pages. */
    this.folder = join(ROOT, 'target/interop', name);
    rmSync(this.folder, { recursive: true, force: true });
    mkdirSync(this.folder, { recursive: true });
  }

  /** Prints a measured value. */
  measure(what, value, unit = '') {
    const text = typeof value === 'number' ? String(Math.round(value * 100) / 100) : String(value);
    console.log(`    ${what}: ${text}${unit && ` ${unit}`}`);
  }

  /** Runs `cleanup` at the end, the last one first. */
  defer(cleanup) {
    this.#cleanups.push(cleanup);
  }

  /** `tableside demo`, ready; stopped at the end and held to a clean exit. */
  async demo() {
    return this.#started(await Gateway.demo(this.binary, this.folder));
  }

  /** `tableside gateway` with this configuration file, ready; `env` is added to its environment. */
  async configured(file, ports, env = {}) {
    return this.#started(await Gateway.configured(this.binary, this.folder, file, ports, env));
  }

  #started(gateway) {
    this.#gateway = gateway;
    this.defer(async () => {
      if (!gateway.child.ended) await gateway.stop();
    });
    return gateway;
  }

  async chromium(options) {
    return this.#browser(await Chromium.launch(options));
  }

  async firefox() {
    return this.#browser(await Firefox.launch());
  }

  #browser(browser) {
    this.#browsers.push(browser);
    this.defer(() => browser.close());
    return browser;
  }

  /** FFmpeg publishing to `url`; ended at the end. */
  ffmpeg(url, options) {
    const publisher = new FfmpegPublisher(url, this.folder, options);
    this.defer(async () => {
      if (!publisher.child.ended) await publisher.vanish();
    });
    return publisher;
  }

  /** Closes all. @returns the first error */
  async finish() {
    let first;
    for (const cleanup of this.#cleanups.reverse()) {
      await Promise.resolve().then(cleanup).catch((error) => (first ??= error));
    }
    return first;
  }

  /** What helps to understand a failure: pictures of the pages, their errors, the end of the gateway's log, its counters. */
  async evidence() {
    for (const [i, page] of this.#browsers.flatMap((browser) => browser.pages).entries()) {
      await page.screenshot({ path: join(this.folder, `page-${i}.png`) }).catch(() => {});
    }
    const errors = this.#browsers.flatMap((browser) => browser.errors ?? []);
    const log = this.#gateway ? this.#gateway.child.output().trimEnd().split('\n').slice(-15) : [];
    const counters = await this.#gateway?.metrics().then((metrics) => metrics.nonZero(TELLING)).catch(() => []);
    return [
      ...errors.slice(-10).map((line) => `page: ${line}`),
      ...log.map((line) => `gateway: ${line}`),
      ...(counters ?? []).map((line) => `gateway: ${line}`),
    ];
  }
}

/** Runs one scenario and prints PASS or FAIL. @returns why it failed, or nothing */
export async function runScenario(name, module, binary) {
  console.log(`\n=== ${name}: ${module.about}`);
  const begin = performance.now();
  const scenario = new Scenario(name, binary);
  const limit = module.timeLimitSeconds ?? TIME_LIMIT_SECONDS;
  const failure = await inTime(module.run(scenario), limit).catch((thrown) => thrown);
  const evidence = failure ? await scenario.evidence() : [];
  const unclean = await scenario.finish();
  const error = failure ?? unclean;
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  if (!error) {
    console.log(`PASS ${name} (${seconds} s)`);
    return undefined;
  }
  console.log(`FAIL ${name} (${seconds} s)\n    ${error.stack ?? error}`);
  evidence.forEach((line) => console.log(`    | ${line}`));
  console.log(`    logs and pictures: ${scenario.folder}`);
  return error;
}

async function inTime(running, seconds) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${seconds} s`)), seconds * 1000);
  });
  try {
    await Promise.race([running, late]);
  } finally {
    clearTimeout(timer);
  }
}
