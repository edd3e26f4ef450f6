// A WHEP player with nothing of the product in them: what the protocol's text asks for, no more.
// Runs in a page of the gateway's origin, after recorder.js.

(() => {
  const peers = new Map();
  let nextPeer = 1;

  const FRAGMENT = 'application/trickle-ice-sdpfrag';

  /**
   * Posts the offer and applies the answer; the session's URL comes back resolved, with its entity-tag. Without `repair`
   * neither NACK nor RTX is offered. With `via` the answer's candidates lead there: `{ 'ADDRESS PORT': … }` by
   * the gateway's port.
   */
  async function negotiate(connection, endpoint, { repair = true, via } = {}) {
    if (repair) await connection.setLocalDescription();
    else await connection.setLocalDescription({ type: 'offer', sdp: withoutRepair((await connection.createOffer()).sdp) });
    const response = await fetch(endpoint, {
      method: 'POST',
      headers: { 'Content-Type': 'application/sdp' },
      body: connection.localDescription.sdp,
    });
    if (response.status !== 201) throw new Error(`${endpoint} answered ${response.status}: ${await response.text()}`);
    const answer = await response.text();
    await connection.setRemoteDescription({ type: 'answer', sdp: via ? detour(answer, via) : answer });
    return { session: new URL(response.headers.get('Location'), response.url).href, etag: response.headers.get('ETag') };
  }

  /** Without requests for retransmission (RFC 4585 §6.2.1) and without RTX (RFC 4588), which answers them. */
  function withoutRepair(sdp) {
    const rtx = [...sdp.matchAll(/^a=rtpmap:(\d+) rtx\//gm)].map(([, payloadType]) => payloadType);
    const isRepair = (line) => /^a=rtcp-fb:\S+ nack$/.test(line) || rtx.includes(/^a=(?:rtpmap|fmtp|rtcp-fb):(\d+) /.exec(line)?.[1]);
    const lines = sdp.split('\r\n').filter((line) => !isRepair(line));
    return lines.map((line) => (line.startsWith('m=') ? withoutTypes(line, rtx) : line)).join('\r\n');
  }

  /** An m-line without some of its payload types. */
  function withoutTypes(line, types) {
    return line.split(' ').filter((word, at) => at < 3 || !types.includes(word)).join(' ');
  }

  /** UDP candidates of the answer lead elsewhere, by their port; the others are left out. */
  function detour(sdp, via) {
    const candidate = /^a=candidate:(\S+ \d+ udp \d+) \S+ (\d+) (.*)$/;
    const seen = new Set();
    const lines = sdp.split('\r\n').flatMap((line) => {
      if (!line.startsWith('a=candidate:')) return [line];
      const [, head, port, rest] = candidate.exec(line) ?? [];
      if (!via[port] || seen.has(port)) return [];
      seen.add(port);
      return [`a=candidate:${head} ${via[port]} ${rest}`];
    });
    return lines.join('\r\n');
  }

  /** The ICE lines of a description's first section, which is the bundle's tagged one (RFC 9725 §4.3.2). */
  function fragment(sdp) {
    const [session, first] = sdp.split('\r\nm=');
    const lines = `${session}\r\nm=${first}`.split('\r\n');
    return lines.filter((line) => /^(m=|a=(group:BUNDLE|ice-|mid:|candidate:|end-of-candidates))/.test(line)).map((line) => `${line}\r\n`).join('');
  }

  function credentials(sdp) {
    return ['ufrag', 'pwd'].map((name) => new RegExp(`a=ice-${name}:(.*)\r\n`).exec(sdp)[1]);
  }

  function patch(peer, etag, body) {
    return fetch(peer.session, { method: 'PATCH', headers: { 'Content-Type': FRAGMENT, ...(etag ? { 'If-Match': etag } : {}) }, body });
  }

  /** Sends the candidates found so far, for the current ICE session or the one with `etag`; '' for none. */
  async function trickle(number, etag) {
    const peer = peers.get(number);
    const response = await patch(peer, etag ?? peer.etag, fragment(peer.connection.localDescription.sdp));
    return { status: response.status, etag: response.headers.get('ETag') };
  }

  /**
   * Restarts ICE (RFC 9725 §4.3.3). Returns the new ufrags; the browser then looks for a pair by itself. When `far`, as far
   * from the gateway: the browser's new sockets have sent checks with what it knows before the PATCH leaves.
   */
  async function restart(number, { far = false } = {}) {
    const peer = peers.get(number);
    const { connection } = peer;
    connection.restartIce();
    await connection.setLocalDescription();
    const offer = connection.localDescription.sdp;
    const [mine] = credentials(offer);
    const hasChecked = async () => (await pairs(number)).some(({ local, requestsSent }) => local === mine && requestsSent > 2);
    while (far && !await hasChecked()) await new Promise((resolve) => setTimeout(resolve, 20));
    const response = await patch(peer, '*', fragment(offer));
    const answered = await response.text();
    if (response.status !== 200) throw new Error(`PATCH answered ${response.status}: ${answered}`);
    peer.etag = response.headers.get('ETag');
    const [ufrag, pwd] = credentials(answered);
    const sdp = connection.remoteDescription.sdp.replace(/(a=ice-ufrag:).*/g, `$1${ufrag}`).replace(/(a=ice-pwd:).*/g, `$1${pwd}`);
    await connection.setRemoteDescription({ type: 'answer', sdp });
    return { local: mine, remote: ufrag };
  }

  /** The ufrags of the pair that carries the media. */
  async function pair(number) {
    const report = await peers.get(number).connection.getStats();
    const transport = [...report.values()].find((entry) => entry.type === 'transport');
    const selected = report.get(transport?.selectedCandidatePairId);
    const ufrag = (id) => report.get(id)?.usernameFragment;
    return { local: ufrag(selected?.localCandidateId), remote: ufrag(selected?.remoteCandidateId) };
  }

  /** Every candidate pair, for an error text: its credentials, what it is and what went through it. */
  async function pairs(number) {
    const report = await peers.get(number).connection.getStats();
    const ufrag = (id) => report.get(id)?.usernameFragment;
    return [...report.values()].filter((entry) => entry.type === 'candidate-pair').map((entry) => {
      const { localCandidateId, remoteCandidateId, state, nominated, writable, requestsSent, responsesReceived, bytesReceived } = entry;
      return { local: ufrag(localCandidateId), remote: ufrag(remoteCandidateId), state, nominated, writable, requestsSent, responsesReceived, bytesReceived };
    });
  }

  /** Resolves when the element has shown its first frame. */
  function firstFrame(video) {
    return new Promise((resolve) => video.requestVideoFrameCallback(() => resolve(performance.now())));
  }

  function within(milliseconds, promise, what) {
    const late = new Promise((_, reject) => {
      setTimeout(() => reject(new Error(`${what}: not within ${milliseconds} ms`)), milliseconds);
    });
    return Promise.race([promise, late]);
  }

  /** Asks for a header extension that the browser offers only on request. */
  function negotiateExtension(transceiver, uri) {
    const extensions = transceiver.getHeaderExtensionsToNegotiate();
    const extension = extensions.find((candidate) => candidate.uri === uri);
    if (!extension) throw new Error(`this browser does not know ${uri}`);
    extension.direction = 'sendrecv';
    transceiver.setHeaderExtensionsToNegotiate(extensions);
  }

  /** Leaves RED out of the offer. */
  function refuseRed(transceiver) {
    const { codecs } = RTCRtpReceiver.getCapabilities('audio');
    transceiver.setCodecPreferences(codecs.filter((codec) => codec.mimeType !== 'audio/red'));
  }

  /**
   * Watches until the first frame is there. Returns the peer's number and the time from the POST to that frame.
   * `extension` is the URI of one to ask for, `red` false leaves RED out of the offer; `repair` and `via` as for `negotiate`.
   */
  async function watch(endpoint, { deadlineMs = 10_000, sound = true, extension, red = true, repair, via } = {}) {
    const connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const video = document.createElement('video');
    video.autoplay = true;
    video.playsInline = true;
    video.width = 320;
    video.srcObject = new MediaStream();
    document.body.append(video);
    const picture = connection.addTransceiver('video', { direction: 'recvonly' });
    if (extension) negotiateExtension(picture, extension);
    if (sound) {
      const microphone = connection.addTransceiver('audio', { direction: 'recvonly' });
      if (!red) refuseRed(microphone);
    }
    connection.ontrack = ({ track }) => video.srcObject.addTrack(track);

    const number = nextPeer++;
    const peer = { connection, video, session: undefined, etag: undefined };
    peers.set(number, peer);
    const shown = firstFrame(video);
    const posted = performance.now();
    Object.assign(peer, await negotiate(connection, endpoint, { repair, via }));
    const shownAt = await within(deadlineMs, shown, 'the first frame');
    return { peer: number, joinMs: shownAt - posted };
  }

  /** Ends a peer: `delete` as the protocol asks, `close` as a page that goes away does (a DTLS alert at best). */
  async function leave(number, how) {
    const { connection, video, session } = peers.get(number);
    peers.delete(number);
    if (how === 'delete') {
      const response = await fetch(session, { method: 'DELETE' });
      if (!response.ok) throw new Error(`DELETE answered ${response.status}`);
    }
    connection.close();
    video.remove();
  }

  /** Ends every peer of the page by DELETE. */
  async function leaveAll() {
    await Promise.all([...peers.keys()].map((number) => leave(number, 'delete')));
  }

  async function stats(number) {
    const { connection } = peers.get(number);
    const { inbound } = globalThis.interopRecorder;
    const [video, audio] = await Promise.all([inbound(connection, 'video'), inbound(connection, 'audio')]);
    return { state: connection.connectionState, transport: connection.getReceivers()[0]?.transport?.state, at: performance.now(), video, audio };
  }

  globalThis.interop = {
    watch,
    detour,
    leave,
    trickle,
    restart,
    pair,
    pairs,
    leaveAll,
    stats,
    video: (number) => peers.get(number).video,
    answer: (number) => peers.get(number).connection.remoteDescription.sdp,
  };
})();
