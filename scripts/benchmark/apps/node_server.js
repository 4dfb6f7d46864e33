// The benchmark's server for Node: files from memory, JSON made for each request, a log line for
// each stream when it closes. Of a file of /large or /packed it sends a range, or the compressed
// file beside it, when the request asks for that. Its 300 routes are found by hand: the resource in
// a Map, then the three of it in turn.  use: node node_server.js PORT ROOT CERT KEY LOG
'use strict';
const fs = require('node:fs');
const http2 = require('node:http2');
const path = require('node:path');

const [port, root, cert, key, logFile] = process.argv.slice(2);
const log = fs.createWriteStream(logFile, { flags: 'a' });
const types = { '.html': 'text/html; charset=utf-8' };
const files = new Map();
for (const entry of fs.readdirSync(root, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const file = path.join(entry.parentPath ?? entry.path, entry.name);
  const content = fs.readFileSync(file);
  const name = '/' + path.relative(root, file);
  files.set(name, {
    content,
    varies: name.startsWith('/large/') || name.startsWith('/packed/'),
    headers: {
      ':status': 200,
      'content-type': types[path.extname(file)] ?? 'application/octet-stream',
      'content-length': content.length,
    },
  });
}

const routes = new Map();
for (let number = 0; number < 100; number++) {
  const resource = `resource-${String(number).padStart(3, '0')}`;
  routes.set(resource, [
    [new RegExp(`^/api/${resource}$`), () => ({ resource })],
    [new RegExp(`^/api/${resource}/(-?\\d+)$`), (id) => ({ resource, id: Number(id) })],
    [
      new RegExp(`^/api/${resource}/(-?\\d+)/([^/]+)$`),
      (id, part) => ({ resource, id: Number(id), part }),
    ],
  ]);
}

// What a route makes, undefined where there is none.
function routed(name) {
  for (const [pattern, make] of routes.get(name.split('/')[2]) ?? []) {
    const found = pattern.exec(name);
    if (found !== null) return make(...found.slice(1));
  }
  return undefined;
}

// What is sent of a file of which the request's fields choose it.
function varied(name, file, asked) {
  const span = /^bytes=(\d+)-(\d+)$/.exec(asked.range ?? '');
  if (span !== null) {
    const content = file.content.subarray(Number(span[1]), Number(span[2]) + 1);
    const headers = {
      ...file.headers,
      ':status': 206,
      'content-length': content.length,
      'content-range': `bytes ${span[1]}-${span[2]}/${file.content.length}`,
    };
    return { content, headers };
  }
  for (const [coding, suffix] of [['br', '.br'], ['gzip', '.gz']]) {
    const packed = files.get(name + suffix);
    if (packed !== undefined && (asked['accept-encoding'] ?? '').includes(coding)) {
      const headers = {
        ...file.headers,
        'content-encoding': coding,
        'content-length': packed.content.length,
        vary: 'accept-encoding',
      };
      return { content: packed.content, headers };
    }
  }
  return file;
}

const server = http2.createSecureServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) });
server.on('stream', (stream, headers) => {
  const start = performance.now();
  const target = headers[':path'];
  const query = target.indexOf('?');
  const name = query < 0 ? target : target.slice(0, query);
  let status = 200;
  stream.on('error', () => {});
  stream.on('close', () => {
    const time = new Date().toISOString();
    log.write(`${time}\t${status}\t${(performance.now() - start).toFixed(3)}\th2\t${target}\n`);
  });
  let made;
  if (name === '/json') made = { hello: 'world', numbers: [1, 2, 3] };
  else if (name.startsWith('/api/')) made = routed(name);
  if (made !== undefined) {
    const content = JSON.stringify(made);
    stream.respond({
      ':status': 200,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(content),
    });
    stream.end(content);
    return;
  }
  const file = files.get(name);
  if (file === undefined) {
    status = 404;
    stream.respond({ ':status': 404 }, { endStream: true });
    return;
  }
  const { content, headers: fields } = file.varies ? varied(name, file, headers) : file;
  status = fields[':status'];
  stream.respond(fields);
  stream.end(content);
});
server.on('sessionError', () => {});
server.listen(Number(port), '127.0.0.1', 1024);
