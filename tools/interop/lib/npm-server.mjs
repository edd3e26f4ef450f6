// Serves the web clients of others to a browser as their packages ship them, from an origin that is not the gateway's:
// so what they do is cross-origin, as on a casino's own site.

import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { isBuiltin } from 'node:module';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const MODULES = fileURLToPath(new URL('../node_modules', import.meta.url));
const REQUIRE = /\brequire\(["']([^"']+)["']\)/g;

export class NpmServer {
  /** An empty page at `/`, ES modules below `/node_modules/`, CommonJS packages as ES modules below `/commonjs/`. */
  static async listen() {
    const server = new NpmServer();
    server.http = createServer((request, response) => {
      const found = page(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
      response.writeHead(found ? 200 : 404, { 'Content-Type': found?.type ?? 'text/plain' }).end(found?.text ?? 'not found');
    });
    await new Promise((resolve) => server.http.listen(0, '127.0.0.1', resolve));
    server.origin = `http://127.0.0.1:${server.http.address().port}`;
    return server;
  }

  async close() {
    this.http.closeAllConnections?.();
    await new Promise((resolve) => this.http.close(resolve));
  }
}

function page(path) {
  if (path === '/') return { type: 'text/html', text: '<!doctype html><title>interop</title><body></body>' };
  if (path.startsWith('/commonjs/')) return { type: 'text/javascript', text: asModule(path.slice('/commonjs/'.length)) };
  const file = join(MODULES, path.replace(/^\/node_modules\//, ''));
  const allowed = path.startsWith('/node_modules/') && file.startsWith(MODULES + sep) && file.endsWith('.js');
  return allowed && existsSync(file) ? { type: 'text/javascript', text: readFileSync(file, 'utf8') } : undefined;
}

/** The CommonJS build of a package, with all that it requires, as the text of one ES module; its exports are the default. */
export function asModule(name) {
  const modules = new Map();
  const entry = collect(resolve(name, MODULES), modules);
  const list = [...modules].map(([file, { text, needs }]) => {
    return `${JSON.stringify(file)}: { needs: ${JSON.stringify(needs)}, run(module, exports, require) {\n${text}\n} }`;
  });
  return `const modules = {\n${list.join(',\n')}\n};
const load = (file) => {
  const it = modules[file];
  if (!it.module) {
    it.module = { exports: {} };
    it.run(it.module, it.module.exports, (name) => load(it.needs[name]));
  }
  return it.module.exports;
};
export default load(${JSON.stringify(entry)});
`;
}

/** Adds a file and what it requires. @returns the file */
function collect(file, modules) {
  if (modules.has(file)) return file;
  const module = { text: isBuiltin(file) ? '' : readFileSync(file, 'utf8'), needs: {} };
  modules.set(file, module);
  for (const [, name] of module.text.matchAll(REQUIRE)) module.needs[name] = collect(resolve(name, dirname(file)), modules);
  return file;
}

/** The file of a package or of a relative path. Node's own modules stay names: a browser has none, they load as empty. */
function resolve(name, folder) {
  const found = name.startsWith('.') ? asFile(join(folder, name)) : packageMain(name, folder);
  if (found) return found;
  if (isBuiltin(name)) return name;
  throw new Error(`${name} is not in node_modules (asked for in ${folder})`);
}

function packageMain(name, folder) {
  for (let at = folder; at.startsWith(MODULES); at = dirname(at)) {
    const home = join(at, at.endsWith('node_modules') ? '' : 'node_modules', name);
    if (!existsSync(join(home, 'package.json'))) continue;
    const { main = '.' } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'));
    return asFile(join(home, main));
  }
  return undefined;
}

/** As Node completes a path: as it is, with `.js`, or the `index.js` in it. */
function asFile(path) {
  return [path, `${path}.js`, join(path, 'index.js')].find((file) => existsSync(file) && statSync(file).isFile());
}

/** The version of an installed package. */
export function packageVersion(name) {
  return JSON.parse(readFileSync(join(MODULES, name, 'package.json'), 'utf8')).version;
}
