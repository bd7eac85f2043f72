#!/usr/bin/env node
// Starts filetracker-server with more threads for the file system than Node's four, so that a few slow syncs
// do not hold up every read. Node counts its threads when it first uses one, and loading an ES module does:
// so this must be a CommonJS file, and the program itself comes after it.
process.env['UV_THREADPOOL_SIZE'] ??= '16';
void import('./filetracker-server.ts');
