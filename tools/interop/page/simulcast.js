// A WHIP publisher of a simulcast with nothing of the product in it: camera, sendEncodings, POST, answer.
// Runs in a page of the gateway's origin that has a fake camera.

(() => {
  /** From small to large, as browsers want them. The rates let the machine's encoders keep up. */
  const LAYERS = [
    { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
    { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 400_000 },
    { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_200_000 },
  ];
  let sender;

  /**
   * Publishes picture and sound to `endpoint`; `mimeType` names the video codec to prefer, `rates` has other bits a second
   * for each rid, `token` is the publisher's. With `wheel` the picture is that of page/wheel.js instead of the camera's. `encodings`
   * are others than those of the three layers.
   */
  async function publish(endpoint, { mimeType, width, height, frameRate, rates = {}, token, wheel = false, encodings = LAYERS }) {
    const picture = { width, height, frameRate };
    const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: !wheel && picture });
    if (wheel) media.addTrack(globalThis.interopWheel.track(picture));
    const connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    connection.addTransceiver(media.getAudioTracks()[0], { direction: 'sendonly', streams: [media] });
    const [track] = media.getVideoTracks();
    const sendEncodings = encodings.map((layer) => ({ ...layer, maxBitrate: rates[layer.rid] ?? layer.maxBitrate }));
    const transceiver = connection.addTransceiver(track, { direction: 'sendonly', streams: [media], sendEncodings });
    const { codecs } = RTCRtpSender.getCapabilities('video');
    const preferred = codecs.filter((codec) => codec.mimeType === mimeType);
    transceiver.setCodecPreferences([...preferred, ...codecs.filter((codec) => /\/(rtx|red|ulpfec)$/.test(codec.mimeType))]);
    ({ sender } = transceiver);
    // A machine that is short of CPU is to lose frames: by the size of the picture the layers are told apart.
    const parameters = sender.getParameters();
    parameters.degradationPreference = 'maintain-resolution';
    await sender.setParameters(parameters);
    await connection.setLocalDescription();
    const offer = connection.localDescription.sdp;
    const headers = { 'Content-Type': 'application/sdp', ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const response = await fetch(endpoint, { method: 'POST', headers, body: offer });
    if (response.status !== 201) throw new Error(`${endpoint} answered ${response.status}: ${await response.text()}`);
    const answer = await response.text();
    await connection.setRemoteDescription({ type: 'answer', sdp: answer });
    return { offer, answer };
  }

  /** Switches layers on and off, as a page does that is short of CPU: `{ f: false }`. */
  async function setActive(active) {
    const parameters = sender.getParameters();
    for (const encoding of parameters.encodings) encoding.active = active[encoding.rid] ?? encoding.active;
    await sender.setParameters(parameters);
  }

  /** What is sent of each layer, by rid; of a single encoding, by `single`. */
  async function layers() {
    const stats = [...(await sender.getStats()).values()].filter((entry) => entry.type === 'outbound-rtp');
    const of = ({ scalabilityMode, frameHeight, framesSent, framesPerSecond, keyFramesEncoded, bytesSent, targetBitrate, pliCount, retransmittedPacketsSent, active }) =>
      ({ scalabilityMode, frameHeight, framesSent, framesPerSecond, keyFramesEncoded, bytesSent, targetBitrate, pliCount, retransmittedPacketsSent, active });
    return Object.fromEntries(stats.map((entry) => [entry.rid ?? 'single', of(entry)]));
  }

  globalThis.interopSimulcast = { publish, setActive, layers };
})();
