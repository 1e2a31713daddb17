const http = require('http');
const ms = require('ms');

if (require.main === module) {
  http.createServer((_, res) => res.end(`node says ${ms(60000)}\n`)).listen(process.env.PORT, '127.0.0.1');
}
