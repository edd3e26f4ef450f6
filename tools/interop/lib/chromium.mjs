// Debian's Chromium, headless, with a profile of its own.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { chromium } from 'playwright-core';

import { CHROMIUM, ROOT } from './tools.mjs';

const FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
  ...['--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required'],
];
const fakeCamera = (fps) => [`--use-fake-device-for-media-stream=fps=${fps}`, '--use-fake-ui-for-media-stream'];

/** The fake microphone is silent by itself: it gets a second of a 440 Hz tone, over and over. */
function fakeMicrophone() {
  const [rate, header] = [48_000, 44];
  const wav = Buffer.alloc(header + 2 * rate);
  wav.write('RIFF', 0);
  wav.writeUInt32LE(wav.length - 8, 4);
  wav.write('WAVEfmt ', 8);
  wav.writeUInt32LE(16, 16);
  wav.writeUInt16LE(1, 20);
  wav.writeUInt16LE(1, 22);
  wav.writeUInt32LE(rate, 24);
  wav.writeUInt32LE(2 * rate, 28);
  wav.writeUInt16LE(2, 32);
  wav.writeUInt16LE(16, 34);
  wav.write('data', 36);
  wav.writeUInt32LE(2 * rate, 40);
  for (let i = 0; i < rate; i += 1) wav.writeInt16LE(Math.round(12_000 * Math.sin((2 * Math.PI * 440 * i) / rate)), header + 2 * i);
  const file = join(ROOT, 'target/interop/microphone.wav');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, wav);
  return file;
}

/** What runs in every page before the page's own scripts. */
export const RECORDER = readFileSync(new URL('../page/recorder.js', import.meta.url), 'utf8');
/** Players of our own, for a page that has loaded. */
export const PEERS = readFileSync(new URL('../page/peers.js', import.meta.url), 'utf8');
/** A publisher of our own, likewise. */
export const STUDIO = readFileSync(new URL('../page/studio.js', import.meta.url), 'utf8');
/** Reads the clock in the picture. */
export const FRAME_CLOCK = readFileSync(new URL('../page/frame-clock.js', import.meta.url), 'utf8');
/** What is shown, and when. */
export const SHOWN = readFileSync(new URL('../page/shown.js', import.meta.url), 'utf8');
/** Tells a picture from a flat colour. */
export const PICTURE = readFileSync(new URL('../page/picture.js', import.meta.url), 'utf8');

export class Chromium {
  /**
   * @param {{ camera?: boolean, fps?: number, anyCertificate?: boolean, network?: any, processor?: any }} [options]
   * `anyCertificate`: trusts those made for a test; `network`: at the client's end of it (see lib/network.mjs); `processor`:
   * with its share of the machine (see lib/processor.mjs)
   */
  static async launch({ camera = false, fps = 30, anyCertificate = false, network, processor } = {}) {
    const args = [...FLAGS, ...(camera ? [...fakeCamera(fps), `--use-file-for-fake-audio-capture=${fakeMicrophone()}`] : [])];
    const executablePath = (network ?? processor)?.program(CHROMIUM) ?? CHROMIUM;
    return new Chromium(await chromium.launch({ executablePath, headless: true, args }), { anyCertificate });
  }

  constructor(browser, { anyCertificate }) {
    this.browser = browser;
    this.anyCertificate = anyCertificate;
    /** Uncaught errors and console errors of all pages. @type {string[]} */
    this.errors = [];
    /** @type {import('playwright-core').Page[]} */
    this.pages = [];
  }

  /** A page of the product, in a window of its own, with every connection it makes recorded (see page/recorder.js). */
  async open(url) {
    const context = await this.browser.newContext({
      viewport: { width: 1280, height: 800 },
      ignoreHTTPSErrors: this.anyCertificate,
    });
    const page = await context.newPage();
    this.pages.push(page);
    page.on('pageerror', (error) => this.errors.push(`${page.url()}: ${error.message}`));
    page.on('console', (message) => {
      if (message.type() === 'error') this.errors.push(`${page.url()}: ${message.text()}`);
    });
    await page.addInitScript({ content: RECORDER });
    await page.goto(url);
    return page;
  }

  /** A page of the origin of `url` with `interop.watch` (see page/peers.js), `interopClock` and `interopPicture`. */
  async openPeers(url) {
    const page = await this.open(url);
    await page.evaluate(PEERS);
    await page.evaluate(FRAME_CLOCK);
    await page.evaluate(PICTURE);
    return page;
  }

  /** A page of the origin of `url` with `interopStudio` (see page/studio.js). The browser needs `camera: true`. */
  async openStudio(url) {
    const page = await this.open(url);
    await page.evaluate(STUDIO);
    return page;
  }

  /** Closes a page that `open` returned, and its window. */
  async shut(page) {
    this.pages = this.pages.filter((other) => other !== page);
    await page.context().close();
  }

  version() {
    return this.browser.version();
  }

  async close() {
    await this.browser.close();
  }
}
