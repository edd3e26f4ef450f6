// Runs before a page's own scripts: keeps every RTCPeerConnection that the page makes and what its POSTs were answered,
// so that a scenario reads statistics and refusals and leaves the page alone.

(() => {
  const Native = globalThis.RTCPeerConnection;
  const connections = [];
  globalThis.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      connections.push(this);
    }
  };

  const nativeFetch = globalThis.fetch;
  /** `{ url, offer }` of each POST, with `status` and `answer` once there is one. */
  const posts = [];
  globalThis.fetch = async (input, init) => {
    if (init?.method !== 'POST') return nativeFetch(input, init);
    const post = { url: String(input), offer: init.body };
    posts.push(post);
    const response = await nativeFetch(input, init);
    const answer = await response.clone().text();
    Object.assign(post, { status: response.status, answer });
    return response;
  };

  /** Statistics of one kind of inbound stream, `undefined` while there is none. */
  async function inbound(connection, kind) {
    const report = [...(await connection.getStats()).values()];
    const stats = report.find((entry) => entry.type === 'inbound-rtp' && entry.kind === kind);
    if (!stats) return undefined;
    const codec = report.find((entry) => entry.id === stats.codecId)?.mimeType;
    return { ...JSON.parse(JSON.stringify(stats)), codec };
  }

  globalThis.interopRecorder = {
    connections,
    posts,
    inbound,
    /** Inbound audio and video of the newest connection, with the time in milliseconds at which they were read. */
    async latest() {
      const connection = connections.at(-1);
      if (!connection) return { made: 0 };
      const [video, audio] = await Promise.all([inbound(connection, 'video'), inbound(connection, 'audio')]);
      return { made: connections.length, state: connection.connectionState, at: performance.now(), video, audio };
    },
    /** The gateway's candidate of the pair in use: `{ protocol, address, port, candidateType }`. */
    async path() {
      const report = await connections.at(-1).getStats();
      const transport = [...report.values()].find((entry) => entry.type === 'transport');
      const pair = report.get(transport?.selectedCandidatePairId);
      return pair && JSON.parse(JSON.stringify(report.get(pair.remoteCandidateId)));
    },
  };
})();
