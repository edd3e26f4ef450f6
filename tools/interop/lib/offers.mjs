// Offers for tests that send no media: hand-written, so that each can be wrong in exactly one way.

const CODECS = {
  H264: [[102, 'H264/90000', 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f']],
  VP8: [[96, 'VP8/90000']],
  H263: [[34, 'H263/90000']],
};
const FINGERPRINT = Array.from({ length: 32 }, (_, i) => i.toString(16).padStart(2, '0').toUpperCase()).join(':');

/** An offer of one video and one audio section. @param {{ direction: string, video?: keyof typeof CODECS }} options */
export function offer({ direction, video = 'H264' }) {
  const sections = [
    section('audio', 0, direction, [[111, 'opus/48000/2', 'minptime=10;useinbandfec=1']]),
    section('video', 1, direction, CODECS[video]),
  ];
  const session = ['v=0', 'o=- 4611731400430051336 2 IN IP4 127.0.0.1', 's=-', 't=0 0', 'a=group:BUNDLE 0 1'];
  return [...session, ...sections.flat(), ''].join('\r\n');
}

function section(kind, mid, direction, codecs) {
  const sends = direction !== 'recvonly';
  return [
    `m=${kind} 9 UDP/TLS/RTP/SAVPF ${codecs.map(([type]) => type).join(' ')}`,
    'c=IN IP4 0.0.0.0',
    'a=rtcp:9 IN IP4 0.0.0.0',
    'a=ice-ufrag:aB3d',
    'a=ice-pwd:0123456789abcdefghijklmn',
    `a=fingerprint:sha-256 ${FINGERPRINT}`,
    'a=setup:actpass',
    `a=mid:${mid}`,
    `a=${direction}`,
    'a=rtcp-mux',
    ...(sends ? ['a=msid:stage track', `a=ssrc:${1000 + mid} cname:stage`] : []),
    ...codecs.flatMap(([type, map, parameters]) => [
      `a=rtpmap:${type} ${map}`,
      ...(parameters ? [`a=fmtp:${type} ${parameters}`] : []),
    ]),
  ];
}
