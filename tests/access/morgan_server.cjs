// The real morgan in front of a server that answers as each request's x-answer says.
// use: node morgan_server.cjs FOLDER_OF_MORGAN FORMATS_AS_JSON
// Prints its port, then for each request a JSON array of its lines: one for each format at the
// request's end, and after those one for each format at its arrival.
'use strict'
const http = require('node:http')
const path = require('node:path')

const folder = path.join(process.argv[2], 'node_modules', 'morgan')
const formats = JSON.parse(process.argv[3])

// Time stands still, so that lines can be compared to the digit.
const NOW = Date.UTC(2026, 10, 20, 13, 31, 59, 123)
const RealDate = Date
globalThis.Date = class extends RealDate {
  constructor (...given) { super(...(given.length ? given : [NOW])) }
}
let headersDue = false
process.hrtime = since => since ? [0, 12345678] : [5, headersDue ? 7412346 + 900 : 900]

delete process.env.NO_COLOR
const morgan = require(folder)
delete require.cache[require.resolve(folder)]
process.env.NO_COLOR = '1'
const plain = require(folder)

let lines = []
const wanted = [false, true].flatMap(immediate => formats.map(format => ({ format, immediate })))
const loggers = wanted.map(({ format, immediate }, index) => (
  format === 'dev-plain' ? plain : morgan
)(
  format === 'dev-plain' ? 'dev' : format,
  {
    immediate,
    stream: {
      write (line) {
        lines[index] = line
        if (lines.filter(Boolean).length === wanted.length) {
          console.log(JSON.stringify(lines))
          lines = []
        }
      }
    }
  }
))

const server = http.createServer((req, res) => {
  headersDue = false
  for (const logger of loggers) logger(req, res, () => {})
  headersDue = true
  const answer = JSON.parse(req.headers['x-answer'] || '{}')
  if (answer.hang) return
  for (const [name, value] of Object.entries(answer.headers || {})) res.setHeader(name, value)
  res.statusCode = answer.status || 200
  if (answer.stall) {
    res.write('begun')
    return
  }
  req.resume()
  res.end(answer.body)
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
