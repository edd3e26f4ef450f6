// A player that runs in a browser's page: what the drivers of all such players share.

import { until } from './until.mjs';

/** The offer is posted, and answered, within this many seconds of the start. */
const ANSWERED_WITHIN = 60;

export class PagePlayer {
  #begun;

  /**
   * @param {{ open(): Promise<object>, shut(page: object): Promise<void>, begin: Function, end: Function }} client
   *   `open` makes its page, `begin` gets the endpoint's URL and `end` sends DELETE; both run in the page
   */
  constructor(client) {
    this.client = client;
  }

  /** Starts to play. @returns what its POST was answered: `{ status, offer, answer }` */
  async start(endpoint) {
    this.page = await this.client.open();
    // A client that is refused throws, or logs it; what the endpoint said is in the recorder.
    this.#begun = this.page.evaluate(this.client.begin, endpoint).catch((error) => error);
    const { value } = await until('the offer is answered', ANSWERED_WITHIN, () => this.page.evaluate(lastAnswer));
    return value;
  }

  /** `{ codec, frames, width, height, contrast, audio: { received, level } }`; see lib/matrix.mjs. */
  async statistics() {
    return this.page.evaluate(readPlayer);
  }

  /** Leaves by DELETE, where there is a session, and closes its page. */
  async stop({ playing }) {
    if (!this.page) return;
    try {
      if (playing) await this.page.evaluate(this.client.end);
    } finally {
      await this.client.shut(this.page);
      await this.#begun;
    }
  }
}

function lastAnswer() {
  const post = globalThis.interopRecorder.posts.at(-1);
  return post?.status && post;
}

/** Runs in the page. */
async function readPlayer() {
  const { video, audio } = await globalThis.interopRecorder.latest();
  return {
    ...globalThis.interopPicture.read(document.querySelector('video')),
    codec: video?.codec?.split('/')[1],
    frames: video?.framesDecoded ?? 0,
    audio: { received: audio?.packetsReceived ?? 0, level: audio?.totalAudioEnergy },
  };
}
