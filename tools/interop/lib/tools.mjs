// Where the foreign peers are on this machine.

import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

export const CHROMIUM = onPath('chromium');
export const FIREFOX = onPath('firefox-esr');
/** Players of the `webrtc` crate, many in one process: an example of the root package, which `cargo test` builds. */
export const CROWD = join(ROOT, 'target/debug/examples/crowd');
export const FFMPEG = packagedFfmpeg(join(ROOT, 'target/tools-venv'));

/** What a run cannot do without and does not find, in words. */
export function missingTools(binary) {
  const needed = [
    [existsSync(binary), `${binary} (cargo build --release)`],
    [existsSync(CROWD), `${CROWD} (cargo build --example crowd)`],
    [CHROMIUM, 'chromium (tools/setup)'],
    [onPath('openssl'), 'openssl (tools/setup)'],
    [FIREFOX, 'firefox-esr (tools/setup)'],
    [FFMPEG, 'FFmpeg 9 in target/tools-venv (tools/setup)'],
  ];
  return needed.filter(([found]) => !found).map(([, what]) => what);
}

function onPath(program) {
  return (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, program)).find(existsSync);
}

/** The static binary inside the `imageio-ffmpeg` wheel; its file name carries the version. */
function packagedFfmpeg(venv) {
  const libraries = join(venv, 'lib');
  if (!existsSync(libraries)) return undefined;
  return readdirSync(libraries)
    .map((python) => join(libraries, python, 'site-packages/imageio_ffmpeg/binaries'))
    .filter(existsSync)
    .flatMap((folder) => readdirSync(folder).filter((file) => file.startsWith('ffmpeg-')).map((file) => join(folder, file)))
    .at(0);
}
