// A WHIP publisher with nothing of the product in it: camera and microphone, one codec, what RFC 9725 asks for.
// Runs in a page of the gateway's origin, after recorder.js.

(() => {
  const DEPENDENCY_DESCRIPTOR = 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';
  const isOf = (mimeType) => (codec) => codec.mimeType.toLowerCase() === mimeType.toLowerCase();

  /** The codecs of a kind, those of `mimeType` first. */
  function preferring(kind, mimeType) {
    const all = RTCRtpReceiver.getCapabilities(kind).codecs;
    const first = all.filter(isOf(mimeType));
    if (first.length === 0) throw new Error(`this browser has no ${mimeType}`);
    return [...first, ...all.filter((codec) => !isOf(mimeType)(codec))];
  }

  function negotiateExtension(transceiver, uri) {
    const extensions = transceiver.getHeaderExtensionsToNegotiate();
    const extension = extensions.find((candidate) => candidate.uri === uri);
    if (!extension) throw new Error(`this browser does not know ${uri}`);
    extension.direction = 'sendrecv';
    transceiver.setHeaderExtensionsToNegotiate(extensions);
  }

  /** The session's URL, by the number of the connection. */
  const sessions = new Map();

  /**
   * Publishes the fake camera. Returns the number of the connection in interopRecorder.
   *
   * @param {string} endpoint
   * @param {{ video?: string, audio?: string, scalabilityMode?: string, dependencyDescriptor?: boolean, token?: string,
   *   picture?: MediaTrackConstraints }} options mime types of the codecs to put first, the publisher's token, the camera's picture
   */
  async function publish(endpoint, { video = 'video/VP8', audio = 'audio/opus', scalabilityMode, dependencyDescriptor = false, token, picture } = {}) {
    const constraints = { width: 640, height: 360, frameRate: 30, ...picture };
    const stream = await navigator.mediaDevices.getUserMedia({ video: constraints, audio: true });
    const connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    const encodings = scalabilityMode ? [{ scalabilityMode }] : [{}];
    const camera = connection.addTransceiver(stream.getVideoTracks()[0], { direction: 'sendonly', streams: [stream], sendEncodings: encodings });
    const microphone = connection.addTransceiver(stream.getAudioTracks()[0], { direction: 'sendonly', streams: [stream] });
    camera.setCodecPreferences(preferring('video', video));
    microphone.setCodecPreferences(preferring('audio', audio));
    if (dependencyDescriptor) negotiateExtension(camera, DEPENDENCY_DESCRIPTOR);
    await connection.setLocalDescription();
    const headers = { 'Content-Type': 'application/sdp', ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const response = await fetch(endpoint, { method: 'POST', headers, body: connection.localDescription.sdp });
    if (response.status !== 201) throw new Error(`${endpoint} answered ${response.status}: ${await response.text()}`);
    await connection.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    const number = globalThis.interopRecorder.connections.indexOf(connection);
    sessions.set(number, new URL(response.headers.get('Location'), response.url).href);
    return number;
  }

  /** What the browser says it sends: statistics of one kind, with the codec's mime type. */
  async function sent(number, kind) {
    const report = [...(await globalThis.interopRecorder.connections[number].getStats()).values()];
    const stats = report.find((entry) => entry.type === 'outbound-rtp' && entry.kind === kind);
    if (!stats) return undefined;
    return { ...JSON.parse(JSON.stringify(stats)), codec: report.find((entry) => entry.id === stats.codecId)?.mimeType };
  }

  /** Ends the session by DELETE, as the protocol asks, and gives the camera back. */
  async function leave(number) {
    const response = await fetch(sessions.get(number), { method: 'DELETE' });
    if (!response.ok) throw new Error(`DELETE answered ${response.status}`);
    const connection = globalThis.interopRecorder.connections[number];
    connection.getSenders().forEach(({ track }) => track?.stop());
    connection.close();
  }

  /** Ends the connection as a page that goes away does, and lets go of camera and microphone. */
  function stop(number) {
    const connection = globalThis.interopRecorder.connections[number];
    for (const { track } of connection.getSenders()) track?.stop();
    connection.close();
  }

  globalThis.interopStudio = { publish, sent, leave, stop, negotiateExtension, preferring, DEPENDENCY_DESCRIPTOR };
})();
