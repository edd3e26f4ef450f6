// Debian's Chromium, headless, with a profile of its own.

import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

import { CHROMIUM } from './tools.mjs';

const FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
  ...['--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required'],
];
const FAKE_CAMERA = ['--use-fake-device-for-media-stream=fps=30', '--use-fake-ui-for-media-stream'];

/** What runs in every page before the page's own scripts. */
export const RECORDER = readFileSync(new URL('../page/recorder.js', import.meta.url), 'utf8');
/** Players of our own, for a page that has loaded. */
export const PEERS = readFileSync(new URL('../page/peers.js', import.meta.url), 'utf8');
/** Reads the clock in the picture. */
export const FRAME_CLOCK = readFileSync(new URL('../page/frame-clock.js', import.meta.url), 'utf8');

export class Chromium {
  static async launch({ camera = false } = {}) {
    const args = [...FLAGS, ...(camera ? FAKE_CAMERA : [])];
    return new Chromium(await chromium.launch({ executablePath: CHROMIUM, headless: true, args }));
  }

  constructor(browser) {
    this.browser = browser;
    /** Uncaught errors and console errors of all pages. @type {string[]} */
    this.errors = [];
    /** @type {import('playwright-core').Page[]} */
    this.pages = [];
  }

  /** A page of the product, in a window of its own, with every connection it makes recorded (see page/recorder.js). */
  async open(url) {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 800 } });
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

  /** A page of the origin of `url` with `interop.watch` (see page/peers.js) and `interopClock`. */
  async openPeers(url) {
    const page = await this.open(url);
    await page.evaluate(PEERS);
    await page.evaluate(FRAME_CLOCK);
    return page;
  }

  async close() {
    await this.browser.close();
  }
}
