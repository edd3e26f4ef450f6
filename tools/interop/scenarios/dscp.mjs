import assert from 'node:assert/strict';

import { Capture } from '../lib/capture.mjs';
import { Network } from '../lib/network.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { studio } from '../lib/studio.mjs';
import { until } from '../lib/until.mjs';

export const about = 'tshark sees the configured DSCP on video, audio and data, over IPv4, IPv6 and TCP';

/** Other than the defaults, and each one different. */
const MARKS = { audio: 40, video: 26, data: 18 };
const ENOUGH = 10;

export async function run(t) {
  const network = Network.make(t);
  const { ipv4, ipv6 } = network.gateway;
  const dscp = Object.entries(MARKS).map(([kind, mark]) => `dscp.${kind} = ${mark}`).join('\n');
  const { gateway, http, media } = await studio(t, `announce = ["${ipv4}", "${ipv6}"]\n${dscp}`);

  // One way at a time: who has the choice mostly takes IPv6 and UDP, and sometimes stays with what answered first.
  network.drop(`meta nfproto ipv6 th dport ${media}`);
  await watched(t, network, { gateway, http, name: 'IPv4', filter: `ip and udp src port ${media}` });
  network.open();
  network.drop(`meta nfproto ipv4 th dport ${media}`);
  await watched(t, network, { gateway, http, name: 'IPv6', filter: `ip6 and udp src port ${media}` });
  network.open();
  network.drop('meta l4proto udp');
  await watched(t, network, { gateway, http, name: 'TCP', filter: `tcp src port ${media}`, tcp: true });
}

async function watched(t, network, { gateway, http, name, filter, tcp }) {
  const capture = await Capture.start(t, network.device, filter, name);
  const browser = await t.chromium({ network });
  const page = new PlayerPage(await browser.open(gateway.page('one', `http://${network.gateway.ipv4}:${http}`)));
  await until(`${name}: the page is live`, 20, async () => (await page.state()) === 'live');
  const kinds = tcp ? ['connection'] : ['video', 'audio', 'data', 'stun', 'rtcp'];
  const kindOf = tcp ? () => 'connection' : await classifier(page);
  const count = () => countMarks(capture.packets, kindOf);
  await until(`${name}: packets of every kind`, 15, () => {
    const seen = count();
    // Of data, the handshake and the association are about ten datagrams, by what SCTP bundles; then there is silence.
    const least = { stun: 1, rtcp: 1, data: 6 };
    const missing = kinds.filter((kind) => sum(seen[kind]) < (least[kind] ?? ENOUGH));
    assert.deepEqual(missing, [], `too few packets of ${missing}; seen by kind and mark: ${JSON.stringify(seen)}`);
    return true;
  });
  await capture.stop();
  await browser.close();
  const seen = count();
  for (const kind of kinds) {
    const wanted = MARKS[kind] ?? MARKS.video;
    t.measure(`${name}, ${kind}`, JSON.stringify(seen[kind]));
    assert.deepEqual(Object.keys(seen[kind]), [String(wanted)], `${name}: every packet of ${kind} is marked ${wanted}`);
  }
}

/** Tells packets apart by their first octets (RFC 7983, RFC 5761) and the payload types of the answer. */
async function classifier(page) {
  const answer = await page.page.evaluate(() => globalThis.interopRecorder.connections.at(-1).remoteDescription.sdp);
  const audio = Number(/^m=audio \d+ \S+ (\d+)/m.exec(answer)[1]);
  return (payload) => {
    const [first, second] = payload;
    if (first < 4) return 'stun';
    if (first >= 20 && first < 64) return 'data';
    if (first < 128 || first > 191) return 'other';
    if (second >= 192 && second < 224) return 'rtcp';
    return (second & 127) === audio ? 'audio' : 'video';
  };
}

function countMarks(packets, kindOf) {
  const counts = {};
  for (const { dscp, payload } of packets) {
    const marks = (counts[kindOf(payload)] ??= {});
    marks[dscp] = (marks[dscp] ?? 0) + 1;
  }
  return counts;
}

const sum = (marks = {}) => Object.values(marks).reduce((all, n) => all + n, 0);
