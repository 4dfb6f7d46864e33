// The benchmark's server for Node: files from memory, JSON made for each request, a log line for
// each stream when it closes.  use: node node_server.js PORT ROOT CERT KEY LOG
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
  files.set('/' + path.relative(root, file), {
    content,
    headers: {
      ':status': 200,
      'content-type': types[path.extname(file)] ?? 'application/octet-stream',
      'content-length': content.length,
    },
  });
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
  if (name === '/json') {
    const content = JSON.stringify({ hello: 'world', numbers: [1, 2, 3] });
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
  stream.respond(file.headers);
  stream.end(file.content);
});
server.on('sessionError', () => {});
server.listen(Number(port), '127.0.0.1', 1024);
